"""PBS Professional and OpenPBS, and Torque: ``qsub``.

Both look for ``#PBS`` at the beginning of a line, from the first line to the first that is neither blank nor a
comment. A line is split at white space; a backslash takes the meaning from the next character. Quotes group in both,
and PBS drops them while Torque passes them on as part of the word, so only the backslash is good for both. What the
command line says wins.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from standins.request import Refused, Request, clock, short_options, whole_number


@dataclass(frozen=True)
class Dialect:
    """What differs between the two.

    Attributes
    ----------
    letters : str
        Options of qsub, as getopt has them.
    longest_name : int
        Of a job.
    keeps_quotes : bool
        Quotes in a directive become part of its words.
    array : str
        The option for arrays.
    index : str
        The variable that tells a job its place in the array.
    values : mapping of str to str
        By the letter of an option a regular expression of its values.
    """

    letters: str
    longest_name: int
    keeps_quotes: bool
    array: str
    index: str
    values: Mapping[str, str]


_VALUES = {"j": "oe|eo|n", "r": "[yn]", "S": "/.*", "A": r"\S+", "P": r"\S+", "M": r"\S+"}
_PBS_VALUES = _VALUES | {"m": "n|p|j?[abe]+j?", "k": "n|d?[oe]{1,2}d?"}
_TORQUE_VALUES = _VALUES | {"m": "n|p|[abef]+", "k": "n|[oe]{1,2}"}

PBS = Dialect("a:A:c:C:e:hI:j:J:k:l:m:M:N:o:p:P:q:r:R:S:u:v:VW:z", 230, False, "J", "PBS_ARRAY_INDEX", _PBS_VALUES)
TORQUE = Dialect("a:A:b:c:C:d:D:e:F:hIj:k:l:m:M:N:o:p:P:q:r:S:t:u:v:VW:z", 15, True, "t", "PBS_ARRAYID", _TORQUE_VALUES)

_DEPENDENCIES = ("after", "afterok", "afternotok", "afterany", "before", "beforeok", "beforenotok", "beforeany", "on")
_CHUNK = re.compile(r"(?:\d+:)?[A-Za-z_][\w-]*=[^:+\s]+(?::[A-Za-z_][\w-]*=[^:+\s]+)*|\d+")
_PLACES = {"free", "pack", "scatter", "vscatter", "excl", "exclhost", "shared"}
_SIZE = re.compile(r"\d+([kmgtpKMGTP]?[bwBW])?")


def submit(arguments: Sequence[str], script: str | None, dialect: Dialect) -> Request:
    """Understand a command line of qsub and the directives of its script.

    Parameters
    ----------
    arguments : sequence of str
        The words after ``qsub``.
    script : str or None
        What came by standard input.
    dialect : Dialect
        PBS's or Torque's.
    """
    on_the_line, operands = short_options(arguments, dialect.letters, "qsub", 2)
    if operands:
        try:
            with open(operands[0], encoding="utf-8") as file:
                script = file.read()
        except OSError as error:
            raise Refused(f"qsub: script file: {operands[0]}: {error.strerror}", 1) from None
    if script is None:
        raise Refused("qsub: no script", 1)
    if len(operands) > 1 and dialect is PBS:
        raise Refused("usage: qsub [options] [script_file]", 2)
    options: list[tuple[str, str]] = []
    for line in directives(script):
        words = split(line, dialect.keeps_quotes)
        found, left = short_options(words, dialect.letters, "qsub", 2)
        if left:
            raise Refused(f"qsub: directive error: {line.strip()}", 2)
        options += found
    name = operands[0].rpartition("/")[2][: dialect.longest_name] if operands else "STDIN"
    request = Request(name=name)
    for letter, value in [*options, *on_the_line]:
        _take(request, letter, value, dialect)
    request.command = [operands[0] if operands else "-"]
    return request


def directives(script: str) -> list[str]:
    """What follows ``#PBS`` on each line that counts."""
    found = []
    for number, line in enumerate(script.split("\n")):
        if number == 0 and line.startswith((":", "#!")):
            continue
        if line.startswith("#PBS") and line[4:5] in (" ", "\t", ""):
            found.append(line[4:])
        elif line.strip() and not line.lstrip().startswith("#"):
            break
    return found


def split(line: str, keeps_quotes: bool) -> list[str]:
    """The words of a directive."""
    words, word, place, inside = [], "", 0, False
    while place < len(line):
        char = line[place]
        if char in "\"'":
            end = line.find(char, place + 1)
            if end < 0:
                raise Refused(f"qsub: unmatched {char}", 1)
            word += line[place : end + 1] if keeps_quotes else line[place + 1 : end]
            place, inside = end, True
        elif char == "\\":
            place += 1
            word, inside = word + line[place : place + 1], True
        elif char.isspace():
            words += [word] if inside else []
            word, inside = "", False
        else:
            word, inside = word + char, True
        place += 1
    return words + ([word] if inside else [])


def _take(request: Request, letter: str, value: str, dialect: Dialect) -> None:
    illegal = Refused(f"qsub: illegal -{letter} value", 2)
    if letter == "l":
        for resource in _resources(value):
            _take_resource(request, resource, dialect)
        return
    request.said[letter] = value
    if letter == "N":
        # one that is too long, begins otherwise or has a blank in it
        if len(value) > dialect.longest_name or not re.fullmatch(r"[^\W_][!-~]*", value, re.ASCII):
            raise illegal
        request.name = value
    elif letter == "o":
        request.output = value.removeprefix(f"{socket.gethostname()}:")
    elif letter == "e":
        request.error = value.removeprefix(f"{socket.gethostname()}:")
    elif letter == "q" and not re.fullmatch(r"[\w.-]*(@[\w.-]+)?", value):
        raise Refused("qsub: illegally formed destination", 2)
    elif letter in dialect.values and not re.fullmatch(dialect.values[letter], value):
        raise illegal
    elif letter == "W":
        _take_attributes(request, value, illegal)
    elif letter == dialect.array:
        request.array = _array(value, dialect, illegal)
    elif letter == "v":
        for pair in re.split(r"(?<!\\),", value):
            name, equals, what = pair.partition("=")
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise illegal
            if equals:
                request.environment[name] = what.replace("\\,", ",")


def _resources(value: str) -> list[str]:
    found = value.split(",")
    if not all(re.fullmatch(r"[A-Za-z_][\w.-]*=\S+", one) for one in found):
        raise Refused("qsub: illegal -l value", 2)
    return found


def _take_resource(request: Request, resource: str, dialect: Dialect) -> None:
    name, _, value = resource.partition("=")
    request.said[f"l.{name}"] = value
    if name == "walltime":
        seconds = clock(value.partition(".")[0], 3)
        if not seconds:
            raise Refused("qsub: Illegal attribute or resource value Resource_List.walltime", 166)
        request.seconds = seconds
    elif name == "select" and dialect is PBS:
        chunks = value.split("+")
        if not all(_CHUNK.fullmatch(chunk) for chunk in chunks):
            raise Refused("qsub: Illegal attribute or resource value Resource_List.select", 166)
        if len(chunks) > 1:
            return
        words = value.split(":")
        settings = dict(word.split("=") for word in words if "=" in word)
        request.nodes = int(words[0]) if words[0].isdigit() else 1
        request.ranks_per_node = int(settings.get("mpiprocs", "1"))
        if request.nodes < 1 or request.ranks_per_node > int(settings.get("ncpus", "1")):
            raise Refused("qsub: Illegal attribute or resource value Resource_List.select", 166)
        if "mem" in settings and not _SIZE.fullmatch(settings["mem"]):
            raise Refused("qsub: Illegal attribute or resource value Resource_List.select", 166)
    elif name == "place" and dialect is PBS:
        if not all(word in _PLACES or word.startswith("group=") for word in value.split(":")):
            raise Refused("qsub: Illegal attribute or resource value Resource_List.place", 166)
    elif name == "nodes":
        if dialect is PBS:
            raise Refused("qsub: nodes= is the old form: say select=", 166)  # legal, but not beside select or place
        # NODES[:ppn=N][:gpus=N][:PROPERTY...]
        words = value.split(":")
        request.nodes = whole_number(words[0], "nodes", "qsub")
        for word in words[1:]:
            key, equals, number = word.partition("=")
            if equals and key not in ("ppn", "gpus", "mics"):
                raise Refused(f"qsub: submit error (Unknown node-attribute MSG={word})", 170)
            if key == "ppn":
                request.ranks_per_node = whole_number(number, "ppn", "qsub")
    elif name in ("mem", "pmem", "vmem", "pvmem") and not _SIZE.fullmatch(value):
        raise Refused(f"qsub: Illegal attribute or resource value Resource_List.{name}", 166)


def _take_attributes(request: Request, value: str, illegal: Refused) -> None:
    for attribute in re.split(r",(?=\w+=)", value):
        name, equals, what = attribute.partition("=")
        if not equals:
            raise illegal
        request.said[f"W.{name}"] = what
        if name == "depend":
            for dependency in what.split(","):
                kind, *jobs = dependency.split(":")
                if (
                    kind not in _DEPENDENCIES
                    or not jobs
                    or not all(re.fullmatch(r"\d+(\[\d*\])?(\.\S+)?", job) for job in jobs)
                ):
                    raise illegal
                request.after += [(kind, job) for job in jobs]
        elif name == "umask" and not re.fullmatch(r"[0-7]+", what):
            raise illegal


def _array(value: str, dialect: Dialect, illegal: Refused) -> list[int]:
    if dialect is PBS:
        found = re.fullmatch(r"(\d+)-(\d+)(?::(\d+))?(?:%(\d+))?", value)
        if found is None or int(found[1]) >= int(found[2]):
            raise illegal
        return list(range(int(found[1]), int(found[2]) + 1, int(found[3] or 1)))
    numbers: list[int] = []
    for part in value.partition("%")[0].split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if found is None:
            raise illegal
        numbers += range(int(found[1]), int(found[2] or found[1]) + 1)
    return numbers


def environment(request: Request, number: int, index: int | None, spool: str, dialect: Dialect) -> dict[str, str]:
    """What the job is told."""
    host = socket.gethostname()
    with open(f"{spool}/nodefile", "w", encoding="utf-8") as file:
        file.write(f"{host}\n" * (request.nodes * request.ranks_per_node))
    told = {
        "PBS_JOBID": job_id(request, number),
        "PBS_JOBNAME": request.name,
        "PBS_NODEFILE": file.name,
        "PBS_O_WORKDIR": request.directory,
        "PBS_ENVIRONMENT": "PBS_BATCH",
        "PBS_QUEUE": request.said.get("q", "workq"),
        "PBS_O_HOST": host,
        "PBS_NODENUM": "0",
        "PBS_TASKNUM": "1",
        "PBS_JOBDIR": spool,
    }
    if dialect is TORQUE:
        told |= {
            "PBS_NUM_NODES": str(request.nodes),
            "PBS_NUM_PPN": str(request.ranks_per_node),
            "PBS_VERSION": "TORQUE-6.1.3",
        }
    if index is not None:
        told |= {dialect.index: str(index), "PBS_JOBID": job_id(request, number).replace("[]", f"[{index}]")}
    return told


def job_id(request: Request, number: int) -> str:
    """What qsub prints."""
    return f"{number}{'[]' if request.array else ''}.pbs-standin"
