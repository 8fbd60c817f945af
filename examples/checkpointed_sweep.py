"""A sweep that may be killed at any moment and goes on where it was when it is run again.

For each growth rate r of the logistic map x → r x (1 - x), one task finds the Lyapunov exponent: how fast two
neighbouring starts part from each other (above 0: chaos). The app has `cache=True`, and the memoizer of the
Config keeps a journal in the run directory: a result is written there before the script sees it. The next run
reads the journals of all runs before it and computes only what is in none of them.

    mpiexec -n 3 python -m mpiflow examples/checkpointed_sweep.py     # press Ctrl-C, or kill -9 it
    mpiexec -n 3 python -m mpiflow examples/checkpointed_sweep.py     # goes on

Prints each exponent as it comes, and at the end how many were taken from the journal. Exits with 1 if one is not
what it is known to be. To start from nothing, remove `runinfo`, or give other `--steps`: a call with other arguments,
like a changed function, is another call.
"""

from __future__ import annotations

import argparse
import math
import sys

import mpiflow
from mpiflow import BasicMemoizer, Config, python_app

#: At r = 4 the exponent is ln 2; at 3.2 the map settles into a cycle of two, with this one.
KNOWN = {4.0: math.log(2.0), 3.2: 0.5 * math.log(0.16)}
TOLERANCE = 0.01


@python_app(cache=True)
def lyapunov(rate: float, steps: int) -> float:
    """The mean of ln |r (1 - 2x)| along an orbit, after a thousand steps that do not count."""
    x, total = 0.4, 0.0
    for step in range(-1000, steps):
        x = rate * x * (1.0 - x)
        if step >= 0:
            total += math.log(abs(rate * (1.0 - 2.0 * x)) or 1e-300)
    return total / steps


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=41, help="growth rates from 3 to 4 (default 41)")
    parser.add_argument("--steps", type=int, default=300_000, help="steps of each orbit (default 300000)")
    args = parser.parse_args()
    if args.points < 2 or args.steps < 10_000:
        parser.error("at least two points and ten thousand steps are needed")
    return args


def main() -> int:
    args = options()
    memoizer = BasicMemoizer(checkpoint_mode="superstep")
    good = True
    with mpiflow.load(Config(memoizer=memoizer)):
        rates = [round(3.0 + point / (args.points - 1), 6) for point in range(args.points)]
        exponents = {rate: lyapunov(rate, args.steps) for rate in rates}
        for rate, future in exponents.items():
            exponent = future.result()
            print(f"r = {rate:<8} exponent {exponent:+.4f}{'  chaos' if exponent > 0 else ''}", flush=True)
            good &= abs(exponent - KNOWN.get(rate, exponent)) <= TOLERANCE
        print(f"{args.points} exponents, {memoizer.restored_tasks} of them from the journal of earlier runs")
    if not good:
        print(f"an exponent is not what is known: {KNOWN}", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
