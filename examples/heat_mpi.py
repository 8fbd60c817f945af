"""Heat in rods, each cut into pieces that several ranks hold, beside ordinary tasks. Start it with

    mpiexec -n 5 python -m mpiflow examples/heat_mpi.py

Each call of `cool` is one rod on as many ranks as the call says. Neighbours exchange the ends of their pieces as numpy
buffers, and agree on the largest error; the pieces are gathered as Python objects. Ordinary tasks compute the exact
answer meanwhile, on ranks that no rod needs.

A rod of length 1 with cold ends, hot as sin(pi x) at first, cools as exp(-pi^2 t) sin(pi x).
"""

import math
import sys

import mpiflow
from mpiflow import mpi_app, python_app

POINTS, STEPS, TIME = 240, 4000, 0.03


@mpi_app
def cool(points, steps, time, comm):
    """The rod at the end, and its largest error; computed by all ranks of the communicator."""
    import math

    import numpy as np
    from mpi4py import MPI

    rank, size = comm.rank, comm.size
    first, last = points * rank // size, points * (rank + 1) // size
    dx = 1.0 / (points + 1)
    factor = time / steps / dx**2
    x = dx * np.arange(first, last + 2)  # with a neighbour's point, or an end of the rod, on either side
    heat = np.sin(np.pi * x)
    left = rank - 1 if rank > 0 else MPI.PROC_NULL
    right = rank + 1 if rank < size - 1 else MPI.PROC_NULL
    if rank == 0:
        heat[0] = 0.0
    if rank == size - 1:
        heat[-1] = 0.0
    for _ in range(steps):
        comm.Sendrecv(heat[1:2], left, 0, heat[-1:], right, 0)
        comm.Sendrecv(heat[-2:-1], right, 1, heat[:1], left, 1)
        heat[1:-1] += factor * (heat[2:] - 2.0 * heat[1:-1] + heat[:-2])
    exact = math.exp(-(math.pi**2) * time) * np.sin(np.pi * x)
    error = np.array([np.abs(heat - exact)[1:-1].max()])
    largest = np.empty_like(error)
    comm.Allreduce(error, largest, MPI.MAX)
    pieces = comm.gather(heat[1:-1], root=0)
    return (np.concatenate(pieces), largest[0]) if rank == 0 else None


@python_app
def exact_middle(points, time):
    """The exact temperature of the point in the middle."""
    import math

    return math.exp(-(math.pi**2) * time) * math.sin(math.pi * (points // 2) / (points + 1))


def main() -> int:
    mpiflow.load()
    workers = mpiflow.dfk().executors["mpi"].workers
    sizes = [size for size in (1, 2, 3, 4) if size <= workers]
    rods = {size: cool(POINTS, STEPS, TIME, parsl_resource_specification={"num_ranks": size}) for size in sizes}
    middles = [exact_middle(POINTS, TIME * share / 100) for share in range(101)]
    print("ranks   middle    exact     largest error")
    for size, rod in rods.items():
        heat, error = rod.result()
        print(f"{size:5}   {heat[POINTS // 2 - 1]:.5f}   {middles[-1].result():.5f}   {error:.1e}")
        if error > 1e-4 or len(heat) != POINTS:
            return 1
    falling = [middle.result() for middle in middles]
    return int(falling != sorted(falling, reverse=True) or not math.isclose(falling[0], 1.0, abs_tol=1e-4))


if __name__ == "__main__":
    sys.exit(main())
