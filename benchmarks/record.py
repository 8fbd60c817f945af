"""What a row says to the driver: one line of JSON with its figure, written here and read here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

Record = dict[str, Any]


def report(value: float, unit: str, **details: object) -> None:
    """Print the figure of this row, with whatever else is worth keeping."""
    print(json.dumps({"value": value, "unit": unit, **details}), flush=True)


def report_latency(seconds: Sequence[float]) -> None:
    """Report the median of single times in µs, the 99th percentile beside it."""
    microseconds = [1e6 * one for one in seconds]
    p99 = quantiles(microseconds, n=100)[-1] if len(microseconds) > 1 else microseconds[0]
    report(median(microseconds), "us", p99=p99, samples=len(microseconds))


def read(output: str) -> Record | None:
    """The record in what a row printed, or None where it printed none."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else None
