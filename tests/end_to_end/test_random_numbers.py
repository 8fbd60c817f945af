"""Random numbers: different in every task by default, the same for every task with `mpiflow.rng`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Jobs

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("launcher")]

pytest.importorskip("numpy")


@pytest.mark.parametrize("isolation", ["runner", "task", "rank"])
def test_a_hundred_tasks_draw_different_numbers(jobs: Jobs, isolation: str) -> None:
    """Also where numpy was loaded before the fork, and all children share its state."""
    jobs.write("early/sitecustomize.py", "import random\nimport numpy.random\n")
    script = """
        import random, numpy as np, mpiflow

        @mpiflow.python_app
        def draw():
            return np.random.random(), random.random(), np.random.default_rng().random()

        drawn = [future.result() for future in [draw() for _ in range(100)]]
        for numbers in zip(*drawn):
            assert len(set(numbers)) == 100, len(set(numbers))
        print("fine")
    """
    env = {"PYTHONPATH": str(jobs.directory / "early")}
    assert jobs.run(script, options=["--isolation", isolation], env=env).well() == "fine\n"


def test_rng_gives_every_task_its_stream_on_any_number_of_workers(jobs: Jobs) -> None:
    """One, two and three workers, several runners, in the rank, and without MPI."""
    script = """
        import numpy as np, mpiflow

        @mpiflow.python_app
        def draw(_=None):
            np.random.random(3)
            return mpiflow.rng().integers(1 << 62)

        with mpiflow.load(mpiflow.Config(seed=11)):
            numbers = [future.result() for future in [draw() for _ in range(6)]]
            numbers += mpiflow.map(draw, range(40), chunksize=20)
            numbers += [mpiflow.rng().integers(1 << 62)]
        assert len(set(numbers)) == len(numbers)
        print(numbers)
    """
    alone = jobs.run(script, form="plain").well()
    assert jobs.run(script, ranks=2).well() == alone
    assert jobs.run(script, ranks=3, options=["--isolation", "rank"]).well() == alone
    assert jobs.run(script, ranks=4, options=["--runners-per-rank", "2"]).well() == alone


def test_seed_on_the_command_line(jobs: Jobs) -> None:
    """``--seed`` holds where the Config names none; another seed, other numbers."""
    script = """
        import mpiflow

        @mpiflow.python_app
        def draw():
            return mpiflow.rng().integers(1 << 62)

        print([draw().result() for _ in range(3)])
        mpiflow.load(mpiflow.Config(seed=5))
        print([draw().result() for _ in range(3)])
    """
    five = jobs.run(script, form="lone", options=["--seed", "5"]).well().splitlines()
    other = jobs.run(script, form="lone", options=["--seed", "6"]).well().splitlines()
    assert five[0] == five[1] == other[1]
    assert five[0] != other[0]
