"""HTCondor: ``condor_submit [-terse] DESCRIPTION``, read by HTCondor's own parser (PyPI ``htcondor``, up to 24).

The parser makes of a description the very job that a pool would get. Refused beside what it refuses: what
condor_submit itself looks at (the executable, the directories of the outputs), and a command that is not in the manual,
of which the real one only says that it may be a typing error. One machine is here, so the parallel universe is not.

A job sees nothing of its submitter's environment, not even PATH; signals go to its first process alone; one that takes
longer than it was allowed to is held.
"""

from __future__ import annotations

import os
import re
import shlex
import warnings
from collections.abc import Sequence
from typing import Any

from standins.request import Refused, Request, long_options

#: Commands of a description that there are reasons to use; those with a plus are the site's own.
_COMMANDS = {
    "universe", "executable", "transfer_executable", "batch_name", "environment", "machine_count", "request_cpus",
    "request_memory", "request_gpus", "accounting_group", "requirements", "concurrency_limits", "notify_user",
    "notification", "initialdir", "should_transfer_files", "when_to_transfer_output", "transfer_output_files",
    "output", "error", "log", "on_exit_remove", "checkpoint_exit_code", "allowed_execute_duration", "kill_sig",
    "remove_kill_sig", "job_max_vacate_time",
}  # fmt: skip
#: JobStatus of a job in the queue.
STATES = {"queued": "1", "running": "2", "held": "5"}


def submit(arguments: Sequence[str], number: int) -> Request:
    """Understand a command line of condor_submit and the description that it names."""
    words = [f"-{word}" if re.match(r"-[a-z]", word) else word for word in arguments]
    said, names = long_options(words, {"terse": False}, {}, "condor_submit")
    if len(names) != 1:
        raise Refused("ERROR: Failed to parse command line arguments")
    try:
        with open(names[0], encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise Refused(f"ERROR: Failed to open command file ({names[0]}) ({error.strerror})") from None
    for line in text.splitlines():
        name = line.partition("=")[0].strip().lower()
        if "=" in line and not line.startswith("#") and not name.startswith(("+", "my.")) and name not in _COMMANDS:
            raise Refused(f"WARNING: the line '{line}' was unused by condor_submit. Is it a typo?")
    ad = _read(text, number)
    if ad["JobUniverse"] != 5:
        raise Refused("ERROR: no dedicated scheduler here: this stand-in has one machine")
    if not os.path.isfile(ad["Cmd"]):
        raise Refused(f"ERROR: Executable file {ad['Cmd']} does not exist")
    if not os.path.isdir(ad["Iwd"]):
        raise Refused(f"ERROR: No such directory: {ad['Iwd']}")
    for name in ("Out", "Err", "UserLog"):
        path = os.path.join(ad["Iwd"], ad.get(name, "/dev/null"))
        if not os.access(os.path.dirname(path), os.W_OK):
            raise Refused(f'ERROR: Can\'t open "{path}" with flags 01101 (Permission denied)')
    again = ad.get("SuccessCheckpointExitCode")
    return Request(
        command=[ad["Cmd"]],
        name=ad.get("JobBatchName", ""),
        ranks_per_node=ad["RequestCpus"],
        seconds=ad.get("AllowedExecuteDuration", 0),
        output=ad["Out"],
        error=ad["Err"],
        directory=ad["Iwd"],
        environment=dict(word.split("=", 1) for word in shlex.split(ad.get("Environment", ""))),
        requeue_on=[] if again is None else [again],
        to_one=True,
        holds=True,
        said={name: value for name, value in ad.items() if isinstance(value, (str, int, bool))}
        | {"terse": ("terse", "") in said},
    )


def _read(text: str, number: int) -> dict[str, Any]:
    """The job that comes of a description, by the real parser."""
    os.environ.setdefault("CONDOR_CONFIG", "/dev/null")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import htcondor
    try:
        jobs = list(htcondor.Submit(text).jobs(clusterid=number))
    except Exception as error:  # whatever it is, it is the parser's word on the description
        raise Refused(f"ERROR: {error}") from None
    if len(jobs) != 1:
        raise Refused(f"ERROR: {len(jobs)} jobs; our descriptions are of one")
    return {name: jobs[0].eval(name) for name in jobs[0] if name != "Requirements"}


def environment(request: Request, number: int, index: int | None, spool: str) -> dict[str, str]:
    """What the job is told."""
    scratch = f"{spool}/scratch"
    os.makedirs(scratch, exist_ok=True)
    return {
        "BATCH_SYSTEM": "HTCondor",
        "_CONDOR_SCRATCH_DIR": scratch,
        "_CONDOR_SLOT": "slot1_1",
        "_CONDOR_JOB_AD": f"{scratch}/.job.ad",
        "_CONDOR_MACHINE_AD": f"{scratch}/.machine.ad",
        "TMPDIR": scratch,
        "TMP": scratch,
        "TEMP": scratch,
        "OMP_NUM_THREADS": str(request.ranks_per_node),
    }


def job_id(request: Request, number: int) -> str:
    """What condor_submit prints."""
    if request.said.get("terse"):
        return f"{number}.0 - {number}.0"
    return f"Submitting job(s).\n1 job(s) submitted to cluster {number}."


def columns(arguments: Sequence[str], tool: str) -> tuple[list[str], list[str]]:
    """The ids and the attributes of ``condor_q`` and ``condor_history``: ``ID... [-limit N] -af NAME...``."""
    ids: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word in ("-af", "-autoformat"):
            end = next((place for place, one in enumerate(words) if one.startswith("-")), len(words))
            if words[end:] or not words:
                raise Refused(f"Error: Argument {word} requires at least one parameter")
            return ids, words
        if word == "-limit" and tool == "condor_history":
            words.pop(0)
        elif re.fullmatch(r"\d+(\.\d+)?", word):
            ids.append(word)
        else:
            raise Refused(f"Error: unrecognized argument {word}")
    raise Refused(f"{tool}: only -af is played here")


def attributes(request: Request, number: int, state: dict[str, object]) -> dict[str, str]:
    """What condor_q and condor_history know of a job; what is not there is printed as undefined."""
    found = {"ClusterId": str(number), "ProcId": "0", "JobBatchName": request.name}
    code = state.get("code")
    if state["state"] == "done":
        found["JobStatus"] = "3" if state.get("cancelled") else "4"
        if isinstance(code, int) and not state.get("cancelled"):
            found["ExitBySignal"] = "true" if code < 0 else "false"
            found["ExitSignal" if code < 0 else "ExitCode"] = str(abs(code))
    else:
        found["JobStatus"] = "3" if state.get("cancelled") else STATES[str(state["state"])]
    if state["state"] == "held":
        found["HoldReason"] = str(state["held"])
    return found
