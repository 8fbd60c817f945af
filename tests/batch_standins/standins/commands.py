"""The commands of the stand-ins: what is run under the names ``qsub``, ``qstat``, ``bsub``, ``flux`` and so on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from standins import cobalt, flux, htcondor, launchers, lsf, pbs, spool
from standins.request import Refused, Request, long_options, short_options

#: What each system brings.
COMMANDS: dict[str, tuple[str, ...]] = {
    "pbs": ("qsub", "qstat", "qdel"),
    "torque": ("qsub", "qstat", "qdel", "aprun"),
    "cobalt": ("qsub", "qstat", "qdel", "aprun"),
    "lsf": ("bsub", "bjobs", "bkill", "jsrun"),
    "flux": ("flux",),
    "htcondor": ("condor_submit", "condor_q", "condor_history", "condor_rm", "condor_hold", "condor_release"),
}
_LAUNCHERS = {"aprun": launchers.aprun, "jsrun": launchers.jsrun, "pals": launchers.pals}


def install(base: Path, system: str, mpiexec: str) -> Path:
    """Put a system's commands into a directory.

    Parameters
    ----------
    base : Path
        Of this system alone; it gets ``bin/`` and ``jobs/``.
    system : str
        A key of `COMMANDS`.
    mpiexec : str
        What starts the ranks behind a launcher's name: words of a shell.

    Returns
    -------
    Path
        What to put first on PATH.
    """
    programs = base / "bin"
    programs.mkdir(parents=True)
    (base / "jobs").mkdir()
    for name in COMMANDS[system]:
        command(programs, name, base, system, mpiexec)
    return programs


def command(programs: Path, name: str, base: Path, system: str, mpiexec: str, plays: str = "") -> None:
    """Write one command; ``plays`` says whose part it plays, where that is not its name's."""
    path = programs / name
    alone = "" if system == "htcondor" else " -S"  # the others need nothing that is installed
    path.write_text(
        f"#!{sys.executable}{alone}\nimport os, sys\nos.environ.setdefault('STANDIN_MPIEXEC', {mpiexec!r})\n"
        f"sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\nfrom standins.commands import main\n"
        f"sys.exit(main({str(base)!r}, {system!r}, {plays or name!r}, sys.argv[1:]))\n"
    )
    path.chmod(0o755)


def main(base_path: str, system: str, name: str, arguments: list[str]) -> int:
    """Run one of the commands; its exit code."""
    base = Path(base_path)
    try:
        if name in _LAUNCHERS:
            return _become(_LAUNCHERS[name](arguments))
        if name == "flux":
            return _flux(base, arguments)
        if system == "htcondor":
            return _condor(base, name, arguments)
        if name in ("qsub", "bsub"):
            return _submit(base, system, arguments)
        if name in ("qdel", "bkill"):
            return _cancel(base, arguments)
        if name == "bjobs":
            return _bjobs(base, arguments)
        return _qstat_cobalt(base, arguments) if system == "cobalt" else _qstat(base, system, arguments)
    except Refused as why:
        print(why.words, file=sys.stderr)
        return why.code


def _become(line: list[str]) -> int:
    sys.stdout.flush()
    os.execvp(line[0], line)


def _submit(base: Path, system: str, arguments: list[str]) -> int:
    from_stdin = None
    named = any(not word.startswith("-") and os.path.isfile(word) for word in arguments)
    if not named and not sys.stdin.isatty():
        from_stdin = sys.stdin.read()
    reading: dict[str, Callable[[], Request]] = {
        "pbs": lambda: pbs.submit(arguments, from_stdin, pbs.PBS),
        "torque": lambda: pbs.submit(arguments, from_stdin, pbs.TORQUE),
        "cobalt": lambda: cobalt.submit(arguments, from_stdin),
        "lsf": lambda: lsf.submit(arguments, from_stdin),
        "flux": lambda: flux.submit(arguments, from_stdin),
    }
    request = reading[system]()
    number = spool.reserve(base)
    spool.new(base, system, request, from_stdin, number)
    print(spool.identity(system, request, number))
    return 0


def _condor(base: Path, name: str, arguments: list[str]) -> int:
    """The commands of HTCondor. A job is its cluster, for each of ours has one process."""
    if name == "condor_submit":
        number = spool.reserve(base)
        try:
            request = htcondor.submit(arguments, number)
        except Refused:
            (base / "jobs" / str(number)).rmdir()
            raise
        spool.new(base, "htcondor", request, None, number)
        print(htcondor.job_id(request, number))
        return 0
    if name in ("condor_q", "condor_history"):
        identities, names = htcondor.columns(arguments, name)
        for identity in identities:
            known = _known(base, identity.partition(".")[0])
            if known is None or (spool.look(known[0])["state"] == "done") != (name == "condor_history"):
                continue  # the real ones print nothing either
            found = htcondor.attributes(known[1], int(known[0].name), spool.look(known[0]))
            print(*(found.get(one, "undefined") for one in names))
        return 0
    return _condor_changes(base, name, arguments)


def _condor_changes(base: Path, name: str, arguments: list[str]) -> int:
    """``condor_rm ID...``, ``condor_hold [-reason TEXT] ID...`` and ``condor_release ID...``."""
    verb, done = {
        "condor_rm": ("remove", "marked for removal"),
        "condor_hold": ("hold", "held"),
        "condor_release": ("release", "released"),
    }[name]
    reason = "via condor_hold (by user user)"
    words = list(arguments)
    if words[:1] == ["-reason"] and name == "condor_hold":
        reason, words = words[1], words[2:]
    code = 0
    for identity in words:
        known = _known(base, identity.partition(".")[0])
        if known is None or spool.look(known[0])["state"] == "done":
            print(f"Couldn't find/{verb} all jobs in cluster {identity}", file=sys.stderr)
            code = 1
            continue
        change: dict[str, object] = {"cancelled": True}
        if name != "condor_rm":
            change = {"held": reason if name == "condor_hold" else ""}
        spool.tell(known[0], **change)
        print(f"All jobs in cluster {identity} have been {done}")
    return code


def _cancel(base: Path, identities: list[str]) -> int:
    code = 0
    for identity in identities:
        place = base / "jobs" / str(spool.numbered(identity))
        if not place.exists():
            print(f"Unknown Job Id {identity}", file=sys.stderr)
            code = 153
        elif spool.look(place)["state"] == "done":
            print(f"Job has finished {identity}", file=sys.stderr)
            code = 35
        else:
            spool.tell(place, cancelled=True)
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                os.killpg(int((place / "pid").read_text()), signal.SIGTERM)
    return code


def _known(base: Path, identity: str) -> tuple[Path, Request] | None:
    place = base / "jobs" / str(spool.numbered(identity))
    if not place.exists():
        return None
    return place, Request.from_dict(json.loads((place / "request.json").read_text()))


def _qstat(base: Path, system: str, arguments: list[str]) -> int:
    """``qstat [-x] [-f] [-F json] JOB...`` of PBS, and ``qstat -f JOB...`` of Torque."""
    said, identities = short_options(arguments, "xfF:1", "qstat", 2)
    as_json = ("F", "json") in said
    code, jobs = 0, {}
    for identity in identities:
        known = _known(base, identity)
        finished = known is not None and spool.look(known[0])["state"] == "done"
        if known is None or (finished and ("x", "") not in said and system == "pbs"):
            words = (
                f"qstat: {identity} Job has finished, use -x or -H" if finished else f"qstat: Unknown Job Id {identity}"
            )
            print(words, file=sys.stderr)
            code = 35 if finished else 153
            continue
        jobs[identity] = _attributes(*known, system)
    if as_json:
        print(
            json.dumps({"timestamp": int(time.time()), "pbs_version": "23.06", "pbs_server": "standin", "Jobs": jobs})
        )
        return code
    for identity, attributes in jobs.items():
        print(f"Job Id: {identity}")
        for key, value in attributes.items():
            inner = value.items() if isinstance(value, dict) else ()
            for line in [f"{key}.{one} = {what}" for one, what in inner] or [f"{key} = {value}"]:
                print(f"    {line}")
        print()
    return code


def _attributes(place: Path, request: Request, system: str) -> dict[str, object]:
    state = spool.look(place)
    letter = {"queued": "H" if request.after else "Q", "running": "R", "done": "F" if system == "pbs" else "C"}[
        state["state"]
    ]
    hours, rest = divmod(request.seconds, 3600)
    found: dict[str, object] = {
        "Job_Name": request.name,
        "job_state": letter,
        "run_count": state["runs"],
    }
    if request.seconds:
        found["Resource_List"] = {"walltime": f"{hours:02}:{rest // 60:02}:{rest % 60:02}"}
    if "began" in state:
        began = time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(state["began"]))
        found["stime" if system == "pbs" else "start_time"] = began
    if state["state"] == "done":
        found["Exit_status" if system == "pbs" else "exit_status"] = state["code"]
    return found


def _qstat_cobalt(base: Path, arguments: list[str]) -> int:
    """``qstat --header=JobID:State JOB...``; a job that has ended is not there any more."""
    said, identities = long_options(
        arguments, {"header": True, "full": False, "long": False}, {"f": "full", "l": "long"}, "qstat"
    )
    columns = dict(said).get("header", "JobID:User:WallTime:Nodes:State:Location").split(":")
    rows = []
    for identity in identities:
        known = _known(base, identity)
        if known is None or spool.look(known[0])["state"] == "done":
            continue
        state = "running" if spool.look(known[0])["state"] == "running" else "dep_hold" if known[1].after else "queued"
        values = {
            "JobID": identity,
            "State": state,
            "Nodes": str(known[1].nodes),
            "User": "user",
            "JobName": known[1].name,
        }
        rows.append("  ".join(values.get(column, "N/A").ljust(10) for column in columns))
    if rows:
        print("  ".join(column.ljust(10) for column in columns))
        print("  ".join("=" * 10 for _ in columns))
        print("\n".join(rows))
    return 0


def _bjobs(base: Path, arguments: list[str]) -> int:
    """``bjobs [-noheader] [-a] -o "COLUMNS [delimiter='X']" JOB...``."""
    words, header, columns = list(arguments), True, "jobid stat"
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word == "-noheader":
            header = False
        elif word == "-o":
            columns = words.pop(0)
        elif word != "-a":
            raise Refused(f"bjobs: illegal option {word}", 255)
    delimiter = " "
    if "delimiter=" in columns:
        columns, _, quoted = columns.partition("delimiter=")
        delimiter = quoted.strip().strip("'\"")
    names = columns.split()
    if header:
        print(delimiter.join(name.upper() for name in names))
    code = 0
    for identity in words:
        known = _known(base, identity)
        if known is None:
            print(f"Job <{identity}> is not found", file=sys.stderr)
            code = 255
            continue
        state = spool.look(known[0])
        values = {"jobid": identity, "job_name": known[1].name, "exit_code": "-", "time_left": "-"}
        values["stat"] = {"queued": "PEND", "running": "RUN"}.get(
            state["state"], "DONE" if state.get("code") == 0 else "EXIT"
        )
        if state["state"] == "done" and state["code"] != 0:
            values["exit_code"] = str(state["code"])
        if state["state"] == "running" and known[1].seconds:
            left = int(state["began"] + known[1].seconds - time.time()) // 60
            values["time_left"] = f"{left // 60}:{left % 60} L"
        print(delimiter.join(values.get(name.partition(":")[0], "-") for name in names))
    return code


def _flux(base: Path, arguments: list[str]) -> int:
    words = list(arguments)
    if words[:1] in (["--parent"], ["-p"]):
        words.pop(0)
        if "STANDIN_FLUX" not in os.environ:
            raise Refused("flux: --parent: there is no parent instance")
    if not words:
        raise Refused("usage: flux [OPTIONS] COMMAND ARGS")
    verb = words.pop(0)
    if verb == "batch":
        return _submit(base, "flux", words)
    if verb == "run":
        return _become(launchers.flux_run(words))
    if verb == "getattr" and words == ["jobid"]:
        print(os.environ["FLUX_ENCLOSING_ID"])
        return 0
    if verb == "cancel":
        return _cancel(base, words)
    if verb == "job" and words[:1] == ["timeleft"]:
        identity = words[1] if len(words) > 1 else os.environ["FLUX_ENCLOSING_ID"]
        known = _known(base, identity)
        if known is None or not known[1].seconds:
            print("infinity")
            return 0
        print(int(spool.look(known[0])["began"] + known[1].seconds - time.time()))
        return 0
    if verb == "jobs":
        return _flux_jobs(base, words)
    raise Refused(f"flux: `{verb}' is not a flux command. See 'flux --help'")


def _flux_jobs(base: Path, arguments: list[str]) -> int:
    """``flux jobs [-a] [-n] -o FORMAT JOB...`` with the fields id, status, state, result, returncode, name."""
    takes = {"no-header": False, "suppress-header": False, "format": True, "all": False}
    said, identities = long_options(arguments, takes, {"n": "no-header", "o": "format", "a": "all"}, "flux-jobs")
    form = dict(said).get("format", "{id} {status}")
    code = 0
    for identity in identities:
        known = _known(base, identity)
        if known is None:
            print(f"flux-jobs: ERROR: JobID {identity} unknown", file=sys.stderr)
            code = 1
            continue
        state = spool.look(known[0])
        ended = state["state"] == "done"
        result = ("COMPLETED" if state.get("code") == 0 else "FAILED") if ended else ""
        status = result or {"queued": "DEPEND" if known[1].after else "SCHED", "running": "RUN"}[state["state"]]
        values = {
            "id": identity,
            "status": status,
            "state": "INACTIVE" if ended else status,
            "result": result,
            "returncode": str(state.get("code", "")),
            "name": known[1].name,
        }
        line = form
        for key, value in values.items():
            line = line.replace(f"{{{key}}}", value).replace(f"{{{key}.f58}}", value)
        line = line.replace("{id.dec}", str(spool.numbered(identity)))
        print(line)
    return code
