"""A job from its description into the queue.

Each submission makes a directory of its own below the one for outputs, puts the batch script there, hands it to the
batch system, and writes down what number that gave it. Nothing else of the user's is touched. What can go wrong is said
in the batch system's own words: whoever wrote them knows why.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from mpiflow.errors import BatchSystemError, ConfigurationError, SubmitException
from mpiflow.jobs import local, record, systems
from mpiflow.jobs.commands import Answer, run
from mpiflow.jobs.detect import find_system
from mpiflow.jobs.job import Job
from mpiflow.jobs.presets import fill
from mpiflow.jobs.quoting import file_name
from mpiflow.jobs.record import Record
from mpiflow.jobs.spec import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpiflow.jobs.spec import JobSpec

#: Seconds that a batch system has to take a job. Busy ones take half a minute.
SUBMIT_WITHIN = 120.0
#: Names of the batch script in the directory of its job, and of HTCondor's description of the job.
SCRIPT, DESCRIPTION = "job.sh", "job.sub"


def completed(spec: JobSpec) -> JobSpec:
    """The same job with all that this machine decides, and with a directory of its own that is not there yet.

    Parameters
    ----------
    spec : JobSpec
        The job.

    Raises
    ------
    ConfigurationError
        The script is not there, or no batch system is.
    """
    spec = fill(spec)
    whole = spec.completed(spec.system or find_system())
    script = os.path.join(whole.directory, whole.script)
    if whole.script not in COMMANDS and not os.path.isfile(script):
        what = "is a directory; a Python script is wanted" if os.path.isdir(script) else "there is no such file"
        raise ConfigurationError(f"{whole.script}: {what} (looked in {whole.directory})")
    _check_files(whole)
    return replace(whole, output=_free(Path(whole.output), whole.name))


def _check_files(whole: JobSpec) -> None:
    """See that files which are named from the job's directory are there; absolute ones may be the nodes' own."""
    named = [("setup", path) for path in whole.setup]
    named += [("venv", os.path.join(whole.venv, "bin", "activate"))] if whole.venv else []
    named += [("stage_env", whole.stage_env)] if whole.stage_env else []
    named += [("config", path) for option, path in pairwise(whole.farm_options) if option == "--config"]
    for field, path in named:
        if not os.path.isfile(os.path.join(whole.directory, path)) and not os.path.isabs(path):
            raise ConfigurationError(f"{field} names {path}: there is no such file (looked in {whole.directory})")


def dry_run(spec: JobSpec) -> str:
    """What `submit` would hand to the batch system; nothing is made.

    Parameters
    ----------
    spec : JobSpec
        The job.

    Raises
    ------
    ConfigurationError
        The job is not one that can be submitted here.
    """
    from mpiflow.jobs.render import has_description, render, render_description

    whole = _with_joblog(completed(spec))
    text = render(whole)
    if has_description(whole.system):
        text += f"\n# --- {DESCRIPTION}\n" + render_description(whole, os.path.join(whole.output, SCRIPT))
    return text


def _free(parent: Path, name: str) -> str:
    """A name for the job's directory that none has yet: ``sweep-000``."""
    stem = file_name(name)
    try:
        there = os.listdir(parent)
    except OSError:  # it is not there yet, or is none: that shows when the job's own is made
        there = []
    numbers = [int(found[1]) for one in there if (found := re.fullmatch(rf"{re.escape(stem)}-(\d+)", one))]
    return str(parent / f"{stem}-{max(numbers, default=-1) + 1:03}")


def submit(spec: JobSpec) -> Job:
    """Submit a job.

    Parameters
    ----------
    spec : JobSpec
        The job.

    Returns
    -------
    Job
        The job in the queue.

    Raises
    ------
    ConfigurationError
        The job is not one that can be submitted here.
    SubmitException
        The batch system does not take it; with its words.
    """
    dry_run(spec)  # what cannot be said to this batch system shows before anything is made
    whole = _with_joblog(_with_directory(completed(spec)))
    script = _write_script(whole)
    ids: list[str] = []
    try:
        while len(ids) < max(whole.chain, 1):
            ids.append(_hand_over(whole, script, ids[-1] if ids else ""))
    except SubmitException as error:
        if not ids:
            raise
        _write_down(whole, ids)
        words = f"link {len(ids) + 1} of {whole.chain}: {error.message}\nIn the queue are {', '.join(ids)}; "
        words += f"`mpiflow cancel {whole.output}` ends them"
        raise SubmitException(whole.name, words, error.stdout, error.stderr, error.retcode) from error
    return Job(_write_down(whole, ids))


def _with_joblog(whole: JobSpec) -> JobSpec:
    """A batch that goes on leaves out what is done: its joblog is in its own directory, unless the user names one."""
    if whole.script != "batch" or _names_joblog(whole.arguments):
        return whole
    joblog = os.path.join(whole.output, "joblog")
    return replace(whole, arguments=("--joblog", joblog, "--resume", *whole.arguments))


def _names_joblog(words: Sequence[str]) -> bool:
    """Whether a batch has one of its own: a template may have an option of that name, behind the first plain word."""
    takes_value = False
    for word in words:
        if word.partition("=")[0] == "--joblog":
            return True
        if not word.startswith("-") and not takes_value:
            return False
        takes_value = word.startswith("-") and "=" not in word and word not in ("--resume", "--resume-failed")
    return False


def _with_directory(whole: JobSpec) -> JobSpec:
    """The job with its directory made; another one, where somebody has taken that name meanwhile."""
    while True:
        try:
            os.makedirs(os.path.dirname(whole.output), exist_ok=True)
            os.mkdir(whole.output)
        except FileExistsError:
            if not os.path.isdir(whole.output):
                raise _cannot_be_made(whole.output, "a part of it is a file") from None
            whole = replace(whole, output=_free(Path(whole.output).parent, whole.name))
        except OSError as error:
            raise _cannot_be_made(error.filename or whole.output, error.strerror or str(error)) from error
        else:
            return whole


def _cannot_be_made(path: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the directory of the job, {path}, cannot be made: {why}; "
        "name another place by --output, one that the nodes see"
    )


def _write_script(whole: JobSpec) -> str:
    """Write what the batch system reads; the path of it."""
    from mpiflow.jobs.render import has_description, render, render_description

    script = os.path.join(whole.output, SCRIPT)
    try:
        Path(script).write_bytes(os.fsencode(render(whole)))
        os.chmod(script, 0o755)  # Cobalt takes none that cannot be run
        if not has_description(whole.system):
            return script
        description = os.path.join(whole.output, DESCRIPTION)
        Path(description).write_bytes(os.fsencode(render_description(whole, script)))
    except OSError as error:
        raise SubmitException(whole.name, f"{error.filename} cannot be written: {error.strerror}") from error
    return description


def _hand_over(whole: JobSpec, script: str, after: str) -> str:
    """Give the script to the batch system; the id of the job, which begins after another if one is named."""
    system = systems.find(whole.system)
    if system.name == "fork":
        return local.start(script, whole.directory, os.path.join(whole.output, f"{file_name(whole.name)}.log"))
    line = submit_line(system, script, after)
    try:
        answer = run(line, SUBMIT_WITHIN, whole.directory, stdin=script if system.on_stdin else os.devnull)
    except BatchSystemError as error:
        words = str(error)
        if "has not answered" in words:
            words += (
                f"; it may have taken the job all the same: look for {whole.name!r} in the queue before trying again"
            )
        raise SubmitException(whole.name, words) from error
    if answer.code != 0:
        raise _refused(whole.name, f"{system.title} refuses it (`{shlex.join(line)}`, code {answer.code}):", answer)
    found = re.findall(system.job_id, answer.out, re.MULTILINE)
    if not found:
        raise _refused(whole.name, f"`{shlex.join(line)}` has named no job; it says:", answer)
    return str(found[-1])  # sites print their greetings before it


def submit_line(system: systems.System, script: str, after: str = "") -> list[str]:
    """The command that submits a script.

    Parameters
    ----------
    system : System
        The batch system.
    script : str
        The path of the script.
    after : str
        The id of the job that has to end before.

    Raises
    ------
    ConfigurationError
        The batch system has no such dependencies.

    Examples
    --------
    >>> submit_line(systems.find("slurm"), "job.sh", "17")
    ['sbatch', '--parsable', '--dependency=afterany:17', 'job.sh']
    """
    if after and not system.dependency:
        raise ConfigurationError(f"chain: {system.title} lets no job wait for another; legal is 0")
    place = len(system.submit) - (not system.on_stdin)
    options = [word.format(job=after) for word in system.dependency] if after else []
    words = [*system.submit[:place], *options, *system.submit[place:]]
    return [script if word == "{script}" else word for word in words]


def _refused(name: str, what: str, answer: Answer) -> SubmitException:
    return SubmitException(name, f"{what}\n{answer.words}", answer.out, answer.err, answer.code)


def _write_down(whole: JobSpec, ids: list[str]) -> Record:
    """The record of what is in the queue now; that it cannot be written must not hide that."""
    made = Record(
        system=whole.system, ids=tuple(ids), array=bool(whole.array), name=whole.name, script=whole.script,
        directory=whole.directory, output=whole.output, host=os.uname().nodename, submitted=time.time(),
    )  # fmt: skip
    try:
        unlisted = record.write(made)
    except OSError as error:
        unlisted = f"{error.filename}: {error.strerror}"
    if unlisted:
        words = f"mpiflow: job {ids[0]} is submitted, but is not in the list of `mpiflow jobs`: {unlisted}"
        print(words, file=sys.stderr)
    return made
