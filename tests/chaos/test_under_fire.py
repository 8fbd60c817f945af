"""The short form of the chaos suite: a handful of each kind of fault. ``make chaos`` is the long one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import campaign, storage, virtual
from .jobs import our_mpiexec

if TYPE_CHECKING:
    from pathlib import Path

    from .jobs import Mpiexec

pytestmark = pytest.mark.timeout(400)

#: A fault of these costs its process only, or its rank: the job lives on.
LIVED_THROUGH = (
    "runner-kill",
    "runner-segv",
    "zygote-kill",
    "worker-kill",
    "worker-segv",
    "worker-pause",
    "rank0-pause",
)
#: One of these ends the job, and the same command goes on.
RESUMED = ("rank0-kill", "rank0-segv", "guardian-kill", "launcher-kill", "launcher-term", "journal-cut", "runner-kill")


@pytest.fixture(scope="module")
def launcher() -> Mpiexec:
    """The mpiexec of this interpreter."""
    found = our_mpiexec()
    if found is None:
        pytest.skip("no mpiexec of MPICH or Open MPI beside this interpreter or on PATH")
    return found


def _under(faults: tuple[str, ...], tmp_path: Path, launcher: Mpiexec, most: int, seed: int) -> None:
    said: list[str] = []
    table = campaign.campaign(
        seed=seed, most=most, tasks=350, only=faults, launcher=launcher, keep=tmp_path, say=said.append
    )
    print("\n".join([*said, str(table)]))
    assert table.failures == 0, f"{table}\n" + "\n".join(said[-60:])
    assert table.injected >= most


def test_a_job_lives_on_when_runners_zygotes_and_ranks_die(tmp_path: Path, launcher: Mpiexec) -> None:
    _under(LIVED_THROUGH, tmp_path, launcher, 10, 1)


def test_a_job_that_ends_is_resumed_and_loses_nothing(tmp_path: Path, launcher: Mpiexec) -> None:
    faults = tuple(name for name in RESUMED if launcher.flavour == "hydra" or name != "guardian-kill")
    _under(faults, tmp_path, launcher, 7, 2)


def test_a_full_and_a_read_only_disk(tmp_path: Path, launcher: Mpiexec) -> None:
    if reason := storage.unavailable(tmp_path):
        pytest.skip(reason)
    _under(storage.NAMES, tmp_path, launcher, 2, 3)


@pytest.mark.parametrize("fault", virtual.FAULTS)
def test_a_host_whose_network_is_away_cut_off_or_without_power(
    fault: str, tmp_path_factory: pytest.TempPathFactory, launcher: Mpiexec
) -> None:
    if reason := virtual.not_judged(fault, launcher.flavour):
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("h")  # launchers put sockets below it, whose paths must be short
    hosts = virtual.Hosts(directory / "probe")
    try:
        if reason := hosts.up():
            pytest.skip(reason)
    finally:
        hosts.down()
    _under((fault,), directory, launcher, 1, 4)
