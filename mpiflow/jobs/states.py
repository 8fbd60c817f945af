"""What batch systems answer when they are asked about jobs, brought to six words.

==============  ==========================================  ===========================================
system          those that are in its queue                 those that have left it
==============  ==========================================  ===========================================
Slurm           ``squeue -t all``                           ``sacct``, where accounting is kept
PBS             ``qstat -f -F json``                        ``qstat -x``, where a history is kept
Torque          ``qstat -f``                                the same, for some minutes
Cobalt          ``qstat --header JobID:State``              nothing
Grid Engine     ``qstat -u '*' -xml``                       ``qacct``, one job at a time
HTCondor        ``condor_q -af ...``                        ``condor_history``
LSF             ``bjobs -a -o ...``                         the same, for an hour
Flux            ``flux jobs -a --format ...``               the same
==============  ==========================================  ===========================================

A parser takes text and gives states; it starts nothing. What it cannot read it leaves out, and the job then counts as
not answered for: batch systems print warnings where their data should be. The states of Slurm and Grid Engine were seen
on real ones; the others are taken from their manuals.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from mpiflow.exitcodes import DRAINED

#: Waits for its turn; has a node; ended with code 0; ended otherwise; was ended by somebody; nobody knows.
PENDING, RUNNING, DONE, FAILED, CANCELLED, UNKNOWN = "pending", "running", "done", "failed", "cancelled", "unknown"
#: States after which nothing more happens.
FINAL = (DONE, FAILED, CANCELLED)


class JobState(NamedTuple):
    """How a job stands.

    Attributes
    ----------
    state : str
        One of the six words.
    exit_code : int or None
        Its exit code, once it has ended and somebody knows; 128 and more: 128 + the number of a signal.
    words : str
        The batch system's own words for it, or why it is not known.
    """

    state: str
    exit_code: int | None = None
    words: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in FINAL


def ended_with(code: int, words: str = "") -> JobState:
    """A job that has ended by itself with this code."""
    return JobState(DONE if code == 0 else FAILED, code, words)


def in_words(state: JobState) -> str:
    """A state for a person.

    Parameters
    ----------
    state : JobState
        How a job stands.

    Examples
    --------
    >>> in_words(JobState("failed", 3, "FAILED"))
    'failed with code 3 (FAILED)'
    """
    code = f" with code {state.exit_code}" if state.exit_code is not None and state.state != "done" else ""
    words = f" ({state.words})" if state.words and state.words.lower() not in (state.state, "completed") else ""
    what = "it is not known how it stands" if state.state == UNKNOWN else state.state
    return f"{what}{code}{words}"


#: Takes what a command printed, gives states by the id of the job.
Parser = Callable[[str], dict[str, JobState]]


class Question(NamedTuple):
    """A command that tells how jobs stand.

    Attributes
    ----------
    line : tuple of str
        The command. The word ``{}`` stands for all ids, one word each; ``{,}`` in a word for all, with commas.
    parse : callable
        Reads what it prints.
    at_once : int
        How many jobs it may be asked about in one command.
    """

    line: tuple[str, ...]
    parse: Parser
    at_once: int = 200

    def about(self, ids: Sequence[str]) -> list[str]:
        """The command line that asks about these jobs."""
        words: list[str] = []
        for word in self.line:
            words += ids if word == "{}" else [word.replace("{,}", ",".join(ids))]
        return words


class Questions(NamedTuple):
    """What to ask a batch system.

    Attributes
    ----------
    queue : Question
        About jobs that it still has.
    history : Question or None
        About those that ``queue`` says nothing of.
    """

    queue: Question
    history: Question | None = None


def together(states: Iterable[JobState]) -> JobState:
    """How the tasks of an array stand as one: the least advanced of them, and the highest exit code.

    Examples
    --------
    >>> together([ended_with(0), ended_with(3), JobState(PENDING)]).state
    'pending'
    """
    tasks = list(states)
    if len(tasks) == 1:
        return tasks[0]
    codes = [task.exit_code for task in tasks if task.exit_code is not None]
    # 85 is of one that goes on, and must not hide one that has failed
    code = max(codes, default=None, key=lambda code: (code not in (0, DRAINED), code))
    for state in (RUNNING, PENDING, UNKNOWN, CANCELLED, FAILED, DONE):
        number = sum(task.state == state for task in tasks)
        if number:
            return JobState(state, code if state in FINAL else None, f"{number} of {len(tasks)} tasks")
    return JobState(UNKNOWN)


class _Gathered:
    """States of jobs, those of the tasks of an array under the id of the array."""

    def __init__(self) -> None:
        self._tasks: dict[str, list[JobState]] = {}

    def add(self, job: str, state: JobState) -> None:
        self._tasks.setdefault(job, []).append(state)

    def states(self) -> dict[str, JobState]:
        return {job: together(tasks) for job, tasks in self._tasks.items()}


def signalled(code: int, signal: int) -> int:
    """An exit code as a shell says it."""
    return 128 + signal if signal else code


# --- Slurm -------------------------------------------------------------------------------------------------

_SLURM = {
    **dict.fromkeys(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD"), PENDING),
    **dict.fromkeys(
        ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING", "SPECIAL_EXIT"), RUNNING
    ),
    "COMPLETED": DONE,
    "CANCELLED": CANCELLED,
    "REVOKED": CANCELLED,
    **dict.fromkeys(
        ("FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "LAUNCH_FAILED"),
        FAILED,
    ),
}


def slurm_state(word: str, code: int | None, reason: str = "") -> JobState:
    """A state in Slurm's word, which may be ``CANCELLED by 1000``."""
    state = _SLURM.get(word.split()[0].rstrip("+") if word.split() else "", UNKNOWN)
    words = word if reason in ("", "None", "(null)") else f"{word}, {reason}"
    return JobState(state, code if state in FINAL else None, words)


def parse_squeue(text: str) -> dict[str, JobState]:
    """What ``squeue -O JobArrayID,State,exit_code,Reason`` prints: tasks of an array as ``12_3`` and ``12_[4-9]``."""
    found = _Gathered()
    for line in text.splitlines():
        words = line.split(None, 3)
        if len(words) < 3 or not re.fullmatch(r"\d+(_.+)?", words[0]) or not words[2].isdecimal():
            continue
        status = int(words[2])  # as wait(2) has it
        reason = words[3].strip() if len(words) > 3 else ""
        found.add(words[0].split("_")[0], slurm_state(words[1], signalled(status >> 8, status & 127), reason))
    return found.states()


def parse_sacct(text: str) -> dict[str, JobState]:
    """What ``sacct -X -n -P -o JobID,State,ExitCode`` prints: ``12_3|FAILED|7:0``."""
    found = _Gathered()
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) != 3 or not (code := re.fullmatch(r"(\d+):(\d+)", parts[2])):
            continue
        found.add(parts[0].split("_")[0], slurm_state(parts[1], signalled(int(code[1]), int(code[2]))))
    return found.states()


# --- Grid Engine -------------------------------------------------------------------------------------------


def parse_grid_engine(text: str) -> dict[str, JobState]:
    """What ``qstat -xml`` prints. States are letters: q waits, h is held, r runs, E cannot start, d is deleted."""
    found = _Gathered()
    start = text.find("<?xml")
    try:
        tree = ElementTree.fromstring(text[max(start, 0) :])
    except ElementTree.ParseError:
        return {}
    for job in tree.iter("job_list"):
        number, letters = job.findtext("JB_job_number"), job.findtext("state") or ""
        if number is None:
            continue
        if "E" in letters:
            state = JobState(PENDING, None, f"{letters}: it cannot start; `qstat -j {number}` says why")
        else:
            state = JobState(PENDING if "q" in letters else RUNNING, None, letters)
        found.add(number, state)
    return found.states()


def parse_qacct(text: str) -> dict[str, JobState]:
    """What ``qacct -j`` prints: a paragraph for each run of each task; of a job that ran again, the last counts."""
    latest: dict[tuple[str, str], JobState] = {}
    for paragraph in re.split(r"^=+$", text, flags=re.MULTILINE):
        said = dict(re.findall(r"^(\w+) +(.*?) *$", paragraph, re.MULTILINE))
        code = re.match(r"\d+", said.get("exit_status", ""))
        if "jobnumber" not in said or code is None:
            continue
        failed = said.get("failed", "0")
        if said.get("deleted_by", "NONE") not in ("NONE", ""):
            state = JobState(CANCELLED, int(code[0]), f"deleted by {said['deleted_by']}")
        elif failed.split()[0] == "0":
            state = ended_with(int(code[0]))
        else:
            state = JobState(FAILED, int(code[0]), failed)
        latest[said["jobnumber"], said.get("taskid", "")] = state
    found = _Gathered()
    for (job, _), state in latest.items():
        found.add(job, state)
    return found.states()


# --- PBS, Torque, Cobalt -----------------------------------------------------------------------------------


def pbs_state(letter: str, code: int | None) -> JobState:
    """A state in the letter of PBS and Torque; a code above 255 is 256 + a signal, below 0 one of the server's own."""
    if letter in ("F", "C", "X"):
        if code is None:
            return JobState(CANCELLED, None, "it was deleted before it ran")
        if code == 271:  # 256 + SIGTERM: qdel; walltime too, in Torque
            return JobState(CANCELLED, 143, "ended by SIGTERM")
        words = "over its walltime" if code == -29 else ""
        return ended_with(128 + code - 256 if code > 256 else code, words)
    if letter in ("R", "E", "B", "S", "U"):
        return JobState(RUNNING, None, letter)
    return JobState(PENDING if letter in ("Q", "H", "W", "T", "M") else UNKNOWN, None, letter)


def parse_pbs(text: str) -> dict[str, JobState]:
    """What ``qstat -f -F json`` prints; ids with and without the server's name."""
    start, end = text.find("{"), text.rfind("}")
    try:
        jobs = json.loads(text[start : end + 1], strict=False).get("Jobs", {}) if start >= 0 else {}
    except ValueError:
        return _pbs_by_lines(text)
    found = {}
    for name, job in jobs.items():
        code = job.get("Exit_status")
        state = pbs_state(job.get("job_state", ""), None if code is None else int(code))
        found[name] = found[_without_server(name)] = state
    return found


def _pbs_by_lines(text: str) -> dict[str, JobState]:
    """The same, of an answer that is no JSON: the server quotes what users wrote wrongly, in some versions."""
    found: dict[str, JobState] = {}
    name = ""
    for line in text.splitlines():
        if opened := re.match(r'\s*"(\d+(?:\[\d*\])?\.[^"]+)":\s*\{', line):
            name = opened[1]
        elif name and (letter := re.match(r'\s*"job_state":\s*"(\w)"', line)):
            found[name] = found[_without_server(name)] = pbs_state(letter[1], None)
        elif name in found and (code := re.match(r'\s*"Exit_status":\s*"?(-?\d+)', line)):
            found[name] = found[_without_server(name)] = pbs_state("F", int(code[1]))
    return found


def parse_torque(text: str) -> dict[str, JobState]:
    """What ``qstat -f`` prints."""
    found: dict[str, JobState] = {}
    for paragraph in re.split(r"^(?=Job Id: )", text, flags=re.MULTILINE):
        name = re.match(r"Job Id: *(\S+)", paragraph)
        letter = re.search(r"^ *job_state = (\w)", paragraph, re.MULTILINE)
        code = re.search(r"^ *exit_status = (-?\d+)", paragraph, re.MULTILINE)
        if name and letter:
            found[name[1]] = found[_without_server(name[1])] = pbs_state(letter[1], int(code[1]) if code else None)
    return found


def _without_server(name: str) -> str:
    return name.split(".")[0]


def parse_cobalt(text: str) -> dict[str, JobState]:
    """What ``qstat --header JobID:State`` prints: a table below a line of ``=``."""
    found: dict[str, JobState] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0].isdecimal():
            held = words[1] in ("queued", "starting") or words[1].endswith(("hold", "held"))
            found[words[0]] = JobState(PENDING if held else RUNNING, None, words[1])
    return found


# --- LSF, Flux, HTCondor -----------------------------------------------------------------------------------

_LSF = {
    "PEND": PENDING,
    "PSUSP": PENDING,
    "WAIT": PENDING,
    "PROV": PENDING,
    "RUN": RUNNING,
    "USUSP": RUNNING,
    "SSUSP": RUNNING,
}


def parse_bjobs(text: str) -> dict[str, JobState]:
    """What ``bjobs -o "jobid stat exit_code exit_reason delimiter='|'"`` prints."""
    found = _Gathered()
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) != 4 or not (job := re.fullmatch(r"(\d+)(\[\d+\])?", parts[0])):
            continue
        code = int(parts[2]) if parts[2].isdecimal() else None
        reason = "" if parts[3] in ("", "-") else parts[3]
        if parts[1] == "DONE":
            state = ended_with(0)
        elif parts[1] == "EXIT" and "TERM_OWNER" in reason:
            state = JobState(CANCELLED, code, reason)
        elif parts[1] == "EXIT":
            state = JobState(FAILED, code, reason)
        else:
            state = JobState(_LSF.get(parts[1], UNKNOWN), None, f"{parts[1]} {reason}".strip())
        found.add(job[1], state)
    return found.states()


def parse_flux(text: str) -> dict[str, JobState]:
    """What ``flux jobs -a --format '{id.f58}|{id.dec}|{state}|{result}|{returncode}'`` prints."""
    found: dict[str, JobState] = {}
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) != 5 or not parts[1].isdecimal():
            continue
        code = int(parts[4]) if re.fullmatch(r"-?\d+", parts[4]) else None
        if parts[2] != "INACTIVE":
            state = JobState(RUNNING if parts[2] in ("RUN", "CLEANUP", "RUNNING") else PENDING, None, parts[2])
        elif parts[3] == "CANCELED":
            state = JobState(CANCELLED, code, parts[3])
        elif parts[3] == "COMPLETED":
            state = ended_with(0)
        else:
            state = JobState(FAILED, 128 - code if code is not None and code < 0 else code, parts[3])
        found[parts[0]] = found[parts[1]] = state
    return found


_CONDOR = {1: PENDING, 2: RUNNING, 5: PENDING, 6: RUNNING, 7: RUNNING}
#: JobStatus of a job that was removed, that has ended by itself, that is held.
_REMOVED, _COMPLETED, _HELD = 3, 4, 5


def parse_condor_q(text: str) -> dict[str, JobState]:
    """What ``-af ClusterId ProcId JobStatus ExitCode ExitBySignal ExitSignal HoldReason`` prints: jobs in the queue.

    One that was removed stays there for as long as it takes to end, and one that has ended until its output is there.
    """
    return _condor(text, JobState(RUNNING, None, "being removed"))


def parse_condor_history(text: str) -> dict[str, JobState]:
    """The same of jobs that have left the queue."""
    return _condor(text, JobState(CANCELLED))


def _condor(text: str, removed: JobState) -> dict[str, JobState]:
    """States by the cluster, which is the id of ours, and by ``cluster.process``, as HTCondor's tools say it."""
    found = _Gathered()
    for line in text.splitlines():
        words = line.split(None, 6)
        if len(words) < 6 or not all(word.isdecimal() for word in words[:3]):
            continue
        number = int(words[2])
        if number == _REMOVED:
            state = removed
        elif number == _COMPLETED:
            signal = int(words[5]) if words[4] == "true" and words[5].isdecimal() else 0
            state = ended_with(signalled(int(words[3]) if words[3].isdecimal() else 0, signal))
        else:
            held = f"held: {words[6].strip()}" if number == _HELD and len(words) > 6 else ""
            state = JobState(_CONDOR.get(number, UNKNOWN), None, held)
        found.add(words[0], state)
        found.add(f"{words[0]}.{words[1]}", state)
    return found.states()


_CONDOR_FIELDS = ("-af", "ClusterId", "ProcId", "JobStatus", "ExitCode", "ExitBySignal", "ExitSignal", "HoldReason")
_FLUX_FORMAT = "{id.f58}|{id.dec}|{state}|{result}|{returncode}"
_SQUEUE_FIELDS = "JobArrayID:40,State:24,exit_code:12,Reason:200"

#: What to ask each batch system.
QUESTIONS: dict[str, Questions] = {
    "slurm": Questions(
        Question(
            ("squeue", "--noheader", "--states=all", "--array", f"--Format={_SQUEUE_FIELDS}", "--jobs={,}"),
            parse_squeue,
        ),
        Question(("sacct", "-X", "-n", "-P", "--format=JobID,State,ExitCode", "--jobs={,}"), parse_sacct),
    ),
    "gridengine": Questions(
        Question(("qstat", "-u", "*", "-xml"), parse_grid_engine, 100_000),
        Question(("qacct", "-j", "{}"), parse_qacct, 1),
    ),
    "pbs": Questions(  # a server that keeps no history refuses -x, for jobs in the queue too
        Question(("qstat", "-f", "-F", "json", "{}"), parse_pbs),
        Question(("qstat", "-x", "-f", "-F", "json", "{}"), parse_pbs),
    ),
    "torque": Questions(Question(("qstat", "-f", "{}"), parse_torque)),
    "cobalt": Questions(Question(("qstat", "--header", "JobID:State", "{}"), parse_cobalt)),
    "lsf": Questions(
        Question(
            ("bjobs", "-a", "-noheader", "-o", "jobid stat exit_code exit_reason delimiter='|'", "{}"), parse_bjobs
        )
    ),
    "flux": Questions(Question(("flux", "jobs", "-a", "-n", f"--format={_FLUX_FORMAT}", "{}"), parse_flux)),
    "htcondor": Questions(
        Question(("condor_q", "{}", *_CONDOR_FIELDS), parse_condor_q),
        Question(("condor_history", "{}", "-limit", "1000", *_CONDOR_FIELDS), parse_condor_history),
    ),
}
