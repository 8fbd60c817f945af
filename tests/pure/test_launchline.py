"""The command line of a launcher, without hosts that failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpiflow.errors import ConfigurationError
from mpiflow.jobs.hosts import Host
from mpiflow.jobs.launcher_options import Dialect
from mpiflow.jobs.launchline import LaunchLine

FARM = "python -m mpiflow -n 8 script.py -f x --host y"
SLURM = {"SLURM_JOB_NODELIST": "n[1-4]", "SLURM_TASKS_PER_NODE": "2(x4)", "SLURM_NTASKS": "8"}


def names(line: LaunchLine) -> list[str]:
    return [host.name for host in line.hosts]


def without(dialect: Dialect, line: str, *gone: str, environ: dict[str, str] | None = None) -> str:
    """The line without these hosts; the new hostfile is NEW."""
    return " ".join(LaunchLine(line.split(), dialect, environ or {}).without(gone, "NEW").words)


# --- lists ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "line", "gone", "left"),
    [
        ("hydra", "mpiexec -hosts n1,n2,n3 -n 3", ["n2"], "mpiexec -hosts n1,n3 -n 2"),
        ("hydra", "mpiexec -host n1:2,n2:2 -np 4", ["n2.site.edu"], "mpiexec -host n1:2 -np 2"),
        ("hydra", "mpiexec -n 3 -genv A 1 -hosts n1:4,n2:4 -l", ["n1"], "mpiexec -n 3 -genv A 1 -hosts n2:4 -l"),
        ("hydra", "mpiexec -hosts n1,n2,n3 -ppn 4 -n 12", ["n3"], "mpiexec -hosts n1,n2 -ppn 4 -n 8"),
        ("hydra", "mpiexec -hosts n1,n2 -n 64", ["n2"], "mpiexec -hosts n1 -n 32"),  # hydra goes round and round
        ("hydra", "mpiexec -hosts n1,n2,n3", ["n3"], "mpiexec -hosts n1,n2"),
        ("openmpi", "mpiexec --host n1:2,n2:2,n3:2 -n 6", ["n1", "n3"], "mpiexec --host n2:2 -n 2"),
        ("openmpi", "mpiexec -H n1:4,n2:4 --np 5 --mca a b", ["n1"], "mpiexec -H n2:4 --np 4 --mca a b"),
        ("openmpi", "mpirun --host n1:4,n2:4 -n 3", ["n1"], "mpirun --host n2:4 -n 3"),
        ("openmpi", "mpirun --host n1,n2,n3,n4 -n 64", ["n4"], "mpirun --host n1,n2,n3 -n 48"),
        ("openmpi", "mpirun --host n1,n2,n3,n4 -n 3", ["n4"], "mpirun --host n1,n2,n3 -n 3"),
        ("openmpi", "mpirun --host=n1,n2 -n 8 -N 4 -v", ["n2"], "mpirun --host=n1 -n 4 -N 4 -v"),
    ],
)
def test_a_list_loses_a_name(dialect: Dialect, line: str, gone: list[str], left: str) -> None:
    assert without(dialect, f"{line} {FARM}", *gone) == f"{left} {FARM}"


@pytest.mark.parametrize("dialect", ["hydra", "openmpi"])
def test_hosts_that_are_not_used_change_nothing(dialect: Dialect) -> None:
    line = f"mpiexec -host n1,n2 -n 2 {FARM}"
    assert without(dialect, line, "n3", "n11") == line
    assert without(dialect, f"mpiexec -n 8 {FARM}", "n3") == f"mpiexec -n 8 {FARM}"


def test_options_of_the_script_are_its_own() -> None:
    line = LaunchLine(f"mpiexec -n 8 {FARM}".split(), "hydra", {})
    assert line.hosts == []
    assert line.without([], "NEW").ranks == 8


def test_a_launcher_that_nobody_knows_is_left_alone() -> None:
    line = f"runner -n 8 --host n1,n2 {FARM}"
    assert without("other", line, "n1", environ=SLURM) == line
    assert LaunchLine(line.split(), "other", SLURM).hosts == []


# --- files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "option"),
    [
        ("hydra", "-f"),
        ("hydra", "-hostfile"),
        ("hydra", "-machinefile"),
        ("openmpi", "--hostfile"),
        ("openmpi", "-machinefile"),
    ],
)
def test_a_file_is_replaced_by_a_shorter_one(dialect: Dialect, option: str, tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("# ours\nn1:2\nn2:2\nn3:2\n")
    words = f"mpiexec {option} {file} -n 6 {FARM}".split()
    line = LaunchLine(words, dialect, SLURM)
    assert line.hosts == [Host("n1", 2), Host("n2", 2), Host("n3", 2)]
    shorter = line.without(["n2.site.edu"], "NEW")
    assert " ".join(shorter.words) == f"mpiexec {option} NEW -n 4 {FARM}"
    assert (shorter.hostfile, shorter.ranks) == ("# ours\nn1:2\nn3:2\n", 4)
    assert shorter.hosts == [Host("n1", 2), Host("n3", 2)]
    assert (line.without([], "NEW").words, line.without([], "NEW").hostfile) == (words, None)


def test_hydras_variable_names_a_file(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("n1\nn2\nn3\n")
    line = LaunchLine(f"mpiexec -n 3 {FARM}".split(), "hydra", {"HYDRA_HOST_FILE": str(file)})
    shorter = line.without(["n1"], "NEW")
    assert (" ".join(shorter.words), shorter.hostfile) == (f"mpiexec -f NEW -n 2 {FARM}", "n2\nn3\n")


def test_a_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        LaunchLine(f"mpiexec -f hosts.txt -n 6 {FARM}".split(), "hydra", {})
    assert str(caught.value) == f"hostfile hosts.txt: No such file or directory (looked in {tmp_path})"


# --- the batch system's hosts -------------------------------------------------------------------------------


def test_the_batch_systems_hosts_are_given_as_a_file() -> None:
    shorter = LaunchLine(f"mpiexec -n 8 {FARM}".split(), "hydra", SLURM).without(["n3"], "NEW")
    assert " ".join(shorter.words) == f"mpiexec -f NEW -n 6 {FARM}"
    assert shorter.hostfile == "n1:2\nn2:2\nn4:2\n"
    shorter = LaunchLine(f"mpiexec {FARM}".split(), "openmpi", SLURM).without(["n3"], "NEW")
    assert " ".join(shorter.words) == f"mpiexec --hostfile NEW {FARM}"
    assert (shorter.hostfile, shorter.ranks) == ("n1 slots=2\nn2 slots=2\nn4 slots=2\n", None)


def test_without_a_number_hydra_starts_a_rank_for_each_slot() -> None:
    assert LaunchLine(f"mpiexec {FARM}".split(), "hydra", SLURM).without(["n3"], "NEW").ranks == 6
    line = LaunchLine(f"mpiexec -hosts n1,n2 {FARM}".split(), "hydra", {})
    assert line.without(["n2"], "NEW").ranks == 1


# --- srun -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "gone", "left"),
    [
        ("srun", ["n3"], "srun --exclude n3 -N 3 -n 6"),
        ("srun -K --mpi=pmi2 -n 8", ["n3"], "srun --exclude n3 -N 3 -K --mpi=pmi2 -n 6"),
        ("srun -n8 -N4", ["n3", "n1"], "srun --exclude n1,n3 -n4 -N2"),
        ("srun --ntasks=8 --nodes=4 --exclude=n9", ["n3"], "srun --ntasks=6 --nodes=3 --exclude=n9,n3"),
        ("srun -n 4", ["n3"], "srun --exclude n3 -N 3 -n 4"),
        ("srun -N 3 -n 6", ["n3"], "srun --exclude n3 -N 3 -n 6"),  # the fourth stands in
        ("srun -N 3 -n 6", ["n3", "n4"], "srun --exclude n3,n4 -N 2 -n 4"),
        ("srun --ntasks-per-node=1 -n 4", ["n4"], "srun --exclude n4 -N 3 --ntasks-per-node=1 -n 3"),
        ("srun -w n[1-2] -n 4", ["n2"], "srun --exclude n2 -N 1 -w n1 -n 2"),
    ],
)
def test_srun_excludes(line: str, gone: list[str], left: str) -> None:
    assert without("srun", f"{line} {FARM}", *gone, environ=SLURM) == f"{left} {FARM}"


def test_srun_outside_of_an_allocation_knows_no_hosts() -> None:
    assert without("srun", f"srun -n 8 {FARM}", "n3") == f"srun -n 8 {FARM}"


# --- probes and ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "line", "probe"),
    [
        (
            "hydra",
            "mpiexec -launcher ssh -launcher-exec /x/ssh -ppn 2 -outfile-pattern o -hosts n1,n2 -n 4",
            "mpiexec -launcher ssh -launcher-exec /x/ssh -hosts n2 -n 1 true",
        ),
        (
            "openmpi",
            "mpiexec --allow-run-as-root --with-ft ulfm --prtemca plm_ssh_agent /x/ssh --hostfile /dev/null -n 4",
            "mpiexec --allow-run-as-root --prtemca plm_ssh_agent /x/ssh --host n2 -n 1 sleep 1",
        ),
        ("srun", "srun -K --mpi=pmi2 --overlap -n 8", "srun --overlap -Q -N1 -w n2 -n 1 true"),
    ],
)
def test_a_probe_reaches_a_host_as_the_line_does(dialect: Dialect, line: str, probe: str) -> None:
    assert " ".join(LaunchLine(f"{line} {FARM}".split(), dialect, SLURM).probe("n2")) == probe


def test_no_host_is_left() -> None:
    for dialect, line in (("hydra", "mpiexec -hosts n1,n2 -n 2"), ("srun", "srun"), ("openmpi", "mpiexec -n 8")):
        shorter = LaunchLine(f"{line} {FARM}".split(), dialect, SLURM).without(["n1", "n2", "n3", "n4"], "NEW")
        assert shorter.hosts == []
