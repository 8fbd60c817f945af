"""Programs of several nodes: whole nodes are given out, and an mpiexec in a task starts the program there."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Jobs, Mpiexec, Running

pytestmark = [pytest.mark.usefixtures("launcher"), pytest.mark.timeout(180)]

SCRIPT = """
    import os, sys, time
    import mpiflow
    from mpiflow import bash_app, mpi_app, python_app
    from mpiflow.errors import *

    @bash_app
    def program(line, stdout=None, stderr="err", parsl_resource_specification={}):
        return f"$PARSL_MPI_PREFIX {line}"

    @python_app
    def variables(parsl_resource_specification={}):
        return {name: value for name, value in os.environ.items() if name.startswith("PARSL_")}

    @python_app
    def where(seconds=0.02):
        time.sleep(seconds)
        return os.uname().nodename
"""


def on_nodes(jobs: Jobs, script: str, ranks: int) -> Running:
    """Start a script with rank 0 on node0, and two ranks on each of node1, node2, ..."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("only root may give a process a host name of its own")
    jobs.write("host.sh", 'R=${PMI_RANK:-$OMPI_COMM_WORLD_RANK}; hostname "node$(( (R + 1) / 2 ))"; exec "$@"\n')
    line = jobs.line("mpiexec", ranks, [str(jobs.write("script.py", script))])
    program = line.index("-m") - 1
    return jobs.command([*line[:program], "unshare", "--uts", "sh", str(jobs.directory / "host.sh"), *line[program:]])


def test_a_program_runs_by_the_prefix(jobs: Jobs, launcher: Mpiexec) -> None:
    """The same MPI nested in a task, several times one after the other on the one node there is."""
    options = " ".join(flag for flag in launcher.flags if flag not in ("--with-ft", "ulfm"))
    script = SCRIPT + f"""
    one = {{"num_nodes": 1, "num_ranks": 2, "launcher_options": {options!r}}}
    line = {sys.executable!r} + " -c 'from mpi4py import MPI; print(MPI.COMM_WORLD.allreduce(1))'"
    small = [where() for _ in range(20)]
    several = [program(line, stdout=(f"out{{number}}", "w"), parsl_resource_specification=one) for number in range(3)]
    assert [future.result() for future in several] == [0, 0, 0]
    print([sorted(open(f"out{{number}}").read().replace("\\n", "")) for number in range(3)])
    error = program("false", parsl_resource_specification=one).exception()
    print(type(error).__name__)
    print(len({{future.result() for future in small}}), variables().result())
"""
    ours = os.path.dirname(launcher.path)
    env = {"PATH": f"{ours}:{os.environ['PATH']}"}
    out = jobs.run(script, ranks=4, env=env, limit=90.0).well()
    assert out == "[['2', '2'], ['2', '2'], ['2', '2']]\nBashExitFailure\n1 {}\n"


def test_whole_nodes_are_given_out_and_come_back(jobs: Jobs) -> None:
    script = SCRIPT + """
    @python_app
    def holds(mine, parsl_resource_specification={}):
        open(mine, "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
        return os.environ["PARSL_MPI_NODELIST"], os.uname().nodename

    two, one = {"num_nodes": 2, "ranks_per_node": 2}, {"num_nodes": 1}
    held = holds("held", parsl_resource_specification=two)
    while not os.path.exists("held"):
        time.sleep(0.01)
    seen = {future.result() for future in [where() for _ in range(40)]}
    waits = variables(parsl_resource_specification={"num_nodes": 3, "ranks_per_node": 4, "launcher_options": "-l"})
    killed = holds("never", parsl_resource_specification=two)
    open("go", "w").close()
    nodes, first = held.result()
    assert first == nodes.split(",")[0], (first, nodes)
    assert not seen & set(nodes.split(",")), (seen, nodes)
    found = waits.result()
    print(found["PARSL_MPI_NODELIST"], found["PARSL_NUM_RANKS"], found["PARSL_SRUN_PREFIX"])
    killed.result()
    os.remove("go")
    killed = holds("runs", parsl_resource_specification={"num_nodes": 3})
    while not os.path.exists("runs"):
        time.sleep(0.01)
    print(killed.kill(), len({future.result() for future in [where() for _ in range(60)]}))
    try:
        variables(parsl_resource_specification={"num_nodes": 4}).result()
    except NotEnoughRanks as error:
        print(error)
"""
    out = on_nodes(jobs, script, 7).wait().well().splitlines()
    assert out[0] == (
        "node1,node2,node3 12 srun --ntasks 12 --ntasks-per-node 4 --nodelist node1,node2,node3 --nodes 3 -l"
    )
    assert out[1] == "True 3"
    assert out[2].endswith("(variables) asks for 4 whole nodes, and its executor has 6 ranks on 3 nodes")


def test_a_gang_by_nodes_comes_by_node_and_then_by_rank(jobs: Jobs) -> None:
    script = SCRIPT + """
    @mpi_app(nodes=2, ranks_per_node=2)
    def names(comm):
        return comm.gather(os.uname().nodename)

    assert len(names(parsl_resource_specification={"num_ranks": 6}).result()) == 6  # all have reported
    print(names().result())
    print(names(parsl_resource_specification={"num_ranks": 3, "ranks_per_node": 1}).result())
    print(names(parsl_resource_specification={"num_nodes": 2, "ranks_per_node": 3}).exception())
"""
    out = on_nodes(jobs, script, 7).wait().well().splitlines()
    assert out[0] == "['node1', 'node1', 'node2', 'node2']"
    assert out[1] == "['node1', 'node2', 'node3']"
    assert out[2].endswith("asks for 3 ranks on each of 2 nodes, and its executor has 6 ranks on 3 nodes")


def test_parsls_executor_lets_so_many_run_and_refuses_what_asks_for_nothing(jobs: Jobs) -> None:
    script = SCRIPT + """
    from mpiflow.parsl.executors import MPIExecutor
    mpiflow.clear()
    mpiflow.load(mpiflow.Config(executors=[MPIExecutor(max_workers_per_block=1, mpi_launcher="aprun")]))

    @python_app
    def alone(parsl_resource_specification={}):
        os.mkdir("mine")
        time.sleep(0.1)
        os.rmdir("mine")
        return os.environ["PARSL_MPI_PREFIX"]

    print({future.result() for future in [alone(parsl_resource_specification={"num_nodes": 1}) for _ in range(5)]})
    for wrong in ({}, {"cores": 1}):
        print(alone(parsl_resource_specification=wrong).exception())
    told = variables(parsl_resource_specification={"num_nodes": 1}).result()
    print(told["PARSL_WORKER_POOL_ID"], told["PARSL_MPI_NODELIST"], told["PARSL_WORKER_RANK"] in ("0", "1"))
"""
    out = on_nodes(jobs, script, 5).wait().well().splitlines()
    assert out[0].replace("node2", "node1").startswith("{'aprun -n 1 -N 1 -node-list node1 '")
    assert out[1].endswith("MPI mode requires optional parsl_resource_specification keyword argument to be configured")
    assert "takes only num_nodes, num_ranks, ranks_per_node, launcher_options and priority" in out[2]
    pool, nodes, known = out[3].split()
    assert (pool, known) == (nodes, "True"), "as in Parsl, whose MPIExecutor is a HighThroughputExecutor"
