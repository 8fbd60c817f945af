"""``mpiflow submit script.py``: a batch script for it, in the queue, and how to follow it."""

from __future__ import annotations

import sys

from mpiflow.cli import job_options
from mpiflow.errors import BatchSystemError, ConfigurationError, OptionalModuleMissing
from mpiflow.jobs import clouds, systems
from mpiflow.jobs.job import Job
from mpiflow.jobs.spec import JobSpec
from mpiflow.jobs.states import JobState, in_words
from mpiflow.jobs.submit import dry_run
from mpiflow.jobs.submit import submit as submit_job
from mpiflow.jobs.tail import Tail

#: Exit code of ``--wait`` when nobody knows how the job has ended, or nobody knows its exit code.
NOT_KNOWN = 1


def submit(arguments: list[str]) -> int:
    """Run the subcommand; returns its exit code.

    Parameters
    ----------
    arguments : list of str
        The command line after the word ``submit``.
    """
    try:
        asked = job_options.parse(arguments)
        if asked.cloud:
            return _document(asked)
        if asked.dry_run:
            print(dry_run(asked.spec), end="")
            return 0
        job = submit_job(asked.spec)
    except (ConfigurationError, OptionalModuleMissing) as error:
        print(f"mpiflow submit: {error}", file=sys.stderr)
        return 2
    except BatchSystemError as error:
        print(f"mpiflow submit: {error}", file=sys.stderr)
        return 1
    print(_told(job, asked.spec), flush=True)
    return _wait(job) if asked.wait else 0


def _document(asked: job_options.Asked) -> int:
    """Print what a cloud's own tool takes; nothing else is done there."""
    text = clouds.render(asked.spec, asked.cloud)
    if asked.dry_run:
        print(text, end="")
        return 0
    lines = "\n".join(f"  {line}" for line in clouds.how_to_submit(asked.spec, asked.cloud, "job.json"))
    title = clouds.find(asked.cloud).title
    raise ConfigurationError(f"{title}: say --dry-run, keep what is printed in job.json, and submit that:\n{lines}")


def _told(job: Job, spec: JobSpec) -> str:
    """What a person wants to know now."""
    more = f" and {len(job.record.ids) - 1} links" if len(job.record.ids) > 1 else ""
    size = f"{spec.ranks} rank{'s' if spec.ranks > 1 else ''} on {spec.nodes} node{'s' if spec.nodes > 1 else ''}"
    time = f" for {systems.hours(spec.time)}" if spec.time else ""
    return "\n".join(
        [
            f"submitted: job {job.id}{more} ({systems.find(job.system).title}), {size}{time}",
            f"  script, output:  {job.output}",
            f"  how it stands:   mpiflow status {job.id}",
            f"  what it prints:  mpiflow logs -f {job.id}",
            f"  to end it:       mpiflow cancel {job.id}",
        ]
    )


def _wait(job: Job) -> int:
    """Follow a job to its end; its exit code."""
    tail = Tail(job.logs)

    def show() -> None:
        for path, text in tail.read():
            stream = sys.stdout if path.suffix == ".out" else sys.stderr
            stream.buffer.write(text)
            stream.flush()

    try:
        state = job.wait(tell=_tell, between=show)
    except KeyboardInterrupt:
        print(f"\nmpiflow: job {job.id} goes on; `mpiflow cancel {job.id}` ends it", file=sys.stderr)
        return 130
    show()
    if state.exit_code is not None:
        return state.exit_code
    return NOT_KNOWN


def _tell(state: JobState) -> None:
    print(f"mpiflow: {in_words(state)}", file=sys.stderr, flush=True)
