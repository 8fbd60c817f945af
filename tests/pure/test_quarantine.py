"""Hosts that fail whatever they are given, told apart from scripts that do."""

from __future__ import annotations

import random

from mpiflow.farm.quarantine import Quarantine


def test_a_host_whose_every_task_fails_while_others_do_well() -> None:
    quarantine = Quarantine(limit=10)
    told = []
    for _ in range(12):
        told.append(quarantine.on_results("bad", 0, 1))
        assert not quarantine.on_results("good", 1, 0)
        if told[-1]:
            break
    assert told == [False] * 9 + [True], "the tenth is one too many"


def test_a_script_that_fails_everywhere_puts_nobody_into_quarantine() -> None:
    quarantine = Quarantine(limit=10)
    assert not any(quarantine.on_results(host, 0, 1) for _ in range(1000) for host in ("a", "b", "c"))


def test_one_host_alone_is_never_in_quarantine() -> None:
    quarantine = Quarantine(limit=10)
    assert not any(quarantine.on_results("only", 1, 50) for _ in range(100))


def test_a_success_ends_the_streak() -> None:
    quarantine = Quarantine(limit=10)
    for _ in range(100):
        assert not quarantine.on_results("a", 0, 9)
        assert not quarantine.on_results("a", 1, 0)
        assert not quarantine.on_results("b", 5, 0)


def test_a_search_in_which_half_of_all_tasks_fail_goes_on_with_all_hosts() -> None:
    draw = random.Random(1)
    quarantine = Quarantine(limit=32)
    for _ in range(200_000):
        done = draw.random() < 0.5
        assert not quarantine.on_results(draw.choice("abcd"), int(done), int(not done))


def test_limit_0_is_never() -> None:
    quarantine = Quarantine(limit=0)
    for _ in range(1000):
        assert not quarantine.on_results("bad", 0, 1)
        assert not quarantine.on_results("good", 1, 0)
