"""Functions on several ranks at once: right answers beside small tasks, and every way in which they go wrong."""

from __future__ import annotations

import re
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest
from launching import OF_THE_DEAD

from mpiflow.exitcodes import DRAINED

if TYPE_CHECKING:
    from pathlib import Path

    from launching import Jobs, Mpiexec

pytestmark = [pytest.mark.usefixtures("launcher"), pytest.mark.timeout(180)]

#: The apps of these tests; `four` waits for its other ranks, so that what one does the others feel.
APPS = """
    import os, signal, sys, time
    import mpiflow
    from mpiflow import mpi_app, python_app
    from mpiflow.errors import *

    @mpi_app(ranks=3)
    def total(x, comm):
        return comm.size, comm.allreduce(x * comm.rank)

    @mpi_app
    def ranks(comm):
        from mpi4py import MPI
        return comm.allgather(MPI.COMM_WORLD.rank)

    @mpi_app(ranks=4)
    def four(act, comm, where=2):
        comm.barrier()
        if comm.rank == where:
            act()
        comm.barrier()
        return comm.allgather(os.getpid())

    @python_app
    def square(number):
        time.sleep(0.005)
        return number * number

    def of(number):
        return {"num_ranks": number}

    def failure(future):
        error = future.exception()
        assert error is not None, future.result()
        return error

    def squares_are_right():
        assert [future.result() for future in [square(i) for i in range(100)]] == [i * i for i in range(100)]
"""


def noise(err: str) -> list[str]:
    """What is neither mpiflow's word nor the launcher's of a process that has died."""
    return re.findall(r"^(?!mpiflow: ).*\n", OF_THE_DEAD.sub("", err), re.MULTILINE)


def wait_for(path: Path, limit: float = 30.0) -> None:
    """Wait until a job has made a file."""
    end = time.monotonic() + limit
    while not path.exists():
        assert time.monotonic() < end, f"no {path.name} in {limit:g} s"
        time.sleep(0.01)


def test_right_answers_by_objects_and_by_buffers_beside_small_tasks(jobs: Jobs) -> None:
    script = APPS + """
    @mpi_app(ranks=2, cache=True)
    def arrays(array, comm):
        import numpy as np
        other = np.empty_like(array)
        comm.Sendrecv(array + comm.rank, 1 - comm.rank, recvbuf=other)
        return other

    import numpy as np
    small = [square(number) for number in range(200)]
    large = np.arange(100_000.0)
    gangs = [total(number) for number in range(10)]
    buffers = [arrays(large) for _ in range(3)]
    many = [ranks(parsl_resource_specification=of(number)) for number in (1, 2, 5)]
    assert [gang.result() for gang in gangs] == [(3, 3 * number) for number in range(10)]
    assert all((array.result() == large + 1).all() for array in buffers)
    assert [len(set(gang.result())) for gang in many] == [1, 2, 5]
    assert many[2].result() == [1, 2, 3, 4, 5], "by number"
    assert [future.result() for future in small] == [number * number for number in range(200)]
    assert list(total.map([1, 2])) == list(mpiflow.map(total, [1, 2])) == [(3, 3), (3, 6)]
    chained = total(square(3))
    assert chained.result() == (3, 27), "futures are arguments as ever"
    print("all right")
"""
    assert jobs.run(script, ranks=6).well() == "all right\n"


def test_two_gangs_run_at_once(jobs: Jobs) -> None:
    """Each waits for a file of the other's."""
    script = APPS + """
    @mpi_app(ranks=2)
    def meets(mine, other, comm):
        if comm.rank == 0:
            open(mine, "w").close()
            while not os.path.exists(other):
                time.sleep(0.01)
        comm.barrier()
        return comm.size

    first, second = meets("a", "b"), meets("b", "a")
    print(first.result(), second.result())
"""
    assert jobs.run(script, ranks=5).well() == "2 2\n"


def test_what_cannot_run_is_told_in_words(jobs: Jobs) -> None:
    script = APPS + """
    ranks(parsl_resource_specification=of(2)).result()  # all have reported
    print(failure(ranks(parsl_resource_specification=of(9))))
    print(failure(ranks(parsl_resource_specification={"num_nodes": 2, "ranks_per_node": 2})))
    print(failure(ranks()))
    print(failure(ranks(parsl_resource_specification={"ranks": 2})))
    print(failure(ranks(parsl_resource_specification={"num_ranks": 3, "ranks_per_node": 2})))
    print(failure(ranks(parsl_resource_specification=of("many"))))
    print(failure(ranks(parsl_resource_specification=of(2), memory="1GB")))
    for wrong in (lambda: mpi_app(lambda x: x), lambda: mpi_app(ranks=0), lambda: mpi_app(ranks=2)(7)):
        try:
            wrong()
        except TypeError as error:
            print(error)
    squares_are_right()
"""
    out = jobs.run(script, ranks=3).well().splitlines()
    assert [re.sub(r"task \d+", "task", line) for line in out] == [
        "task (ranks) asks for 9 ranks, and its executor has 2 ranks on 1 node",
        "task (ranks) asks for 2 ranks on each of 2 nodes, and its executor has 2 ranks on 1 node",
        "Invalid Resource Specification Supplied: set(). ranks: nobody says on how many ranks it runs: "
        "@mpi_app(ranks=4), or in the call parsl_resource_specification={'num_ranks': 4}",
        "Invalid Resource Specification Supplied: {'ranks'}. task (ranks): an mpi_app takes only num_ranks, num_nodes, "
        "ranks_per_node, priority in a resource specification",
        "Invalid Resource Specification Supplied: {'num_ranks'}. task (ranks): {'num_ranks': 3, 'ranks_per_node': 2} "
        "is no number of ranks: num_ranks is num_nodes times ranks_per_node",
        "Invalid Resource Specification Supplied: {'num_ranks'}. task (ranks): num_ranks is 'many'; legal is a whole "
        "number from 1 up",
        "task (ranks): executor 'mpi' cannot hold memory=1000000000 bytes: its tasks run in the ranks themselves; use "
        "an MPIExecutor with isolation 'runner' or 'task'",
        "mpi_app: <lambda> has no parameter comm, in which it is given its communicator",
        "mpi_app: num_ranks is 0; legal is a whole number from 1 up",
        "an app is made of a function, not of int: 7",
    ]


@pytest.mark.parametrize("form", ["plain", "lone"])
def test_without_mpi_one_rank_runs_and_more_fail_in_words(jobs: Jobs, form: str) -> None:
    script = APPS + """
    if __name__ == "__main__":
        mpiflow.load()
        print(ranks(parsl_resource_specification=of(1)).result())
        print(type(failure(total(1))).__name__, failure(total(1)))
"""
    out = jobs.run(script, form=form).well()
    words = "asks for 3 ranks, and without MPI there is one; start the script with mpiexec"
    assert re.sub(r"task \d+", "task", out) == f"[0]\nNotEnoughRanks task (total) {words}\n"


def test_exception_on_one_member_fails_the_task_and_says_where(jobs: Jobs, launcher: Mpiexec) -> None:
    script = APPS + """
    def wrong():
        raise ValueError("not today")

    error = failure(four(wrong))
    print(type(error).__name__, error)
    print(error.__cause__)
    squares_are_right()
    print("goes on")
"""
    ended = jobs.run(script, ranks=6)
    assert ended.code == 0, str(ended)
    assert ended.out.startswith("ValueError not today\n")
    assert "On rank 2 of the 4 in its communicator (rank " in ended.out
    assert 'raise ValueError("not today")' in ended.out
    assert ended.out.endswith("goes on\n")
    if launcher.flavour == "openmpi":
        assert ended.err == "", "the others have come back"
    else:
        assert len(re.findall("was called off, and has not come back", ended.err)) == 3
        assert "2 workers go on" in ended.err
    assert not noise(ended.err)


def test_leaving_and_results_that_cannot_travel(jobs: Jobs) -> None:
    """Of a result only that of the first rank has to be picklable."""
    script = APPS + """
    @mpi_app(ranks=2)
    def returns(where, comm):
        return __import__("threading").Lock() if comm.rank == where else comm.size

    @mpi_app(ranks=2)
    def leaves(comm):
        sys.exit(3)

    print(returns(1).result())
    print(failure(returns(0)))
    print(failure(leaves()))
    print(total(2).result())
"""
    out = jobs.run(script, ranks=4).well()
    lines = [re.sub(r"task \d+", "task", line) for line in out.splitlines()]
    assert lines[0] == "2"
    assert lines[1].startswith("task (returns): its result of type lock cannot be pickled")
    assert lines[2] == "task (leaves): called sys.exit(3)"
    assert lines[3] == "(3, 6)"


def test_a_member_that_dies_costs_its_rank_and_the_gang_runs_again(jobs: Jobs, launcher: Mpiexec) -> None:
    """The others are blocked in a collective meanwhile; with MPICH they have to go as well."""
    script = APPS + """
    def dies_once():
        if not os.path.exists("died"):
            open("died", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)

    small = [square(number) for number in range(100)]
    error = None
    try:
        print("ran again on", len(four(dies_once).result()), "ranks")
    except NotEnoughRanks as lost:
        print(lost)
    assert [future.result() for future in small] == [number * number for number in range(100)]
    print("goes on with", ranks(parsl_resource_specification=of(1)).result()[0] > 0)
    sys.exit(5)
"""
    ended = jobs.run(script, ranks=7)
    assert ended.code == 5, str(ended)
    assert not noise(ended.err), str(ended)
    if launcher.flavour == "openmpi":
        assert ended.out == "ran again on 4 ranks\ngoes on with True\n"
        assert "MPI reports its death" in ended.err
        assert ended.err.count("is lost") == 1, str(ended)
    else:
        words = r"task \d+ \(four\) asks for 4 ranks, and its executor has 2 ranks on 1 node; 4 of the job's 6 workers "
        assert re.fullmatch(words + "are lost or out of service\ngoes on with True\n", ended.out), str(ended)
        assert ended.err.count("is lost: its guardian reports its death") == 4, str(ended)


def test_a_death_while_other_gangs_are_just_starting_costs_the_ranks_of_one_gang_at_most(jobs: Jobs) -> None:
    """Its partner waits for it, in the making of their communicator or later; no other gang notices."""
    script = APPS + """
    @mpi_app(ranks=2)
    def twice(number, comm):
        return comm.allreduce(number)

    @mpi_app(ranks=1)
    def process(comm):
        return os.getpid()

    victim = process().result()
    futures = [twice(number) for number in range(300)]
    futures[30].result()
    os.kill(victim, signal.SIGKILL)
    print([future.result() for future in futures] == [2 * number for number in range(300)])
"""
    ended = jobs.run(script, ranks=7, limit=120.0)
    assert (ended.code, ended.out) == (0, "True\n"), str(ended)
    assert ended.err.count("is lost") <= 2, str(ended)


def test_two_deaths_among_gangs_of_changing_ranks_cost_no_result(jobs: Jobs) -> None:
    """What is made after a death has other parents, and these can die, too."""
    script = APPS + """
    @mpi_app(ranks=2)
    def two(number, comm):
        return comm.allreduce(number)

    @mpi_app(ranks=3)
    def three(number, comm):
        return comm.allreduce(number)

    @mpi_app(ranks=1)
    def process(comm):
        time.sleep(0.05)
        return os.getpid()

    first, second = sorted({future.result() for future in [process() for _ in range(20)]})[:2]
    futures = [(two, three)[number % 2](number) for number in range(400)]
    for victim, number in (first, 100), (second, 250):
        futures[number].result()
        os.kill(victim, signal.SIGKILL)
    print([future.result() for future in futures] == [(2, 3)[number % 2] * number for number in range(400)])
"""
    ended = jobs.run(script, ranks=10, limit=120.0)
    assert (ended.code, ended.out) == (0, "True\n"), str(ended)
    assert ended.err.count("is lost") <= 6, str(ended)


def test_walltime_ends_a_gang_that_computes_or_sleeps(jobs: Jobs) -> None:
    """Python code comes back wherever it is, and no rank is lost."""
    script = APPS + """
    @mpi_app(ranks=3, walltime=0.5)
    def sleeps(comm):
        time.sleep(600)

    @mpi_app(ranks=3)
    def computes(comm):
        while True:
            pass

    print(type(failure(sleeps())).__name__, failure(computes(walltime=0.5)))
    print(total(2).result())
"""
    out = jobs.run(script, ranks=4).well()
    assert out == "AppTimeout App computes exceeded walltime: 0.5 seconds\n(3, 6)\n"


def test_walltime_ends_a_collective_that_never_ends(jobs: Jobs, launcher: Mpiexec) -> None:
    script = APPS + """
    @mpi_app(ranks=3, walltime=0.5)
    def waits(comm):
        if comm.rank:
            comm.barrier()
        else:
            comm.recv(source=1)

    print(failure(waits()))
    print(ranks(parsl_resource_specification=of(2)).result()[0] > 0)
    squares_are_right()
"""
    ended = jobs.run(script, ranks=6)
    assert (ended.code, ended.out) == (0, "App waits exceeded walltime: 0.5 seconds\nTrue\n"), str(ended)
    if launcher.flavour == "openmpi":
        assert ended.err == ""
    else:
        assert ended.err.count("has not come back from MPI") == 3, str(ended)


def test_kill_and_cancel(jobs: Jobs) -> None:
    """One that runs is called off; one that waits is taken back; their ranks are there again."""
    script = APPS + """
    @mpi_app(ranks=3)
    def sleeps(comm):
        if comm.rank == 0:
            open("runs", "w").close()
        time.sleep(600)

    runs, waits, after = sleeps(), sleeps(), total(2)
    while not os.path.exists("runs"):
        mpiflow.dfk().counts()
        time.sleep(0.01)
    print(waits.cancel(), waits.cancelled(), runs.cancel())
    print(runs.kill(), failure(runs))
    print(after.result())
"""
    out = jobs.run(script, ranks=4).well()
    assert re.sub(r"task \d+", "task", out) == (
        "True True False\nTrue task (sleeps) was ended by kill()\n(3, 6)\n"
    )


def test_the_script_ends_while_a_gang_runs(jobs: Jobs) -> None:
    script = APPS + """
    @mpi_app(ranks=2)
    def sleeps(comm):
        open(str(comm.rank), "w").close()
        time.sleep(600)

    future = sleeps()
    while not (os.path.exists("0") and os.path.exists("1")):
        time.sleep(0.01)
    sys.exit(4)
"""
    ended = jobs.run(script, ranks=4)
    assert ended.code == 4, str(ended)
    assert ended.seconds < 25
    assert not noise(ended.err), str(ended)


def test_retries_try_the_whole_gang_again_and_results_are_remembered(jobs: Jobs) -> None:
    script = APPS + """
    mpiflow.clear()
    mpiflow.load(mpiflow.Config(retries=2))

    @mpi_app(ranks=2)
    def third_time(comm):
        comm.barrier()
        if comm.rank == 1:
            with open("tries", "a") as file:
                file.write("x")
        comm.barrier()
        if os.path.getsize("tries") < 3:
            raise ValueError("too early")
        return comm.size

    @mpi_app(ranks=2, cache=True)
    def remembered(x, comm):
        with open("calls", "a") as file:
            file.write("x")
        return x * comm.size

    print(third_time().result(), os.path.getsize("tries"))
    print(remembered(3).result(), remembered(3).result(), os.path.getsize("calls"))
"""
    assert jobs.run(script, ranks=4).well() == "2 3\n6 6 2\n"
    again = script.replace('print(third_time().result(), os.path.getsize("tries"))', "pass")
    ended = jobs.run(again, ranks=4)
    assert (ended.out, ended.err) == ("6 6 2\n", "mpiflow: 1 result was taken from earlier runs\n"), str(ended)


def test_a_gang_that_runs_may_end_when_the_time_is_near(jobs: Jobs) -> None:
    """Nothing new is begun; the job ends with 85, and the next one goes on from what it kept."""
    script = APPS + """
    @mpi_app(ranks=2, cache=True)
    def gated(number, comm):
        if comm.rank == 0:
            open(f"begun.{number}", "w").close()
        while not os.path.exists("gate"):
            time.sleep(0.02)
        return comm.allreduce(number)

    futures = [gated(number) for number in range(3)]
    print("called", flush=True)
    print([future.result() for future in futures])
"""
    running = jobs.start(script, ranks=3).shows("called")
    wait_for(jobs.directory / "begun.0")
    running.process.send_signal(signal.SIGUSR1)
    while "draining: SIGUSR1" not in running.err and running.process.poll() is None:
        time.sleep(0.02)
    (jobs.directory / "gate").touch()
    ended = running.wait()
    assert (ended.code, ended.out) == (DRAINED, "called\n"), str(ended)
    assert not (jobs.directory / "begun.1").exists()
    again = jobs.run(script, ranks=3)
    assert (again.code, again.out) == (0, "called\n[0, 2, 4]\n"), str(again)
    assert "1 result was taken from earlier runs" in again.err


def test_a_member_that_holds_pythons_lock_is_not_judged_by_its_silence(jobs: Jobs, launcher: Mpiexec) -> None:
    """It computes in C, and no other thread of it runs meanwhile."""
    script = APPS + """
    @mpi_app(ranks=2)
    def silent(comm):
        import ctypes
        ctypes.PyDLL(None).sleep(4)  # keeps the lock, unlike CDLL
        return comm.allreduce(1)

    print(silent().result())
"""
    assert jobs.run(script, ranks=3, options=["--heartbeat-threshold", "1.5"]).well() == "2\n"


def test_stacks_of_ranks_that_are_in_a_gang(jobs: Jobs) -> None:
    """The ranks answer while they are inside a collective."""
    script = APPS + """
    @mpi_app(ranks=2)
    def stuck(comm):
        if comm.rank == 1:
            while not os.path.exists("go"):
                time.sleep(0.01)
        comm.barrier()
        return comm.size

    future = stuck()
    print(mpiflow.dfk().run_dir, flush=True)
    print(future.result())
"""
    running = jobs.start(script, ranks=3).shows("/")
    directory = running.out.splitlines()[0]
    line = [sys.executable, "-m", "mpiflow", "doctor", "--stacks", directory]
    asked = jobs.command(line).wait()
    (jobs.directory / "go").touch()
    assert running.wait().code == 0
    assert asked.out.count("stuck") >= 2, str(asked)
    assert "comm.barrier()" in asked.out


def test_without_protection_a_rank_that_never_comes_back_is_given_up(jobs: Jobs, launcher: Mpiexec) -> None:
    """Its death would be the end of the job, so it stays, and gets nothing more."""
    if launcher.flavour != "hydra":
        pytest.skip("Open MPI without ULFM: the same, and its launcher is noisy about the forced end")
    script = APPS + """
    def wrong():
        raise ValueError("not today")

    print(failure(four(wrong)))
    end = time.monotonic() + 3  # longer than a sign of life takes
    while time.monotonic() < end:
        squares_are_right()
    print("goes on", flush=True)
    sys.exit(3)
"""
    options = ["--no-guardian", "--heartbeat-threshold", "8"]
    ended = jobs.run(script, ranks=6, options=options, limit=90.0)
    assert ended.out.startswith("not today\ngoes on\n"), str(ended)
    assert "is heard of again" not in ended.err, str(ended)
    assert ended.err.count("is lost: it does not come back from task 0 (four)") == 3, str(ended)
