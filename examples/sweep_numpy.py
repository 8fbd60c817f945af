"""A parameter sweep with arrays going in and coming out: heat in a square plate, for several diffusivities.

Solves du/dt = k (d2u/dx2 + d2u/dy2) on the unit square, edges kept at 0, with explicit finite differences,
one task for each diffusivity k. The starting temperature sin(pi x) sin(pi y) is an array passed to every
task; the temperature at the end is an array that each returns; a second task for each compares it with the
exact solution, which is known for this start: the shape stays, and the temperature falls as exp(-2 pi^2 k t).

    mpiexec -n 3 python -m mpiflow examples/sweep_numpy.py
    python examples/sweep_numpy.py --points 201 --diffusivities 20

Prints, for each diffusivity, the temperature left in the middle of the plate, the exact one, and the largest
error anywhere relative to it. Exits with 1 if an error is above twice what the scheme is known to make. With
`--work-dir` the final temperatures are saved there as `plate.npz`.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import mpiflow
from mpiflow import python_app

Field = NDArray[np.float64]

COURANT = 0.2  # k dt / h^2; explicit differences in two dimensions are stable up to 0.25


@python_app
def diffuse(start: Field, diffusivity: float, duration: float) -> Field:
    """Temperature after `duration`, from the temperature at its start."""
    spacing = 1.0 / (len(start) - 1)
    steps = math.ceil(diffusivity * duration / (COURANT * spacing**2))
    factor = diffusivity * duration / steps / spacing**2
    u: Field = start.copy()
    for _ in range(steps):
        inner = u[1:-1, 1:-1]
        inner += factor * (u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4.0 * inner)
    return u


@python_app
def compare(end: Field, start: Field, diffusivity: float, duration: float) -> tuple[float, float, float]:
    """Temperature in the middle, the exact one, and the largest error relative to the exact maximum."""
    exact = start * math.exp(-2.0 * math.pi**2 * diffusivity * duration)
    middle = len(end) // 2
    error = np.abs(end - exact).max() / exact.max()
    return float(end[middle, middle]), float(exact[middle, middle]), float(error)


def starting_field(points: int) -> Field:
    """Temperature at the start, on a grid of `points` x `points` over the unit square."""
    x = np.linspace(0.0, 1.0, points)
    start: Field = np.outer(np.sin(math.pi * x), np.sin(math.pi * x))
    return start


def scheme_error(diffusivity: float, duration: float, points: int) -> float:
    """The relative error to expect: what differences in space and time do to the exponent of the decay."""
    spacing = 1.0 / (points - 1)
    exponent = 2.0 * math.pi**2 * diffusivity * duration
    return exponent * (math.pi * spacing) ** 2 * (COURANT - 1.0 / 12.0)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=101, help="grid points along an edge (default 101)")
    parser.add_argument("--diffusivities", type=int, default=8, help="how many of them (default 8)")
    parser.add_argument("--duration", type=float, default=0.1, help="time simulated (default 0.1)")
    parser.add_argument("--work-dir", type=Path, help="save the final temperatures here (default: not saved)")
    args = parser.parse_args()
    if args.points < 11 or args.diffusivities < 1:
        parser.error("at least 11 points and one diffusivity are needed")
    if not 0 < args.duration <= 1:
        parser.error("the duration is above 0 and at most 1: later the plate is as cold as rounding errors")
    return args


def main() -> int:
    args = options()
    mpiflow.load()
    start = starting_field(args.points)
    values = [float(value) for value in np.linspace(0.1, 1.0, args.diffusivities)]
    ends = [diffuse(start, value, args.duration) for value in values]
    rows = [compare(end, start, value, args.duration) for end, value in zip(ends, values, strict=True)]

    good = True
    print("diffusivity   middle    exact   error")
    for value, row in zip(values, rows, strict=True):
        middle, exact, error = row.result()
        print(f"{value:11.3f}  {middle:.5f}  {exact:.5f}  {error:.1e}")
        good &= error <= 2.0 * scheme_error(value, args.duration, args.points)
    if args.work_dir is not None:
        args.work_dir.mkdir(parents=True, exist_ok=True)
        fields = np.stack([end.result() for end in ends])
        np.savez(args.work_dir / "plate.npz", diffusivity=values, temperature=fields)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
