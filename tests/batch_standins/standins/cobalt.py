"""Cobalt: ``qsub`` with ``#COBALT`` lines.

They begin on line 2, each with exactly ``#COBALT ``, and follow upon each other; the first other line, even a blank
one, ends them. A line is split at white space and nothing quotes. They are put before the command line, which wins. The
script has to begin with ``#!``, and to be executable.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence

from standins.request import Refused, Request, clock, long_options, whole_number

_TAKES = dict.fromkeys(
    (
        "time",
        "nodecount",
        "proccount",
        "queue",
        "project",
        "output",
        "error",
        "outputprefix",
        "env",
        "jobname",
        "cwd",
        "mode",
        "attrs",
        "dependencies",
        "notify",
        "inputfile",
        "umask",
        "debuglog",
        "user_list",
    ),
    True,
) | {"held": False, "interactive": False}
_LETTERS = {
    "t": "time",
    "n": "nodecount",
    "q": "queue",
    "A": "project",
    "o": "output",
    "e": "error",
    "O": "outputprefix",
    "i": "inputfile",
    "M": "notify",
    "u": "umask",
    "h": "held",
}


def submit(arguments: Sequence[str], script: str | None) -> Request:
    """Understand a command line of qsub and the directives of its script."""
    said, operands = long_options(arguments, _TAKES, _LETTERS, "qsub", 2)
    if not operands:
        raise Refused("Not all required arguments provided: executable", 1)
    path = operands[0]
    if not os.path.isfile(path):
        raise Refused(f"command {path} not found, or is not a file", 1)
    if not os.access(path, os.X_OK | os.R_OK):
        raise Refused(f"command {path} is not executable", 1)
    with open(path, encoding="utf-8") as file:
        lines = file.read().split("\n")
    words: list[str] = []
    if lines[0].startswith("#!"):
        for line in lines[1:]:
            if not line.startswith("#COBALT "):
                break
            words += line.split()[1:]
    in_script, left = long_options(words, _TAKES, _LETTERS, "qsub", 2)
    if left:
        raise Refused(f"qsub: {left[0]} in a #COBALT line is no option", 2)
    request = Request(command=operands, name=path.rpartition("/")[2])
    for name, value in [*in_script, *said]:
        if name == "env" and "env" in request.said:
            value = f"{request.said['env']}:{value}"
        elif name == "attrs" and any(known == "attrs" for known, _ in in_script) and name in request.said:
            raise Refused("qsub: --attrs was given twice", 1)
        request.said[name] = value
    for required in ("time", "nodecount"):
        if required not in request.said:
            raise Refused(f"'{required}' not provided", 1)
    _understand(request)
    return request


def _understand(request: Request) -> None:
    said = request.said
    request.nodes = whole_number(said["nodecount"], "node count", "qsub")
    minutes = said["time"].isdigit()
    seconds = 60 * int(said["time"]) if minutes else clock(said["time"], 4)
    if seconds is not None and not minutes and said["time"].count(":") == 1:
        seconds *= 60  # HH:MM, where the others would have MM:SS
    if not seconds:
        raise Refused(f"Bad time {said['time']}: must be in the form [DD:]HH:MM:SS, HH:MM or minutes", 1)
    request.seconds = seconds
    if request.said.get("mode", "script") != "script":
        raise Refused(f"mode {said['mode']!r} is not valid here", 1)
    for pair in filter(None, re.split(r"(?<!\\):", said.get("env", ""))):
        name, equals, value = pair.replace("\\:", ":").partition("=")
        if not equals or not name:
            raise Refused(f"Improperly formatted argument to env : {said['env']}", 1)
        request.environment[name] = value
    for one in filter(None, said.get("attrs", "").split(":")):
        if not re.fullmatch(r"[A-Za-z]\w*(=\S+)?", one):
            raise Refused(f"Improperly formatted argument to attrs : {said['attrs']}", 1)
    for job in filter(None, re.split(r"[:,]", said.get("dependencies", ""))):
        if not job.isdigit():
            raise Refused(f"Invalid dependency {job}", 1)
        request.after.append(("afterok", job))  # after any other code the job is held: dep_fail
    if "notify" in said and "@" not in said["notify"]:
        raise Refused(f"{said['notify']} is not an address", 1)
    request.directory = said.get("cwd", "")
    if request.directory and not os.path.isdir(request.directory):
        raise Refused(f"directory {request.directory} does not exist", 1)
    prefix = said.get("outputprefix", "$jobid")
    request.output, request.error = said.get("output", f"{prefix}.output"), said.get("error", f"{prefix}.error")
    request.name = said.get("jobname", request.name)


def environment(request: Request, number: int, index: int | None, spool: str) -> dict[str, str]:
    """What the job is told."""
    with open(f"{spool}/nodefile", "w", encoding="utf-8") as file:
        file.write(f"{socket.gethostname()}\n" * request.nodes)
    said = request.said
    return {
        "COBALT_JOBID": str(number),
        "COBALT_NODEFILE": file.name,
        "COBALT_PARTSIZE": str(request.nodes),
        "COBALT_JOBSIZE": str(request.nodes),
        "COBALT_PARTNAME": "0",
        "COBALT_PARTCORES": "64",
        "COBALT_PROJECT": said.get("project", ""),
        "COBALT_QUEUE": said.get("queue", "default"),
    }


def job_id(request: Request, number: int) -> str:
    """What qsub prints."""
    return str(number)
