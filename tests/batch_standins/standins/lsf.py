"""LSF: ``bsub < SCRIPT`` or ``bsub SCRIPT``, with ``#BSUB`` lines.

Each line of the script that begins with ``#BSUB`` is read, by the quoting rules of a shell (a ``#`` after white space
begins a comment). What the command line says wins. An option begins with one dash however long its name is.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
from collections.abc import Sequence

from standins.request import Refused, Request, clock, whole_number

_NO_VALUE = {"x", "r", "rn", "B", "N", "H", "K", "I", "hl"}
_VALUE = {
    "J",
    "W",
    "n",
    "nnodes",
    "R",
    "q",
    "P",
    "o",
    "oo",
    "e",
    "eo",
    "M",
    "Q",
    "U",
    "wa",
    "wt",
    "u",
    "G",
    "cwd",
    "L",
    "w",
    "gpu",
    "env",
    "app",
    "alloc_flags",
    "Lp",
    "We",
    "sp",
    "m",
    "g",
    "core_isolation",
    "smt",
    "csm",
    "step_cgroup",
    "E",
    "sla",
    "rnc",
    "ti",
    "network",
    "outdir",
    "rl",
    "D",
    "stage",
    "jsm",
}
_SPAN = re.compile(r"span\[(ptile=\d+|hosts=1|ptile='![^']*')\]")
_CODES = re.compile(r"(all|\d+)( ~?\d+)*")


def submit(arguments: Sequence[str], script: str | None) -> Request:
    """Understand a command line of bsub and the directives of its script."""
    on_the_line, command = _options(arguments)
    if command:
        path = command[0]
        if not os.path.isfile(path):
            raise Refused(f"{path}: No such file", 255)
        with open(path, encoding="utf-8") as file:
            script = file.read()
    if not script or not script.strip():
        raise Refused("Empty job. Job not submitted.", 255)
    words: list[str] = []
    for line in script.split("\n"):
        if line.startswith("#BSUB") and line[5:6] in (" ", "\t", ""):
            try:
                words += shlex.split(line[5:], comments=True)
            except ValueError as error:
                raise Refused(f"{line}: {error}. Job not submitted.", 255) from None
    in_script, left = _options(words)
    if left:
        raise Refused(f"Bad argument <{left[0]}>. Job not submitted.", 255)
    request = Request(command=command or ["-"], output="/dev/null")
    for name, value in [*in_script, *on_the_line]:
        _take(request, name, value)
    if "n" in request.said and "nnodes" in request.said:
        raise Refused("-n and -nnodes exclude each other. Job not submitted.", 255)
    ptile = re.search(r"ptile=(\d+)", " ".join(request.said.get("R", ())))
    if "n" in request.said:
        slots = int(request.said["n"])
        request.ranks_per_node = int(ptile[1]) if ptile else slots
        request.nodes = -(-slots // request.ranks_per_node)
    return request


def _options(words: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    found, left = [], list(words)
    while left and left[0].startswith("-"):
        name = left.pop(0)[1:]
        if name in _NO_VALUE:
            found.append((name, ""))
        elif name in _VALUE:
            if not left:
                raise Refused(f"-{name}: an argument is missing. Job not submitted.", 255)
            found.append((name, left.pop(0)))
        else:
            raise Refused(f"Illegal option: -{name}. Job not submitted.", 255)
    return found, left


def _take(request: Request, name: str, value: str) -> None:
    def bad(what: str) -> Refused:
        return Refused(f"-{name} {value}: {what}. Job not submitted.", 255)

    if name == "R":
        request.said["R"] = (*request.said.get("R", ()), value)
        if "span[" in value and not _SPAN.search(value):
            raise bad("Bad resource requirement syntax")
        return
    request.said[name] = value
    if name == "J":
        found = re.fullmatch(r"([^\[\]]*)(?:\[([\d,:-]+)\](%\d+)?)?", value)
        if found is None or len(value) > 4094 or "/" in found[1]:
            raise bad("Bad job name")
        request.name = found[1]
        for part in filter(None, (found[2] or "").split(",")):
            span = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
            if span is None or int(span[1]) == 0:
                raise bad("Bad index list")
            request.array += range(int(span[1]), int(span[2] or span[1]) + 1, int(span[3] or 1))
    elif name in ("W", "We"):
        number = value.partition("/")[0]
        minutes = int(number) if number.isdigit() else clock(number, 2)
        if not minutes or (":" in number and int(number.partition(":")[2]) > 59):
            raise bad("Bad RUNLIMIT specification")
        request.seconds = 60 * minutes
    elif name == "n":
        if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)?", value):
            raise bad("Bad processor specification")
        request.said[name] = value.partition(",")[0]
    elif name == "nnodes":
        request.nodes = whole_number(value, "number of nodes", "bsub", 255)
    elif name in ("o", "oo"):
        request.output = value
    elif name in ("e", "eo"):
        request.error = value
    elif name == "Q":
        if not _CODES.fullmatch(value):
            raise bad("Bad requeue exit values")
        request.requeue_on = [int(word) for word in value.split() if word.isdigit()]
    elif name == "wa":
        if value.removeprefix("SIG") not in ("USR1", "USR2", "INT", "TERM", "URG", "HUP", "CHKPNT"):
            raise bad("Bad warning action")
        request.signal = value.removeprefix("SIG")
    elif name == "wt":
        minutes = int(value) if value.isdigit() else clock(value, 2)
        if not minutes:
            raise bad("Bad time specification")
        request.signal_before = 60 * minutes
    elif name == "M" and not re.fullmatch(r"\d+([KMGTkmgt]B?)?!?", value):
        raise bad("Bad memory limit")
    elif name == "cwd":
        request.directory = value
    elif name == "w":
        for term in filter(
            None, re.split(r"&&|\|\||[()]", value.replace("ended(", "").replace("done(", "").replace("exit(", ""))
        ):
            if not re.fullmatch(r"\d+", term.strip()):
                raise bad("Bad dependency condition")
            request.after.append(("afterany", term.strip()))
    elif name == "gpu" and not re.fullmatch(r"-|[\w.:=/-]+", value):
        raise bad("Bad GPU requirement syntax")


def environment(request: Request, number: int, index: int | None, spool: str) -> dict[str, str]:
    """What the job is told."""
    host = socket.gethostname()
    slots = request.nodes * request.ranks_per_node
    with open(f"{spool}/hostfile", "w", encoding="utf-8") as file:
        file.write(f"{host}\n" * slots)
    return {
        "LSB_JOBID": str(number),
        "LSB_JOBNAME": request.said.get("J", ""),
        "LSB_DJOB_HOSTFILE": file.name,
        "LSB_HOSTS": " ".join([host] * slots),
        "LSB_MCPU_HOSTS": f"{host} {slots}",
        "LSB_JOBINDEX": str(index or 0),
        "LS_SUBCWD": request.directory,
        "LSB_SUB_HOST": host,
        "LSB_BATCH_JID": str(number),
        "LSB_QUEUE": request.said.get("q", "normal"),
        "LSB_DJOB_NUMPROC": str(slots),
        "LSB_MAX_NUM_PROCESSORS": str(slots),
    }


def job_id(request: Request, number: int) -> str:
    """What bsub prints."""
    queue = request.said.get("q")
    return f"Job <{number}> is submitted to {f'queue <{queue}>' if queue else 'default queue <normal>'}."
