"""Ranks that die, are stopped, or never come: the job goes on, with the script's own exit code and no noise."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from launching import OF_THE_DEAD

from mpiflow.exitcodes import NOT_STARTED, RELAUNCH

if TYPE_CHECKING:
    from launching import Jobs, Mpiexec

pytestmark = pytest.mark.usefixtures("launcher")

#: Finds the process of each worker rank from inside its tasks, and does what a test says in the midst of many.
SCRIPT = """
    import os, signal, sys, time
    import mpiflow
    from mpiflow import python_app

    def parent(pid):
        with open(f"/proc/{pid}/stat") as stat:
            return int(stat.read().rpartition(")")[2].split()[1])

    @python_app
    def where():
        import time
        time.sleep(0.02)  # long enough for every rank to get one
        return os.getpid() if os.environ.get("IN_RANK") else parent(os.getppid())

    @python_app
    def square(number, seconds):
        import time
        time.sleep(seconds)
        return number * number

    def ranks(count):
        found = set()
        while len(found) < count:
            found |= {future.result() for future in [where() for _ in range(4 * count)]}
        return sorted(found)

    def many(act, count=400, seconds=0.005):
        futures = [square(number, seconds) for number in range(count)]
        futures[count // 4].result()
        act()
        assert [future.result() for future in futures] == [number * number for number in range(count)]
"""

SILENCE = ["--heartbeat-threshold", "3"]


def spoken(err: str) -> list[str]:
    """What mpiflow said, without the word of a launch without protection; nothing else may be there."""
    lines = OF_THE_DEAD.sub("", err).splitlines()
    assert all(line.startswith("mpiflow: ") for line in lines), err
    return [line for line in lines if "is lost" in line or "heard of again" in line]


@pytest.mark.parametrize("name", ["KILL", "SEGV"])
def test_worker_rank_dies_and_the_job_goes_on(jobs: Jobs, name: str, launcher: Mpiexec) -> None:
    script = SCRIPT + f"""
    victim = ranks(3)[0]
    many(lambda: os.kill(victim, signal.SIG{name}))
    print("all right")
    sys.exit(5)
"""
    ended = jobs.run(script, ranks=4)
    assert (ended.code, ended.out) == (5, "all right\n"), str(ended)
    if name == "KILL" or launcher.flavour == "hydra":  # Open MPI's own handler prints a stack for a SEGV
        (told,) = spoken(ended.err)
        assert " on " in told
        assert "its " in told
        assert "tasks are given out again. 2 workers go on" in told


def test_two_worker_ranks_die_one_after_the_other(jobs: Jobs) -> None:
    script = SCRIPT + """
    first, second, _ = ranks(3)
    many(lambda: os.kill(first, signal.SIGKILL))
    many(lambda: os.kill(second, signal.SIGKILL))
    print("all right")
"""
    ended = jobs.run(script, ranks=4)
    assert (ended.code, ended.out) == (0, "all right\n"), str(ended)
    assert len(spoken(ended.err)) == 2


def test_ranks_die_in_the_midst_of_large_messages(jobs: Jobs) -> None:
    """MPICH reads these from the memory of the process that sends them, which is not there any more."""
    script = SCRIPT + """
    import threading

    @python_app
    def text(number, size):
        return bytes([number % 251]) * size

    victims = ranks(4)[:3]
    def kill():
        for victim in victims:
            time.sleep(0.2)
            os.kill(victim, signal.SIGKILL)
    killer = threading.Thread(target=kill)
    killer.start()
    for size in (20_000, 3_000_000):
        for _ in range(40):
            futures = [text(number, size) for number in range(20_000_000 // size)]
            for number, future in enumerate(futures):
                assert future.result() == bytes([number % 251]) * size
            if not killer.is_alive():
                break
    killer.join()
    print("all right")
"""
    ended = jobs.run(script, ranks=5)
    assert (ended.code, ended.out) == (0, "all right\n"), str(ended)
    spoken(ended.err)


def test_all_worker_ranks_die_and_the_job_asks_to_be_started_again(jobs: Jobs) -> None:
    script = SCRIPT + """
    victims = ranks(2)
    def kill():
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
    many(kill)
"""
    ended = jobs.run(script, ranks=3)
    assert ended.code == RELAUNCH, str(ended)
    assert "none of the 2 workers is left to run tasks. Run it again" in ended.err


def test_a_script_that_waits_in_the_standard_library_hears_that_no_rank_is_left(jobs: Jobs) -> None:
    """In functions that know nothing of the farm, and that nobody would wake: the futures fail."""
    script = SCRIPT + """
    from concurrent.futures import as_completed, wait
    victims = ranks(2)
    futures = [square(number, 30) for number in range(8)]
    heard = []
    futures[0].add_done_callback(heard.append)
    time.sleep(0.5)
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    assert not wait(futures).not_done
    assert {type(future.exception(0)).__name__ for future in as_completed(futures)} == {"FarmLost"}
    while not heard:
        time.sleep(0.01)
    print("heard")
    futures[3].result()
"""
    ended = jobs.run(script, ranks=3)
    assert (ended.code, ended.out) == (RELAUNCH, "heard\n"), str(ended)
    assert "a superstep has failed: FarmLost: none of the 2 workers is left" in ended.err


def test_rank_that_is_stopped_is_lost_by_its_silence(jobs: Jobs) -> None:
    script = SCRIPT + """
    victim = ranks(2)[0]
    many(lambda: os.kill(victim, signal.SIGSTOP))
    print("all right")
    sys.exit(3)
"""
    ended = jobs.run(script, ranks=3, options=SILENCE)
    assert (ended.code, ended.out) == (3, "all right\n"), str(ended)
    (told,) = spoken(ended.err)
    assert "is lost: silent for" in told


def test_rank_that_was_stopped_comes_back_and_its_late_results_do_not_count(jobs: Jobs) -> None:
    script = SCRIPT + """
    victim = ranks(2)[0]
    many(lambda: os.kill(victim, signal.SIGSTOP))
    many(lambda: os.kill(victim, signal.SIGCONT), 1000)
    while victim not in ranks(1):
        time.sleep(0.1)
    print("all right")
"""
    ended = jobs.run(script, ranks=3, options=SILENCE)
    assert (ended.code, ended.out) == (0, "all right\n"), str(ended)
    told = spoken(ended.err)
    assert len(told) == 2, ended.err
    assert "is lost: silent for" in told[0]
    assert told[1].endswith("is heard of again, and goes on")


def test_rank_that_runs_a_task_itself_is_not_judged_by_its_silence(jobs: Jobs) -> None:
    script = SCRIPT + """
    assert square(7, 5.0).result() == 49
    print("all right")
"""
    ended = jobs.run(script, ranks=2, options=["--isolation", "rank", "--heartbeat-threshold", "2"])
    assert ended.well() == "all right\n"


def test_rank_that_runs_tasks_itself_dies(jobs: Jobs) -> None:
    script = SCRIPT + """
    os.environ["IN_RANK"] = "1"  # tasks see it too
    mpiflow.load()
    victim = ranks(3)[0]
    many(lambda: os.kill(victim, signal.SIGKILL))
    print("all right")
"""
    ended = jobs.run(script, ranks=4, options=["--isolation", "rank"])
    assert (ended.code, ended.out) == (0, "all right\n"), str(ended)
    assert len(spoken(ended.err)) == 1


def test_a_lost_attempt_is_not_charged_as_a_retry(jobs: Jobs) -> None:
    script = SCRIPT + """
    mpiflow.load(mpiflow.Config(retries=0))
    victims = ranks(3)[:2]
    long = [square(number, 1.0) for number in range(8)]
    time.sleep(0.3)
    os.kill(victims[0], signal.SIGKILL)
    time.sleep(1.5)
    os.kill(victims[1], signal.SIGKILL)
    assert [future.result() for future in long] == [number * number for number in range(8)]
    print("all right")
"""
    ended = jobs.run(script, ranks=4)
    assert (ended.code, ended.out) == (0, "all right\n"), str(ended)


def test_rank_dies_as_the_script_ends(jobs: Jobs) -> None:
    """Nobody has noticed when the others are told that the job is over, and MPI_Finalize would wait for it."""
    script = SCRIPT + """
    victim = ranks(3)[0]
    os.kill(victim, signal.SIGKILL)
    sys.exit(4)
"""
    ended = jobs.run(script, ranks=4)
    assert (ended.code, ended.out) == (4, ""), str(ended)
    assert ended.seconds < 20


def test_rank_that_runs_tasks_itself_dies_before_it_has_its_settings(jobs: Jobs, launcher: Mpiexec) -> None:
    """Its guardian knows no place for a note, and a rank that runs a task itself may be silent."""
    if launcher.flavour != "hydra":
        pytest.skip("MPI tells of it here")
    script = SCRIPT + """
    def children(pid):
        with open(f"/proc/{pid}/task/{pid}/children") as children:
            return [int(child) for child in children.read().split()]

    time.sleep(1.0)  # until all ranks are in service
    guardians = [pid for pid in children(parent(os.getppid())) if pid != os.getppid()]
    os.kill(children(guardians[0])[0], signal.SIGKILL)
    time.sleep(0.5)
    assert [square(number, 0.0).result() for number in range(20)] == [number * number for number in range(20)]
    print("all right")
"""
    ended = jobs.run(script, ranks=3, options=["--isolation", "rank", *SILENCE])
    assert (ended.code, ended.out) == (0, "all right\n"), str(ended)
    assert "is lost: silent for" in ended.err


def test_rank_0_dies_and_workers_and_their_runners_leave(jobs: Jobs) -> None:
    """That nothing is left is what the fixture looks at."""
    script = SCRIPT + """
    futures = [square(number, 30.0) for number in range(10)]
    time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = jobs.run(script, ranks=3)
    assert ended.code == RELAUNCH, str(ended)
    assert ended.seconds < 20


def test_rank_0_is_stopped_for_good(jobs: Jobs) -> None:
    script = SCRIPT + """
    square(1, 0.0).result()
    os.kill(os.getpid(), signal.SIGSTOP)
"""
    ended = jobs.run(script, ranks=3, limit=90.0)
    assert ended.code == RELAUNCH, str(ended)


def _breaking(jobs: Jobs, ranks: str, module: str, act: str) -> dict[str, str]:
    """An environment in which some ranks meet something when they import a module."""
    jobs.write(
        "broken/sitecustomize.py",
        f"""
        import os, signal, sys, time
        rank = os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK", ""))
        class Breaks:
            def find_spec(self, name, path=None, target=None):
                if name == {module!r}:
                    {act}
        if rank in {ranks.split()!r}:
            sys.meta_path.insert(0, Breaks())
        """,
    )
    return {"PYTHONPATH": str(jobs.directory / "broken")}


def test_worker_that_cannot_start_reports_and_stays_out_of_service(jobs: Jobs) -> None:
    env = _breaking(jobs, "2", "mpiflow.worker.worker", "raise ImportError('no such thing on this node')")
    script = SCRIPT + """
    many(lambda: None)
    print("all right")
"""
    ended = jobs.run(script, ranks=3, env=env)
    assert (ended.code, ended.out) == (0, "all right\n"), str(ended)
    assert "cannot work, and is left out: ImportError: no such thing on this node" in ended.err
    assert ended.err.startswith("mpiflow: rank 2 on ")


def test_when_no_worker_can_start_the_job_ends_at_once_with_the_traceback(jobs: Jobs) -> None:
    env = _breaking(jobs, "1 2", "mpiflow.worker.worker", "raise ImportError('no such thing on this node')")
    ended = jobs.run(SCRIPT + "\n    square(1, 0.0).result()\n", ranks=3, env=env)
    assert ended.code == 1, str(ended)
    assert "no worker can start; rank " in ended.err
    assert "Traceback" in ended.err
    assert "ImportError: no such thing on this node" in ended.err
    assert ended.seconds < 20


def test_rank_that_never_reports_is_left_out(jobs: Jobs) -> None:
    env = _breaking(jobs, "2", "mpiflow.worker.worker", "time.sleep(600)")
    script = SCRIPT + """
    many(lambda: None, 1000)
    print("all right")
"""
    ended = jobs.run(script, ranks=3, env=env, options=["--report-within", "1"])
    assert (ended.code, ended.out) == (0, "all right\n"), str(ended)
    assert "rank 2 has not reported in 1 s; the job goes on without it" in ended.err


@pytest.mark.parametrize("act", ["os.kill(os.getpid(), signal.SIGKILL)", "raise ImportError('broken')"])
def test_rank_that_fails_before_mpi_init_ends_the_job_in_seconds(jobs: Jobs, act: str, launcher: Mpiexec) -> None:
    env = _breaking(jobs, "1", "mpi4py", act)
    limit = "20" if launcher.flavour == "hydra" else "8"  # hydra tells of it, and the limit is not waited for
    ended = jobs.run(SCRIPT, ranks=3, env=env, options=["--init-timeout", limit])
    assert ended.code != 0, str(ended)
    if launcher.flavour == "hydra":
        assert ended.code == NOT_STARTED, str(ended)
        assert ended.seconds < 20
    assert ended.seconds < 30


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root gives a rank a host name")
def test_the_same_node_keeps_failing_tasks_and_is_quarantined(jobs: Jobs) -> None:
    """Every rank has a host name of its own here, and on one of them no task can open its file."""
    jobs.write("host.sh", 'hostname "node${PMI_RANK:-$OMPI_COMM_WORLD_RANK}"; exec "$@"\n')
    script = SCRIPT + """
    @python_app
    def read(number):
        import time
        time.sleep(0.005)
        if os.uname().nodename == "node2":
            raise OSError(f"no such file system on {os.uname().nodename}")
        return number

    mpiflow.load(mpiflow.Config(retries=30))
    futures = [read(number) for number in range(600)]
    assert [future.result() for future in futures] == list(range(600))
    print("all right")
"""
    line = jobs.line("mpiexec", 4, ["--quarantine-after", "10", str(jobs.write("script.py", script))])
    program = line.index("-m") - 1
    unshared = [*line[:program], "unshare", "--uts", "sh", str(jobs.directory / "host.sh"), *line[program:]]
    ended = jobs.command(unshared).wait()
    assert (ended.code, ended.out) == (0, "all right\n"), str(ended)
    assert "host node2 is in quarantine: 10 tasks in a row have failed there" in ended.err
    assert "tasks are given out again, and it gets no more" in ended.err
