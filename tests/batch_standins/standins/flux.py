"""Flux: ``flux batch [OPTIONS] SCRIPT [ARGUMENTS]`` with directives such as ``# flux: --nodes=2``; and ``flux run``.

A directive is a line of anything that is no letter, then ``flux:`` or ``FLUX:``, then options by the quoting rules of a
shell. All have the same beginning; from the first line of code on there may be none. What the command line says wins.
(RFC 36 of Flux.)
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from standins.request import Refused, Request, long_options, whole_number

_SENTINEL = re.compile(r"^([^\w]*)((?:flux|FLUX):)(.*)$")
_TAKES = dict.fromkeys(
    (
        "nodes",
        "nslots",
        "cores-per-slot",
        "gpus-per-slot",
        "gpus-per-node",
        "cores",
        "tasks-per-node",
        "job-name",
        "queue",
        "bank",
        "time-limit",
        "output",
        "error",
        "input",
        "requires",
        "dependency",
        "setattr",
        "setopt",
        "urgency",
        "env",
        "env-remove",
        "cwd",
        "signal",
        "conf",
        "broker-opts",
        "rlimit",
        "begin-time",
        "taskmap",
        "ntasks",
        "cores-per-task",
        "gpus-per-task",
        "add-file",
        "flags",
    ),
    True,
) | {"exclusive": False, "unbuffered": False, "dump": False, "wrap": False, "label-io": False, "verbose": False}
_LETTERS = {
    "N": "nodes",
    "n": "nslots",
    "c": "cores-per-slot",
    "g": "gpus-per-slot",
    "q": "queue",
    "B": "bank",
    "t": "time-limit",
    "x": "exclusive",
    "S": "setattr",
    "o": "setopt",
    "u": "unbuffered",
    "l": "label-io",
    "v": "verbose",
}
_DURATION = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "ms": 0.001, "": 60}
_DEPENDENCIES = ("after", "afterany", "afterok", "afternotok", "begin-time", "singleton")


def seconds_of(text: str, bare: float) -> float | None:
    """Flux Standard Duration: a number and one of ms, s, m, h, d; what a bare number counts."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?", text)
    if found is None:
        return None
    return float(found[1]) * (_DURATION[found[2]] if found[2] else bare)


def submit(arguments: Sequence[str], script: str | None) -> Request:
    """Understand a command line of ``flux batch``, after these two words, and the directives of its script."""
    said, operands = long_options(arguments, _TAKES, _LETTERS, "flux-batch")
    if operands:
        try:
            with open(operands[0], encoding="utf-8") as file:
                script = file.read()
        except OSError as error:
            raise Refused(f"flux-batch: ERROR: {error.strerror}: {operands[0]}") from None
    if not script or not script.startswith("#!"):
        raise Refused("flux-batch: ERROR: job script does not appear to start with '#!'")
    in_script, left = long_options(directives(script), _TAKES, _LETTERS, "flux-batch")
    if left:
        raise Refused(f"flux-batch: ERROR: unrecognized arguments: {' '.join(left)}")
    request = Request(command=operands or ["-"], name=operands[0].rpartition("/")[2] if operands else "batch")
    for name, value in [*in_script, *said]:
        _take(request, name, value)
    if "nodes" not in request.said and "nslots" not in request.said:
        raise Refused("flux-batch: ERROR: Number of slots to allocate must be specified")
    if not request.output:
        request.output = "flux-{{id}}.out"
    return request


def directives(script: str) -> list[str]:
    """The words of all directives."""
    words: list[str] = []
    sentinel = prefix = None
    ended = 0
    for number, line in enumerate(script.split("\n"), 1):
        found = _SENTINEL.match(line)
        if found is None:
            # the prefix without its blanks is what a comment begins with
            if prefix is not None and not ended and line.strip() and not line.startswith(prefix.rstrip()):
                ended = number - 1
            continue
        if ended:
            raise Refused(
                f"flux-batch: ERROR: line {number}: orphan '{found[2]}' detected: "
                f"directives disabled after line {ended}"
            )
        if sentinel not in (None, found[1] + found[2]):
            raise Refused(
                f"flux-batch: ERROR: line {number}: sentinel changed from '{sentinel}' to '{found[1] + found[2]}'"
            )
        sentinel, prefix = found[1] + found[2], found[1]
        lexer = shlex.shlex(found[3], posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.escapedquotes = "\"'"
        try:
            here = list(lexer)
        except ValueError as error:
            raise Refused(f"flux-batch: ERROR: line {number}: {found[3]}: {error}") from None
        if here and not here[0].startswith("-"):
            raise Refused(f"flux-batch: ERROR: line {number}: Unknown directive: {found[3]}")
        words += here
    return words


def _take(request: Request, name: str, value: str) -> None:
    error = Refused(f"flux-batch: error: argument --{name}: invalid value: {value!r}", 2)
    if name in ("setattr", "setopt", "dependency", "env", "requires"):
        request.said[name] = (*request.said.get(name, ()), value)
    else:
        request.said[name] = value
    if name in ("nodes", "nslots", "cores-per-slot", "gpus-per-slot", "gpus-per-node", "cores"):
        number = whole_number(value, f"--{name}", "flux-batch: error", 2)
        if name == "nodes":
            request.nodes = number
        elif name == "nslots":
            request.ranks_per_node = max(1, number // request.nodes)
    elif name == "time-limit":
        seconds = seconds_of(value, 60)
        if not seconds:
            raise error
        request.seconds = int(seconds)
    elif name == "job-name":
        request.name = value
    elif name in ("output", "error"):
        setattr(request, name, value)
    elif name == "cwd":
        request.directory = value
    elif name == "signal":
        found = re.fullmatch(r"(?:(?:SIG)?(USR1|USR2|TERM|INT|HUP|\d+))?(?:@(.+))?", value)
        before = seconds_of(found[2] or "60s", 1) if found else None
        if not found or before is None:
            raise error
        request.signal, request.signal_before = found[1] or "USR1", int(before)
    elif name == "dependency":
        kind, colon, job = value.partition(":")
        if kind not in _DEPENDENCIES or not colon or not job:
            raise error
        request.after.append((kind, job))
    elif name == "env":
        key, equals, what = value.partition("=")
        if equals:
            request.environment[key] = what


def environment(request: Request, number: int, index: int | None, spool: str) -> dict[str, str]:
    """What the job is told."""
    return {
        "FLUX_ENCLOSING_ID": job_id(request, number),
        "FLUX_URI": f"local://{spool}/local",
        "STANDIN_FLUX": f"{request.nodes} {request.ranks_per_node}",
    }


def job_id(request: Request, number: int) -> str:
    """What ``flux batch`` prints."""
    return f"ƒStand{number}"
