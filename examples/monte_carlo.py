"""An integral by Monte Carlo: many independent samples, then one task that combines them.

Computes the integral of sin(x) / (x + cos(x)^2) over [0, 1], which is the mean of that function at uniformly
drawn points. The draws are spread over many tasks; the futures of all of them are passed to one more task,
which runs when they are done. Every task has a random stream of its own (`mpiflow.rng()`), so the same seed
gives the same digits on any number of workers, whichever worker runs which task.

    mpiexec -n 5 python -m mpiflow examples/monte_carlo.py        # four workers
    python examples/monte_carlo.py --draws 1000000                # this machine, without MPI

Prints the estimate beside the exact value, and the standard error, the size of the error to be expected.
Exits with 1 if the estimate is more than five standard errors off.
"""

from __future__ import annotations

import argparse
import math
import sys

import numpy as np

import mpiflow
from mpiflow import python_app

EXACT = 0.363582087557803  # Gauss-Legendre quadrature; 60 and 100 points agree in all these digits


@python_app
def sample(draws: int) -> tuple[int, float, float]:
    """Number of draws, mean and variance of the integrand at that many random points."""
    x = mpiflow.rng().random(draws)
    y = np.sin(x) / (x + np.cos(x) ** 2)
    return draws, float(y.mean()), float(y.var())


@python_app
def combine(inputs: list[tuple[int, float, float]]) -> tuple[float, float]:
    """Mean of all draws of all samples, and its standard error."""
    draws, means, variances = map(np.asarray, zip(*inputs, strict=True))
    total = draws.sum()
    mean = (draws * means).sum() / total
    variance = (draws * (variances + (means - mean) ** 2)).sum() / (total - 1)
    return float(mean), math.sqrt(variance / total)


def shares(draws: int, tasks: int) -> list[int]:
    """The draws of each task: as equal as they can be, all of them together `draws`."""
    base, extra = divmod(draws, tasks)
    return [base + (place < extra) for place in range(tasks)]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=100_000, help="random points in all (default 100000)")
    parser.add_argument("--tasks", type=int, default=100, help="tasks they are spread over (default 100)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other draws (default 1)")
    args = parser.parse_args()
    if not 1 <= args.tasks <= args.draws or args.draws < 2:
        parser.error("at least two draws, and at least one for every task, are needed")
    return args


def main() -> int:
    args = options()
    mpiflow.load(mpiflow.Config(seed=args.seed))
    samples = [sample(draws) for draws in shares(args.draws, args.tasks)]
    estimate, standard_error = combine(inputs=samples).result()
    print(f"estimate        {estimate:.6f}   from {args.draws:,} draws in {args.tasks:,} tasks")
    print(f"exact           {EXACT:.6f}")
    print(f"standard error  {standard_error:.6f}   the estimate is {abs(estimate - EXACT):.6f} off")
    return 0 if abs(estimate - EXACT) <= 5 * standard_error else 1


if __name__ == "__main__":
    sys.exit(main())
