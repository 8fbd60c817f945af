"""Which ranks an executor takes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpiflow.errors import ConfigurationError
from mpiflow.executors.mpi import MPIExecutor
from mpiflow.executors.ranks import choose

EIGHT = range(1, 9)
HOSTS = {rank: f"{'gpu' if rank > 6 else 'cpu'}{rank:02}" for rank in EIGHT}


@pytest.mark.parametrize(
    ("ranks", "taken"),
    [
        (None, list(EIGHT)),
        ("1-3", [1, 2, 3]),
        ("5", [5]),
        ("7-", [7, 8]),
        (" 1 - 2 , 8 ", [1, 2, 8]),
        ("2,1-3,2", [1, 2, 3]),
        ([3, 1, 3], [1, 3]),
        ((8,), [8]),
        (1, list(EIGHT)),
        (1.0, list(EIGHT)),
        (0.5, [1, 2, 3, 4]),
        (0.01, [1]),
        ("gpu*", [7, 8]),
        ("*0[12]", [1, 2]),
        ("cpu03", [3]),
    ],
)
def test_a_choice_names_ranks(ranks: Any, taken: list[int]) -> None:
    assert choose(ranks, EIGHT, HOSTS) == taken


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ("0-2", "names rank 0, which is no worker; workers are ranks 1 to 8 (rank 0 runs the script)"),
        ("7-9", "names rank 9, which is no worker; workers are ranks 1 to 8"),
        ([1, 20], "names rank 20, which is no worker"),
        ("3-1", "names none"),
        ("9-", "names none"),
        ("node*", "no worker's host matches it; hosts: cpu01, cpu02"),
    ],
)
def test_a_choice_of_ranks_that_are_not_there_is_refused(ranks: Any, words: str) -> None:
    start = re.escape(f"MPIExecutor: ranks is {ranks!r}")
    with pytest.raises(ConfigurationError, match=f"{start}.*{re.escape(words)}"):
        choose(ranks, EIGHT, HOSTS)


@pytest.mark.parametrize(
    "ranks", ["", "  ", 0, 0.0, -0.5, 1.5, 2, True, [], [1.0], ["1"], [True], {1: 2}, float("nan")], ids=repr
)
def test_what_can_be_no_choice_in_any_job_is_refused_at_once(ranks: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"MPIExecutor: ranks is .*; legal is None, a text such as"):
        MPIExecutor(ranks=ranks)


@pytest.mark.parametrize("ranks", ["1-511", 0.25, [7], "gpu*"])
def test_a_lone_process_stands_for_any_choice(ranks: Any) -> None:
    assert choose(ranks, [0], {}) == [0]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 300))
def test_shares_one_after_the_other_cover_all_and_none_is_empty(parts: list[int], workers: int) -> None:
    everyone = range(1, workers + 1)
    before, taken = 0.0, []
    for part in parts:
        share = part / sum(parts)
        chosen = choose(share, everyone, {}, before)
        assert chosen, "an executor without workers"
        assert set(chosen) <= set(everyone)
        assert len(chosen) == 1 or abs(len(chosen) - share * workers) <= 1
        taken += chosen
        before += share
    if workers >= 20 * len(parts):
        assert sorted(taken) == list(everyone), "each rank once"
