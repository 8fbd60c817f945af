"""Executors, providers and launchers of Parsl's: what takes effect, what is ignored, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from mpiflow.errors import ConfigurationError
from mpiflow.executors.mpi import MPIExecutor as Farm
from mpiflow.parsl import ignored as ignored_module
from mpiflow.parsl import launchers, providers
from mpiflow.parsl.accepted import Accepted
from mpiflow.parsl.executors import HighThroughputExecutor
from mpiflow.parsl.ignored import HIGH_THROUGHPUT, MPI, ignored, take_ignored
from mpiflow.parsl.monitoring import UDPRadio


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ignored_module, "_said", set())


def test_what_means_something_reaches_the_farm(capsys: pytest.CaptureFixture[str]) -> None:
    executor = HighThroughputExecutor(
        "cpu", max_workers_per_node=4, working_dir="/w", storage_access=[], prefetch_capacity=2
    )
    assert isinstance(executor, Farm)
    assert (executor.label, executor.working_dir, executor.storage_access) == ("cpu", "/w", [])
    assert (executor.prefetch, executor.max_workers_per_node) == (2, 4)
    assert HighThroughputExecutor().label == "HighThroughputExecutor"
    assert capsys.readouterr() == ("", "")


def test_the_rest_is_ignored_in_one_line_that_names_it_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        executor = HighThroughputExecutor(
            provider=providers.SlurmProvider("debug", launcher=launchers.SrunLauncher()),
            encrypted=False,
            cores_per_worker=2,
        )
    line = "mpiflow: HighThroughputExecutor: ignored, for it means nothing in one MPI job: "
    assert capsys.readouterr().err == f"{line}encrypted, cores_per_worker, provider (SlurmProvider)\n"
    assert executor.provider.partition == "debug", "programs look at it, and change it"
    assert (executor.encrypted, executor.heartbeat_period) == (False, 30)


def test_another_set_of_parameters_is_another_line(capsys: pytest.CaptureFixture[str]) -> None:
    ignored("X", {"a": 1})
    ignored("X", {"a": 2})
    ignored("X", {"b": 1})
    ignored("X", {})
    assert [line.rsplit(": ", 1)[1] for line in capsys.readouterr().err.splitlines()] == ["a", "b"]


def test_what_parsl_does_not_have_either_is_a_type_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TypeError, match=r"HighThroughputExecutor\(\) got an unexpected keyword argument 'max_worker'"):
        HighThroughputExecutor(max_worker=3, encrypted=True)
    with pytest.raises(TypeError, match=r"^M\(\) got an unexpected keyword argument 'cores_per_worker'"):
        take_ignored("M", {"encrypted": True, "cores_per_worker": 1}, MPI)
    assert capsys.readouterr().err == "", "nothing is ignored where all is refused"


@pytest.mark.parametrize("workers", [0, -1, 1.5, "4", True])
def test_a_bad_number_of_workers_is_named_also_when_it_is_set_later(workers: Any) -> None:
    words = r"HighThroughputExecutor: max_workers_per_node is .*; legal is a whole number from 1 up"
    with pytest.raises(ConfigurationError, match=words):
        HighThroughputExecutor(max_workers_per_node=workers)
    executor = HighThroughputExecutor()
    executor.max_workers_per_node = workers
    with pytest.raises(ConfigurationError, match=words):
        executor.start()


def test_the_tables_have_parsls_parameters() -> None:
    assert len(HIGH_THROUGHPUT) == 20
    assert not {"max_workers_per_block", "mpi_launcher"} & MPI.keys(), "these have an effect"
    assert MPI["encrypted"] is False
    assert not {"label", "storage_access", "working_dir", "drain_period"} & (HIGH_THROUGHPUT.keys() | MPI.keys())


# --- objects -------------------------------------------------------------------------------------------


def kinds() -> list[type[Accepted]]:
    found = [vars(module).values() for module in (providers, launchers)]
    return [one for values in found for one in values if isinstance(one, type) and issubclass(one, Accepted)]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_one_takes_its_parameters_and_no_other(kind: type[Accepted]) -> None:
    needed = dict.fromkeys(kind.required, "x")
    made = kind(**needed)
    for name, default in kind.optional.items():
        assert getattr(made, name) == default
        assert getattr(kind(**needed, **{name: "other"}), name) == "other"
    with pytest.raises(TypeError, match=f"{kind.__name__}.* got an unexpected keyword argument 'nodes_per_blok'"):
        kind(**needed, nodes_per_blok=1)
    with pytest.raises(AttributeError, match="has no attribute 'nodes'"):
        made.nodes  # noqa: B018
    assert repr(pickle.loads(pickle.dumps(made))) == repr(made)
    names = {one.__name__: one for one in kinds()}
    assert repr(eval(repr(made), names)) == repr(made)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: launchers.WrappedLauncher(), r"WrappedLauncher\(\) misses required arguments: 'prepend'"),
        (lambda: launchers.SimpleLauncher(True, True), r"SimpleLauncher\(\) takes at most 1 positional arguments, 2"),
        (lambda: providers.SlurmProvider("a", partition="b"), r"multiple values for argument 'partition'"),
        (lambda: UDPRadio("127.0.0.1"), r"UDPRadio\(\) takes at most 0 positional arguments, 1 were given"),
    ],
)
def test_what_parsl_refuses_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        make()
