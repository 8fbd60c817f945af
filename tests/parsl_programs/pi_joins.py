"""Pi from random points: a join refines the estimate until its standard error is small enough."""

import math

import parsl
from parsl.app.app import join_app, python_app
from parsl.config import Config
from parsl.executors import HighThroughputExecutor

POINTS = 20_000
TOLERANCE = 0.004


@python_app
def inside(points, seed):
    """How many of so many random points of the unit square lie in the circle."""
    import random

    draw = random.Random(seed).random
    return sum(draw() ** 2 + draw() ** 2 < 1.0 for _ in range(points))


@python_app
def add(*counts):
    return {"hits": sum(counts), "batches": len(counts)}


@python_app
def combine(old, new):
    return {key: old[key] + new[key] for key in old}


@join_app
def refine(sofar, tolerance):
    """As many batches again, and once more, until the standard error is below the tolerance."""
    points = POINTS * sofar["batches"]
    share = sofar["hits"] / points
    error = 4.0 * math.sqrt(share * (1.0 - share) / points)
    if error <= tolerance:
        return summary(sofar, points, error)
    begun = sofar["batches"]
    more = [inside(POINTS, seed) for seed in range(begun, 2 * begun)]
    return refine(combine(sofar, add(*more)), tolerance)


@python_app
def summary(sofar, points, error):
    return {"pi": 4.0 * sofar["hits"] / points, "error": error, "batches": sofar["batches"]}


@join_app
def shares(seeds):
    """A list of futures becomes a list of numbers."""
    return [inside(POINTS, seed) for seed in seeds]


if __name__ == "__main__":
    config = Config(executors=[HighThroughputExecutor(label="farm", max_workers_per_node=2)])
    with parsl.load(config) as dfk:
        found = refine(add(inside(POINTS, 0)), TOLERANCE)
        pi, batches = found["pi"], found["batches"]  # futures of a part of the result
        print(f"pi {pi.result():.3f} from {batches.result()} batches")
        print(f"within four errors {abs(pi.result() - math.pi) < 4 * found['error'].result()}")
        first, again = shares(range(4)), shares(list(range(4)))
        print(f"reproducible {first.result() == again.result()}, {len(first.result())} batches")
        print(f"left in the books {len(dfk.tasks)}")
