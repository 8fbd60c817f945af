"""What launchers say through the environment, with environments as they were seen."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpiflow.comm.launcher import SCRUBBED, Launched, is_launcher_variable, meet_front, said

HYDRA = {
    "PMI_RANK": "2",
    "PMI_SIZE": "8",
    "PMI_FD": "9",
    "HYDI_CONTROL_FD": "7",
    "MPI_LOCALNRANKS": "8",
    "MPI_LOCALRANKID": "2",
}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "1", "PRTE_LAUNCHED": "1"}
SRUN = {
    "SLURM_JOB_ID": "17",
    "SLURM_NTASKS": "3",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_PROCID": "2",
}
BATCH_SCRIPT = {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "3", "SLURM_PROCID": "0", "SLURM_NODEID": "0"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (HYDRA, Launched("hydra (MPICH)", 2, 8)),
        (OPEN_MPI, Launched("Open MPI (PRRTE)", 1, 4)),
        ({"PMIX_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4"}, Launched("Open MPI (PRRTE)", 1, 4)),
        (SRUN, Launched("Slurm srun", 2, 3)),
        (SRUN | {"PMI_RANK": "2", "PMI_SIZE": "3", "PMI_FD": "11"}, Launched("Slurm srun", 2, 3)),
        ({"PALS_RANKID": "5", "PALS_SIZE": "12"}, Launched("PALS", 5, 12)),
        ({"PALS_RANKID": "5", "PMI_RANK": "5", "PMI_SIZE": "12"}, Launched("PALS", 5, 12)),
        ({"FLUX_TASK_RANK": "0", "FLUX_JOB_SIZE": "2", "PMI_RANK": "0"}, Launched("Flux", 0, 2)),
        ({"ALPS_APP_PE": "3"}, Launched("aprun/ALPS", 3, None)),
        ({"JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_SIZE": "6"}, Launched("jsrun", 1, 6)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, Launched("hydra (MPICH)", 1, 2)),
    ],
)
def test_each_launcher_is_understood(environ: dict[str, str], expected: Launched) -> None:
    assert said(environ) == expected


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"PATH": "/usr/bin", "HOME": "/root"},
        BATCH_SCRIPT,
        BATCH_SCRIPT | {"SLURM_STEP_ID": "4294967291", "SLURM_STEP_NUM_TASKS": "1"},
    ],
    ids=["empty", "login shell", "batch script", "batch step"],
)
def test_a_process_no_launcher_started(environ: dict[str, str]) -> None:
    assert said(environ) is None


def test_salloc_shell_is_no_rank() -> None:
    interactive = {"SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
    assert said(interactive) is None


def test_hydra_in_a_slurm_job_counts_its_ranks_and_not_its_proxies() -> None:
    proxies = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
    assert said(HYDRA | proxies) == Launched("hydra (MPICH)", 2, 8)


def test_open_mpi_in_a_slurm_job_counts_its_ranks_and_not_its_daemons() -> None:
    daemons = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
    assert said(OPEN_MPI | daemons) == Launched("Open MPI (PRRTE)", 1, 4)


@pytest.mark.parametrize("text", ["", "x", "-1", "+1", " 1", "1_0", "1.0", "²", "٣"])
def test_a_malformed_number_counts_as_not_said(text: str) -> None:
    assert said({"PMI_RANK": text, "PMI_SIZE": "8"}) is None
    assert said({"PMI_RANK": "0", "PMI_SIZE": text}) is None


def test_a_rank_outside_the_size_counts_as_not_said() -> None:
    assert said({"PMI_RANK": "8", "PMI_SIZE": "8"}) is None


def test_a_malformed_source_does_not_hide_a_good_one() -> None:
    assert said(SRUN | {"PMI_RANK": "two", "PMI_SIZE": "3"}) == Launched("Slurm srun", 2, 3)


def test_ranks_lose_what_identifies_them_and_keep_what_describes_the_job() -> None:
    others = {"SLURM_GTIDS": "0,1", "SLURM_SRUN_COMM_PORT": "41", "PALS_APID": "x"}
    seen = HYDRA | OPEN_MPI | SRUN | others
    kept = {name for name in seen if not is_launcher_variable(name)}
    assert kept == {"SLURM_JOB_ID", "SLURM_NTASKS"}


@pytest.mark.parametrize(
    "name",
    ["PATH", "SLURM_JOB_NODELIST", "PBS_NODEFILE", "FLUX_URI", "MPICH_OFI_NIC_POLICY", "I_MPI_FABRICS"],
)
def test_job_and_user_variables_stay(name: str) -> None:
    assert not is_launcher_variable(name)


def test_a_users_open_mpi_settings_go_too() -> None:
    assert is_launcher_variable("OMPI_MCA_btl")


NAMES = st.sampled_from(
    [
        *HYDRA,
        *OPEN_MPI,
        *SRUN,
        "PALS_RANKID",
        "PALS_SIZE",
        "FLUX_TASK_RANK",
        "FLUX_JOB_SIZE",
        "ALPS_APP_PE",
        "JSM_NAMESPACE_RANK",
        "JSM_NAMESPACE_SIZE",
    ]
)
VALUES = st.integers(-1, 5).map(str) | st.text(max_size=3)


@settings(deadline=None)  # a busy machine is no failure
@given(st.dictionaries(NAMES, VALUES))
def test_whatever_is_said_makes_sense(environ: dict[str, str]) -> None:
    launched = said(environ)
    if launched is not None:
        assert launched.rank >= 0
        assert launched.size is None or launched.rank < launched.size


@settings(deadline=None)  # a busy machine is no failure
@given(st.dictionaries(NAMES, VALUES))
def test_nothing_below_a_rank_takes_itself_for_one(environ: dict[str, str]) -> None:
    left = {name: value for name, value in environ.items() if not is_launcher_variable(name)}
    assert said(left) is None


@pytest.mark.parametrize("name", ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "PRTE_ALLOW_RUN_AS_ROOT"])
def test_a_task_of_root_may_start_ranks_where_the_user_allows_it(name: str) -> None:
    assert not is_launcher_variable(name)
    assert is_launcher_variable("OMPI_COMM_WORLD_RANK")


def test_every_scrubbed_prefix_scrubs() -> None:
    assert all(is_launcher_variable(prefix + "X") for prefix in SCRUBBED)


@pytest.mark.parametrize("meeting", ["", "another host:1:0:1"])
def test_there_may_be_no_one_to_meet(meeting: str) -> None:
    meet_front(meeting)


def test_the_module_is_cheap_for_a_rank() -> None:
    code = (
        "import __future__, collections, sys; before = set(sys.modules); import mpiflow.comm.launcher;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["mpiflow", "mpiflow.comm", "mpiflow.comm.launcher"]
