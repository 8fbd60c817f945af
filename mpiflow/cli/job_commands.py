"""``mpiflow submit batch ...`` and ``mpiflow submit doctor``: commands of ours that a job runs in place of a script.

What is wrong with them is said at the prompt, by the code that would say it in the job after a night in the queue.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from mpiflow.cli import arguments as farm
from mpiflow.cli.batch import words
from mpiflow.cli.batch.template import BatchError
from mpiflow.errors import ConfigurationError
from mpiflow.jobs.spec import JobSpec


def check(spec: JobSpec) -> None:
    """See that a job can run its command. What a parser of ours refuses ends the process with code 2.

    Parameters
    ----------
    spec : JobSpec
        The job.

    Raises
    ------
    ConfigurationError
        It cannot; saying why.
    """
    try:
        parsed = farm.parse([*spec.farm_options, spec.script, *spec.arguments])
        said = words.parse(parsed.rest) if spec.script == "batch" else None
    except SystemExit as leaving:  # 255 for a batch, where 2 are two failed jobs
        raise SystemExit(2 if leaving.code else 0) from None
    if parsed.size is not None:
        raise ConfigurationError("-n: how many ranks a job has is said by --nodes and --ranks-per-node")
    if said is not None:
        _check_batch(spec, said)
    elif parsed.stacks is not None or parsed.script is not None:
        raise ConfigurationError(f"doctor: in a job it looks at the job itself; {' '.join(spec.arguments)!r} is no use")


def _check_batch(spec: JobSpec, said: words.Words) -> None:
    if said.joblog is not None and not (said.resume or said.resume_failed):
        raise ConfigurationError("--joblog without --resume: each time the job goes on it would begin again; say both")
    try:
        with _inside(spec.directory):
            words.commands_of(said.words, _NoInput(), lambda line: print(f"mpiflow submit: {line}", file=sys.stderr))
    except BatchError as error:
        raise ConfigurationError(f"batch: {error}") from error
    except OSError as error:
        raise ConfigurationError(f"directory {spec.directory}: {error.strerror}") from error


class _NoInput(io.BytesIO):
    """The standard input of a job."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Say that there is none."""
        raise BatchError("a job has no standard input; name a file with the commands, or with their inputs")


@contextlib.contextmanager
def _inside(directory: str) -> Iterator[None]:
    """Be where the job will run: the names of its files are seen from there."""
    here = os.getcwd()
    os.chdir(directory or here)
    try:
        yield
    finally:
        os.chdir(here)
