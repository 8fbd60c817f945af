"""What a runner is bound to, and the variables that say so."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpiflow.errors import ConfigurationError
from mpiflow.executors.mpi import MPIExecutor, accelerators
from mpiflow.worker.binding import Place, own_processors, processors, variables

EIGHT = list(range(8))


@pytest.mark.parametrize(
    ("affinity", "expected"),
    [
        ("none", [None, None, None]),
        ("block", [[0, 1], [2, 3], [4, 5]]),
        ("block-reverse", [[4, 5], [2, 3], [0, 1]]),
        ("alternating", [[0, 3], [1, 4], [2, 5]]),
        ("list:0-1:5,7:2", [[0, 1], [5, 7], [2]]),
        ("list:6:7", [[6], [7], [6]]),
    ],
)
def test_processors_are_shared_out(affinity: str, expected: list[list[int] | None]) -> None:
    assert [processors(slot, 3, EIGHT, affinity) for slot in range(3)] == expected


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from(["block", "block-reverse", "alternating"]))
def test_every_runner_has_some_and_none_has_anothers_while_there_are_enough(
    slots: int, cpus: int, affinity: str
) -> None:
    mine = list(range(100, 100 + cpus))
    bound = [processors(slot, slots, mine, affinity) or [] for slot in range(slots)]
    assert all(own and set(own) <= set(mine) for own in bound)
    if slots <= cpus:
        taken = [cpu for own in bound for cpu in own]
        assert len(taken) == len(set(taken))


def test_variables_are_those_that_parsls_programs_look_for() -> None:
    assert variables(1, 4, Place(), None, ()) == {
        "PARSL_WORKER_RANK": "1",
        "PARSL_WORKER_COUNT": "4",
        "PARSL_WORKER_POOL_ID": os.uname().nodename,
        "PARSL_WORKER_BLOCK_ID": "0",
    }
    bound = variables(0, 4, Place(), [2, 3], ("a",))
    assert (bound["OMP_NUM_THREADS"], bound["GOMP_CPU_AFFINITY"]) == ("2", "2,3")
    assert bound["KMP_AFFINITY"] == "explicit,proclist=[2,3]"
    assert {bound[name] for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")} == {"a"}
    assert bound["ZE_ENABLE_PCI_ID_DEVICE_ORDER"] == "1"


@given(st.integers(1, 4), st.integers(1, 4))
def test_workers_of_a_node_share_its_accelerators_without_doubles(workers: int, slots: int) -> None:
    names = tuple(map(str, range(workers * slots)))
    given_out = [
        variables(slot, slots, Place(index, workers), None, names)["CUDA_VISIBLE_DEVICES"]
        for index in range(workers)
        for slot in range(slots)
    ]
    assert sorted(given_out, key=int) == list(names)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="asks the kernel")
def test_workers_of_a_node_share_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(10, 18)))
    assert [own_processors(Place(index, 4), 2) for index in range(4)] == [[10, 11], [12, 13], [14, 15], [16, 17]]
    assert own_processors(Place(1, 4), 4) == list(range(10, 18)), "more is asked for than there is"


@pytest.mark.parametrize("available", [3, ["0", "1", "2"], ("0", "1", "2"), [0, 1, 2]], ids=repr)
def test_accelerators_by_number_and_by_name(available: Any) -> None:
    assert accelerators(available) == ("0", "1", "2")


@pytest.mark.parametrize("available", [-1, True, "gpu0", 1.5, [1.5], None], ids=repr)
def test_accelerators_that_are_none_are_refused(available: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"available_accelerators is .*; legal is a count or a list of names"):
        MPIExecutor(available_accelerators=available)


@pytest.mark.parametrize(
    "affinity", ["", "blocks", "list:", "list:a", "list:1-", "list:1;2", "list:3-1", 5, None], ids=repr
)
def test_an_affinity_that_is_none_is_refused(affinity: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"MPIExecutor: cpu_affinity is .*; legal are 'none', 'block'"):
        MPIExecutor(cpu_affinity=affinity)
