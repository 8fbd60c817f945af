"""Fixtures for tests that run real commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from launching import Jobs, Mpiexec, our_mpiexec

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds that the processes of an ended job may take to go: a zygote kills what is below it after its rank.
GONE_WITHIN = 5.0


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks of these tests."""
    config.addinivalue_line("markers", "slow: takes long, or more memory than a small machine has")


def _jobs(directory: object) -> Iterator[Jobs]:
    jobs = Jobs(directory)  # type: ignore[arg-type]
    try:
        yield jobs
        left = jobs.left_behind(GONE_WITHIN)
        assert not left, "processes are left behind:\n" + "\n".join(left)
    finally:
        jobs.kill_all()


@pytest.fixture
def jobs(tmp_path: object) -> Iterator[Jobs]:
    """Starts jobs; the test fails if one of them leaves a process behind."""
    yield from _jobs(tmp_path)


@pytest.fixture(scope="module")
def module_jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """The same for one job that several tests look at."""
    yield from _jobs(tmp_path_factory.mktemp("jobs"))


@pytest.fixture(scope="session")
def launcher() -> Mpiexec:
    """The mpiexec of this interpreter; tests that need one are skipped where there is none."""
    found = our_mpiexec()
    if found is None:
        pytest.skip("no mpiexec of MPICH or Open MPI beside this interpreter or on PATH")
    return found
