"""Programs of several nodes: what a specification may say, and what stands in the environment of the task."""

from __future__ import annotations

import os
import shlex
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from mpiflow.comm import wire
from mpiflow.comm.pickling import pack, unpack
from mpiflow.errors import ConfigurationError, InvalidResourceSpecification
from mpiflow.executors.base import Submission
from mpiflow.executors.mpi import MPIExecutor as Farm
from mpiflow.executors.orders import count_of, shape_of
from mpiflow.executors.programs import Program, check_specification, variables_of
from mpiflow.farm.gangs import Shape
from mpiflow.kernel.app import App
from mpiflow.kernel.task import Task
from mpiflow.parsl.executors import HighThroughputExecutor, MPIExecutor


def task_of(resources: dict[str, Any]) -> Task:
    return cast(Task, SimpleNamespace(resources=resources, words="task 7 (f)"))


def test_the_environment_is_that_of_parsls_mpi_mode() -> None:
    specification = {"num_nodes": 2, "ranks_per_node": 4, "launcher_options": "--label"}
    assert variables_of(specification, (2, 0, 4), ["n1", "n2"], "srun", open_mpi=False) == {
        "PARSL_NUM_NODES": "2",
        "PARSL_NUM_RANKS": "8",
        "PARSL_RANKS_PER_NODE": "4",
        "PARSL_LAUNCHER_OPTIONS": "--label",
        "PARSL_MPI_NODELIST": "n1,n2",
        "PARSL_MPI_PREFIX": "srun --ntasks 8 --ntasks-per-node 4 --nodelist n1,n2 --nodes 2 --label",
        "PARSL_SRUN_PREFIX": "srun --ntasks 8 --ntasks-per-node 4 --nodelist n1,n2 --nodes 2 --label",
        "PARSL_APRUN_PREFIX": "aprun -n 8 -N 4 -node-list n1,n2 --label",
        "PARSL_MPIEXEC_PREFIX": "mpiexec -n 8 -ppn 4 -hosts n1,n2 --label",
    }


@pytest.mark.parametrize(
    ("counts", "ranks", "per_node"), [((2, 8, 0), "8", "4"), ((2, 7, 0), "7", "4"), ((3, 0, 0), "3", "1")]
)
def test_the_missing_count_follows_from_the_other(counts: tuple[int, int, int], ranks: str, per_node: str) -> None:
    found = variables_of({"num_nodes": counts[0]}, counts, ["a"], "mpiexec", open_mpi=False)
    assert (found["PARSL_NUM_RANKS"], found["PARSL_RANKS_PER_NODE"]) == (ranks, per_node)


def test_open_mpis_mpiexec_is_spoken_to_in_its_own_words() -> None:
    found = variables_of({"num_nodes": 2}, (2, 4, 2), ["a", "b"], "mpiexec", open_mpi=True)
    assert shlex.split(found["PARSL_MPI_PREFIX"]) == [
        "mpiexec", "-n", "4", "--map-by", "ppr:2:node", "--host", "a:2,b:2",
    ]  # fmt: skip


def test_the_arguments_open_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PARSL_MPI_NODELIST", raising=False)
    beside: list[Any] = []
    array = np.arange(100_000)
    packed = pack(((array,), {"x": 1}), beside)
    assert beside
    program = Program({"num_nodes": 1}, (1, 2, 0), "mpiexec", False, wire.TASK, packed, beside)
    payload, attached = program.record(["n7"])
    (args, kwargs) = unpack(payload, attached)
    assert (args[0] == array).all()
    args[0][0] = 1  # its own, as any argument is
    assert kwargs == {"x": 1}
    assert os.environ["PARSL_MPI_NODELIST"] == "n7"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"num_nodes": 1, "cores": 2}, r"\{'cores'\}. task: an MPIExecutor takes only num_nodes, num_ranks, "),
        ({"num_ranks": 2}, "num_nodes is missing, and only whole nodes are given out"),
    ],
)
def test_a_specification_that_is_none(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidResourceSpecification, match=words):
        check_specification(given, "task")


@pytest.mark.parametrize("wrong", [0, -1, True, "x", 1.5, "-2"])
def test_a_count_that_is_none(wrong: object) -> None:
    with pytest.raises(InvalidResourceSpecification, match=r"task 7 \(f\): num_nodes is .*; legal is a whole number"):
        count_of(task_of({"num_nodes": wrong}), "num_nodes")


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ({"num_ranks": 4}, Shape(4)),
        ({"num_ranks": "4", "priority": 2}, Shape(4)),
        ({"num_nodes": 2, "ranks_per_node": 3}, Shape(6, 2, 3)),
        ({"num_nodes": 2, "num_ranks": 4}, Shape(4, 2, 2)),
        ({"num_ranks": 6, "ranks_per_node": 2}, Shape(6, 3, 2)),
        ({"num_nodes": 3}, Shape(3, 3, 1)),
    ],
)
def test_shapes_of_an_mpi_app(given: dict[str, Any], shape: Shape) -> None:
    assert shape_of(task_of(given)) == shape


@pytest.mark.parametrize(
    "given",
    [{"num_nodes": 2, "num_ranks": 3}, {"ranks_per_node": 2}, {"num_nodes": 2, "ranks_per_node": 2, "num_ranks": 5},
     {"num_ranks": 1, "ranks_per_node": 2}, {"num_nodes": 2, "num_ranks": 1}],
)  # fmt: skip
def test_shapes_that_do_not_come_out_even(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidResourceSpecification, match="is no number of ranks: num_ranks is num_nodes times"):
        shape_of(task_of(given))


def test_parsls_parameters_take_effect(capsys: pytest.CaptureFixture[str]) -> None:
    parsls = MPIExecutor(mpi_launcher="srun", max_workers_per_block=3)
    assert (parsls.mpi_launcher, parsls.max_workers_per_block) == ("srun", 3)
    assert (MPIExecutor().mpi_launcher, MPIExecutor().max_workers_per_block) == ("mpiexec", 1)
    ours = Farm(mpi_launcher="aprun")
    assert (ours.mpi_launcher, ours.max_workers_per_block) == ("aprun", None)
    assert capsys.readouterr().err == "", "nothing of this is ignored"
    with pytest.raises(ValueError, match="mpi_launcher is 'mpirun'; legal are 'srun', 'aprun', 'mpiexec'"):
        MPIExecutor(mpi_launcher="mpirun")
    with pytest.raises(ConfigurationError, match="max_workers_per_block is 0; legal is a whole number from 1 up"):
        MPIExecutor(max_workers_per_block=0)
    with pytest.raises(TypeError, match="mpi_launcher"):
        HighThroughputExecutor(mpi_launcher="srun")


def test_in_parsls_mpi_mode_every_task_says_what_it_wants() -> None:
    executor = MPIExecutor()
    refused: list[Any] = []
    executor._exchange = cast(Any, SimpleNamespace(refuse=lambda tasks, why: refused.append((tasks, why(tasks[0])))))
    task = Task(3, App(len), (), {})
    stages = Task(4, App(variables_of), (), {})
    given: list[list[Submission]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Farm, "submit_bulk", lambda self, tasks: given.append(tasks))
        executor.submit_bulk([(task, (), {}), (stages, (), {})])
    assert given == [[(stages, (), {})]], "what mpiflow itself does is not asked"
    (([failed], error),) = refused
    assert failed is task
    assert isinstance(error, InvalidResourceSpecification)
    assert "MPI mode requires optional parsl_resource_specification keyword argument to be configured" in str(error)


@pytest.mark.parametrize(
    ("variables", "given", "runners"),
    [
        ({"PARSL_CORES": "8"}, {}, 8),
        ({"PARSL_CORES": "8"}, {"cores_per_worker": 2}, 4),
        ({"PARSL_CORES": "8"}, {"max_workers_per_node": 3}, 3),
        ({"PARSL_MEMORY_GB": "10"}, {"mem_per_worker": 3}, 3),
        ({"PARSL_MEMORY_GB": "10"}, {}, None),
        ({"PARSL_CORES": "1", "PARSL_MEMORY_GB": "1"}, {"mem_per_worker": 4}, 1),
        ({}, {"cores_per_worker": 2}, None),
    ],
)
def test_cores_and_memory_bound_the_workers_of_a_node(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], given: dict[str, Any], runners: int | None
) -> None:
    for name in ("PARSL_CORES", "PARSL_MEMORY_GB"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Farm, "start", lambda self: None)
    executor = HighThroughputExecutor(**given)
    executor.start()
    assert executor.runners_per_rank == runners


def test_a_variable_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARSL_CORES", "many")
    with pytest.raises(ConfigurationError, match=r"PARSL_CORES is 'many' and cores_per_worker is 1\.0; legal are "):
        HighThroughputExecutor().start()

