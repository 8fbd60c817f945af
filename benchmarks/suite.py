"""How the figures become a table: rows in turn, medians over rounds, ratios within a round.

A row is a small script under `benchmarks/rows/` that measures one thing and prints one record. Rows run one
after the other, and round after round: a machine that is slower for a minute is slower for every row of that
round. Ratios are therefore taken between rows of the same round, and the median over the rounds is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from benchmarks.jobs import ROWS, JobFailedError, farm_job, mpi_version, mpiexec, plain_job, run
from benchmarks.record import Record, read


@dataclass(frozen=True)
class Budget:
    """What a row is held to: a value, a ratio to the peer, both, or neither."""

    value: float | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table: a script under `rows/`, its arguments, and how the script is started."""

    name: str
    script: str
    args: tuple[str, ...] = ()
    budget: Budget = Budget()
    #: the row this one is compared with
    peer: str | None = None
    start: Callable[[Path, Sequence[str]], list[str]] = farm_job

    def command(self) -> list[str]:
        return self.start(ROWS / self.script, self.args)


def plain_row(name: str, script: str, args: tuple[str, ...], peer: str | None = None) -> Row:
    """A row that does without mpiflow."""
    return Row(name, script, args, peer=peer, start=plain_job)


@dataclass(frozen=True)
class Suite:
    """A table: its rows, and the row that all are compared with besides their peer."""

    title: str
    rows: Sequence[Row]
    higher_is_better: bool
    ceiling: str


@dataclass
class Outcome:
    """What the rounds gave for one row; None where the row failed in that round."""

    records: list[Record | None] = field(default_factory=list)
    error: str = ""

    def good(self) -> list[Record]:
        return [record for record in self.records if record is not None]


def run_row(row: Row) -> Record:
    """Run a row once and return its record."""
    record = read(run(row.command()))
    if record is None:
        raise JobFailedError("ended well but printed no figure")
    return record


def measure(rows: Sequence[Row], rounds: int) -> dict[str, Outcome]:
    """Run all rows in turn, `rounds` times; a row that fails is told of and does not stop the others."""
    outcomes = {row.name: Outcome() for row in rows}
    for count in range(1, rounds + 1):
        for row in rows:
            print(f"round {count}/{rounds}: {row.name}", file=sys.stderr, flush=True)
            outcome = outcomes[row.name]
            try:
                outcome.records.append(run_row(row))
            except JobFailedError as error:
                outcome.records.append(None)
                outcome.error = str(error)
    return outcomes


def median_ratio(ours: Outcome, theirs: Outcome | None, higher_is_better: bool) -> float | None:
    """How many times better than another row, or None where there is no round to compare."""
    if theirs is None or theirs is ours:
        return None
    pairs = zip(ours.records, theirs.records, strict=True)
    ratios: list[float] = [one["value"] / other["value"] for one, other in pairs if one and other]
    if not ratios:
        return None
    return median(ratios) if higher_is_better else median(1 / ratio for ratio in ratios)


def verdict(budget: Budget, value: float, ratio: float | None, higher_is_better: bool) -> str:
    """Whether a budget is kept."""
    kept = []
    if budget.value is not None:
        kept.append(value >= budget.value if higher_is_better else value <= budget.value)
    if budget.ratio is not None and ratio is not None:
        kept.append(ratio >= budget.ratio)
    return "" if not kept else "kept" if all(kept) else "MISSED"


def figure(value: float | None) -> str:
    """A figure with as many digits as it deserves."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"


def budget_text(budget: Budget, higher_is_better: bool) -> str:
    parts = [] if budget.value is None else [f"{'>=' if higher_is_better else '<='} {figure(budget.value)}"]
    if budget.ratio is not None:
        parts.append(f">= {budget.ratio:g} x peer")
    return ", ".join(parts)


def cells(row: Row, suite: Suite, outcomes: Mapping[str, Outcome]) -> list[str]:
    """One line of the table."""
    outcome, higher = outcomes[row.name], suite.higher_is_better
    budget = budget_text(row.budget, higher)
    values = [record["value"] for record in outcome.good()]
    if not values:
        return [row.name, "failed", "", "", "", "", budget, ""]
    to_peer = median_ratio(outcome, outcomes.get(row.peer or ""), higher)
    return [
        row.name,
        figure(median(values)),
        outcome.good()[0]["unit"],
        f"{figure(min(values))} - {figure(max(values))}",
        figure(to_peer),
        figure(median_ratio(outcome, outcomes.get(suite.ceiling), higher)),
        budget,
        verdict(row.budget, median(values), to_peer, higher),
    ]


HEADER = ["", "median", "", "lowest - highest", "x peer", "x ceiling", "budget", ""]
LEFT = {0, 2, 6, 7}  # columns of words; the others hold figures


def table(suite: Suite, outcomes: Mapping[str, Outcome]) -> str:
    """The table of a suite, ready to print."""
    lines = [HEADER, *(cells(row, suite, outcomes) for row in suite.rows if row.name in outcomes)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place in LEFT else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def machine() -> str:
    """Where the figures come from, in a few words."""
    cores = len(os.sched_getaffinity(0))
    hot = find_spec("mpiflow.farm.farm")
    build = "mpiflow as Python" if hot is None or str(hot.origin).endswith(".py") else "mpiflow compiled"
    return f"{build}, Python {platform.python_version()}, {mpi_version(mpiexec()[0])}, {cores} cores"


def main(suite: Suite, description: str | None) -> int:
    """The command line of a suite: measure, print the table, return the exit code."""
    args = _options(suite, description)
    rows = [row for row in suite.rows if not args.only or row.name in args.only]
    outcomes = measure(rows, args.rounds)
    print(f"{suite.title}; {args.rounds} rounds; {machine()}\n")
    print(table(suite, outcomes))
    for name, outcome in outcomes.items():
        if outcome.error:
            failed = outcome.records.count(None)
            print(f"\n{name}: failed in {failed} of {args.rounds} rounds: {outcome.error}")
    if args.json is not None:
        args.json.write_text(json.dumps({name: one.records for name, one in outcomes.items()}, indent=1))
    return 1 if any(outcome.error for outcome in outcomes.values()) else 0


def _options(suite: Suite, description: str | None) -> argparse.Namespace:
    names = [row.name for row in suite.rows]
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=raw)
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="how often every row is measured (default 5)")
    add("--only", action="append", choices=names, metavar="ROW", help="measure this row; repeatable")
    add("--json", type=Path, metavar="FILE", help="also write every row's record of every round")
    return parser.parse_args()
