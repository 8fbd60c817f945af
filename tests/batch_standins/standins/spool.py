"""The jobs of a stand-in: each has a directory, a process that looks after it, and a state that others may read.

``jobs/7/`` holds ``request.json``, ``script`` (a copy, as the real ones make it), ``state.json`` and, while it runs,
``pid``. The keeper of a job waits for those it depends on, runs it, sends the signal it asked for, ends it when its
time is over, and starts it again when its exit code says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from standins import cobalt, flux, htcondor, lsf, pbs
from standins.request import Refused, Request

#: Seconds between the polite signal at the end of the time and the other.
GRACE = 10.0
#: A job that starts over and over is stopped here.
MOST_RUNS = 20
HERE = Path(__file__).parent


def identity(system: str, request: Request, number: int) -> str:
    """What the submit command prints."""
    module = {"pbs": pbs, "torque": pbs, "cobalt": cobalt, "lsf": lsf, "flux": flux, "htcondor": htcondor}[system]
    return str(module.job_id(request, number))  # type: ignore[attr-defined]


def reserve(base: Path) -> int:
    """A number for a job, and its directory."""
    number = 1 + len(list((base / "jobs").iterdir()))
    while True:
        try:
            (base / "jobs" / str(number)).mkdir()
        except FileExistsError:
            number += 1
        else:
            return number


def new(base: Path, system: str, request: Request, script: str | None, number: int) -> None:
    """Take a job, and start its keeper."""
    spool = base / "jobs" / str(number)
    request.directory = request.directory or os.getcwd()
    if request.command[0] == "-":
        (spool / "script").write_text(script or "")
    elif system in ("cobalt", "htcondor"):  # these run the file itself
        os.symlink(os.path.abspath(request.command[0]), spool / "script")
    else:
        shutil.copy(request.command[0], spool / "script")
    (spool / "script").chmod(0o700)
    (spool / "request.json").write_text(json.dumps(request.to_dict()))
    (spool / "environment.json").write_text(json.dumps(dict(os.environ)))
    tell(spool, state="queued", runs=0)
    log = (spool / "keeper").open("w")
    subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(HERE.parent)!r}); from standins import spool; "
            f"spool.keep({str(base)!r}, {system!r}, {number})",
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def tell(spool: Path, **values: Any) -> None:
    """Change the state of a job. Its keeper and a user's command may do so at once."""
    with open(spool / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fresh = spool / "state.fresh"
        fresh.write_text(json.dumps(look(spool) | values))
        fresh.replace(spool / "state.json")


def look(spool: Path) -> dict[str, Any]:
    """The state of a job."""
    with contextlib.suppress(FileNotFoundError):
        return dict(json.loads((spool / "state.json").read_text()))
    return {}


def numbered(text: str) -> int:
    """The number in a job's id."""
    found = re.search(r"\d+", text)
    if found is None:
        raise Refused(f"illegally formed job identifier: {text}")
    return int(found[0])


def keep(base_path: str, system: str, number: int) -> None:
    """See a job through."""
    base = Path(base_path)
    spool = base / "jobs" / str(number)
    request = Request.from_dict(json.loads((spool / "request.json").read_text()))
    for kind, job in request.after:
        if not _may_begin(base, kind, numbered(job), spool):
            tell(spool, state="done", code=-1, why=f"dependency {kind}:{job} cannot be met")
            return
    codes = []
    for index in request.array or [None]:
        runs = 0
        while True:
            runs += 1
            tell(spool, state="running", runs=runs, began=time.time())
            code = _run(base, system, number, request, index, runs)
            if _released(spool):
                continue
            if code not in request.requeue_on or runs >= MOST_RUNS or look(spool).get("cancelled"):
                break
            tell(spool, state="queued")
        codes.append(code)
    tell(spool, state="done", code=max(codes), codes=codes, ended=time.time())


def _released(spool: Path) -> bool:
    """Wait while a job is held; whether it was, and may run again now."""
    if not look(spool).get("held"):
        return False
    tell(spool, state="held")
    while look(spool).get("held"):
        if look(spool).get("cancelled"):
            return False
        time.sleep(0.1)
    return True


def _may_begin(base: Path, kind: str, job: int, spool: Path) -> bool:
    other = base / "jobs" / str(job)
    while look(other).get("state") != "done":
        if look(spool).get("cancelled") or not other.exists():
            return False
        time.sleep(0.1)
    code = look(other)["code"]
    if kind == "afterok":
        return bool(code == 0)
    return bool(code != 0) if kind == "afternotok" else True


def _environment(base: Path, system: str, number: int, request: Request, index: int | None) -> dict[str, str]:
    spool = base / "jobs" / str(number)
    if system == "htcondor":  # nothing of the submitter's at all
        return htcondor.environment(request, number, index, str(spool)) | request.environment
    of_the_submitter = json.loads((spool / "environment.json").read_text())
    if system in ("pbs", "torque", "cobalt") and "V" not in request.said:
        # these give a job a fresh login environment: nothing of the submitter's but what is always there
        kept = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR")
        environment = {name: of_the_submitter[name] for name in kept if name in of_the_submitter}
    else:
        environment = of_the_submitter
    environment = {
        name: value for name, value in environment.items() if not name.startswith(("PBS_", "LSB_", "FLUX_", "COBALT_"))
    }
    environment["PATH"] = f"{base / 'bin'}:{environment.get('PATH', '')}"
    if system in ("pbs", "torque"):
        dialect = pbs.PBS if system == "pbs" else pbs.TORQUE
        told = pbs.environment(request, number, index, str(spool), dialect)
    else:
        module = {"cobalt": cobalt, "lsf": lsf, "flux": flux}[system]
        told = module.environment(request, number, index, str(spool))  # type: ignore[attr-defined]
    if system == "cobalt":
        told |= {"COBALT_STARTTIME": str(int(time.time())), "COBALT_ENDTIME": str(int(time.time()) + request.seconds)}
    return environment | told | request.environment


def _path(base: Path, system: str, request: Request, number: int, index: int | None, text: str, default: str) -> Path:
    """Where output goes; the words that each system replaces in it."""
    text = text or default
    job = identity(system, request, number)
    if system == "lsf":
        text = text.replace("%J", str(number)).replace("%I", str(index or 0))
    elif system == "flux":
        text = (
            text.replace("{{id}}", job)
            .replace("{{jobid}}", job)
            .replace("{{id.f58}}", job)
            .replace("{{name}}", request.name)
        )
    elif system == "cobalt":
        text = text.replace("$jobid", job).replace("$COBALT_JOBID", job)
    elif system in ("pbs", "torque"):
        text = text.replace("^array_index^", str(index)).replace("$PBS_JOBID", job)
    path = Path(request.directory) / text
    if system in ("pbs", "torque") and path.is_dir():  # it is given the default name there
        suffix = "OU" if system == "pbs" else f"o{number}"
        path = path / (f"{job}.{suffix}" if system == "pbs" else f"{request.name}.{suffix}")
    return path


def _run(base: Path, system: str, number: int, request: Request, index: int | None, runs: int) -> int:
    spool = base / "jobs" / str(number)
    suffix = "" if index is None else f".{index}"
    output = _path(base, system, request, number, index, request.output, f"{request.name}.o{number}{suffix}")
    joined = request.said.get("j") == "oe" or (system in ("lsf", "flux") and not request.error)
    error = (
        output
        if joined
        else _path(base, system, request, number, index, request.error, f"{request.name}.e{number}{suffix}")
    )
    place = request.directory
    if system in ("pbs", "torque"):
        place = os.environ.get("HOME", "/")  # a job of these begins in the home directory
    environment = _environment(base, system, number, request, index)
    if system == "htcondor":
        place = environment["_CONDOR_SCRATCH_DIR"]
    try:
        # PBS, Torque and Cobalt bring a new file; the others append
        out = output.open("w" if system in ("pbs", "torque") and runs == 1 else "a")
        err = out if joined else error.open("w" if system in ("pbs", "torque") and runs == 1 else "a")
    except OSError as why:
        tell(spool, why=f"{why}")
        return 255
    with out, err:
        process = subprocess.Popen(
            [str(spool / "script"), *request.command[1:]],
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment,
            start_new_session=True,
        )
        (spool / "pid").write_text(str(process.pid))
        code = _watch(process, request, spool)
    (spool / "pid").unlink()
    return code


def _watch(process: subprocess.Popen[bytes], request: Request, spool: Path) -> int:
    began = time.monotonic()
    warn = began + max(0, request.seconds - request.signal_before) if request.signal else None
    end = began + request.seconds if request.seconds else None
    while True:
        try:
            return process.wait(0.1)
        except subprocess.TimeoutExpired:
            now = time.monotonic()
        if warn is not None and now >= warn:
            warn = None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, getattr(signal, f"SIG{request.signal}"))
        over = end is not None and now >= end
        if over and request.holds:
            tell(spool, held="Job exceeded allowed execute duration")
        if over or look(spool).get("cancelled") or look(spool).get("held"):
            with contextlib.suppress(ProcessLookupError):
                (os.kill if request.to_one else os.killpg)(process.pid, signal.SIGTERM)
                try:
                    process.wait(GRACE)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return -29 if over else -15
