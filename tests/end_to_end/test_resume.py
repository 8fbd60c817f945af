"""The same command in the same directory goes on where earlier runs ended, however they ended."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Jobs

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("launcher")]

#: Notes each task that runs. Odd ones fail until there is a file ``cure``; 6 waits for ``gate``, for those who kill.
SCRIPT = """
    import os, time, mpiflow

    @mpiflow.python_app(cache=True)
    def work(number):
        with open("ran", "a") as notes:
            notes.write(f"{number} ")
        if number % 2 and not os.path.exists("cure"):
            raise ValueError(f"{number} is odd")
        while number == 6 and not os.path.exists("gate"):
            time.sleep(0.02)
        return number * 1000

    futures = [work(number) for number in range(7)]
    print([future.result() if future.exception() is None else "failed" for future in futures[:6]], flush=True)
    print(futures[6].result(), flush=True)
"""


def ran(jobs: Jobs) -> list[int]:
    """Tasks that have run since the last question."""
    notes = jobs.directory / "ran"
    numbers = sorted(map(int, notes.read_text().split())) if notes.exists() else []
    notes.unlink(missing_ok=True)
    return numbers


def test_killed_run_is_resumed_by_other_ranks_and_failures_are_tried_again(jobs: Jobs) -> None:
    running = jobs.start(SCRIPT, ranks=4).shows("[0, 'failed', 2000, 'failed', 4000, 'failed']")
    running.process.send_signal(signal.SIGKILL)
    running.wait(10)
    assert jobs.left_behind(8.0) == []
    assert ran(jobs) == [0, 1, 2, 3, 4, 5, 6]

    (jobs.directory / "gate").touch()
    second = jobs.run(SCRIPT, ranks=2)
    assert second.out == "[0, 'failed', 2000, 'failed', 4000, 'failed']\n6000\n", str(second)
    assert second.err == "mpiflow: 3 results were taken from earlier runs\n"
    assert ran(jobs) == [1, 3, 5, 6]

    (jobs.directory / "cure").touch()
    third = jobs.run(SCRIPT, form="lone")
    assert third.out == "[0, 1000, 2000, 3000, 4000, 5000]\n6000\n", str(third)
    assert third.err == "mpiflow: 4 results were taken from earlier runs\n", "of two journals"
    assert ran(jobs) == [1, 3, 5]

    fourth = jobs.run(SCRIPT, form="own", ranks=3)
    assert fourth.err == "mpiflow: 7 results were taken from earlier runs\n", "of three"
    assert ran(jobs) == []
    assert "taken" not in jobs.run(SCRIPT, form="lone", options=["--fresh"]).err
    assert ran(jobs) == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to somebody else")
def test_journal_of_another_user_needs_trust(jobs: Jobs) -> None:
    for name in ("gate", "cure"):
        (jobs.directory / name).touch()
    jobs.run(SCRIPT, form="lone").well()
    ran(jobs)
    for place, _, files in os.walk(jobs.directory / "runinfo"):
        for name in (".", *files):
            os.chown(os.path.join(place, name), 65534, 65534)
    refused = jobs.run(SCRIPT, form="lone")
    assert "belongs to user 65534, and you are 0" in refused.failed(1)
    assert "say --trust" in refused.err
    trusted = jobs.run(SCRIPT, form="lone", options=["--trust"])
    assert trusted.err == "mpiflow: 7 results were taken from earlier runs\n", str(trusted)
    assert ran(jobs) == []
