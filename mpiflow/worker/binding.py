"""Which processors and accelerators a runner gets, and the variables that tell its tasks.

A worker's runners have places, 0 up to their number; one that dies leaves its place to its successor. What is
shared out is what the worker has: its own part of the node's processors, and of the node's accelerators, where
several workers are on one.

Names and meanings are those of Parsl's HighThroughputExecutor, so that scripts written for it find what they look
for.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

class Place:
    """A worker's place on its node.

    Attributes
    ----------
    index, count : int
        The how-many-th worker of its node it is, and how many there are.
    """

    __slots__ = ("count", "index")

    def __init__(self, index: int = 0, count: int = 1) -> None:
        self.index = index
        self.count = count


def processors(slot: int, slots: int, mine: Sequence[int], affinity: str, first: int = 0) -> list[int] | None:
    """Processors of one runner; None where it may use all of its worker's.

    Parameters
    ----------
    slot, slots : int
        Its place, and how many there are.
    mine : sequence of int
        The worker's processors.
    affinity : str
        "none", "block", "block-reverse", "alternating", or "list:0,1:2,3" with those of each place of the node.
    first : int
        Place on the node of the worker's first runner.

    Examples
    --------
    >>> processors(0, 2, [0, 1, 2, 3], "block"), processors(0, 2, [0, 1, 2, 3], "alternating")
    ([0, 1], [0, 2])
    >>> processors(0, 2, [0, 1, 2, 3], "block-reverse"), processors(1, 2, [0, 1, 2, 3], "list:0,2:1-3")
    ([2, 3], [1, 2, 3])
    """
    if affinity == "none":
        return None
    if affinity.startswith("list:"):
        sets = affinity.removeprefix("list:").split(":")
        return _numbers(sets[(first + slot) % len(sets)])
    each = max(1, len(mine) // slots)
    if affinity == "alternating":
        return list(mine[slot % len(mine) :: slots])[:each]
    if affinity == "block-reverse":
        slot = slots - 1 - slot
    start = slot * each % len(mine)
    return list(mine[start : start + each])


def _numbers(text: str) -> list[int]:
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def variables(
    slot: int, slots: int, place: Place, cpus: Sequence[int] | None, accelerators: Sequence[str]
) -> dict[str, str]:
    """What a runner's tasks find in their environment; numbers count over all runners of the node.

    Parameters
    ----------
    slot, slots : int
        The runner's place among its worker's, and how many there are.
    place : Place
        The worker's on its node.
    cpus : sequence of int or None
        The runner's processors, if it is bound to some.
    accelerators : sequence of str
        Names of all of the node's.
    """
    told = {
        "PARSL_WORKER_RANK": str(place.index * slots + slot),
        "PARSL_WORKER_COUNT": str(place.count * slots),
        "PARSL_WORKER_POOL_ID": os.uname().nodename,
        "PARSL_WORKER_BLOCK_ID": "0",
    }
    if cpus is not None:
        listed = ",".join(map(str, cpus))
        told["OMP_NUM_THREADS"] = str(len(cpus))
        told["GOMP_CPU_AFFINITY"] = listed
        told["KMP_AFFINITY"] = f"explicit,proclist=[{listed}]"
    if accelerators:
        mine = accelerators[(place.index * slots + slot) % len(accelerators)]
        told.update(
            CUDA_VISIBLE_DEVICES=mine,
            ROCR_VISIBLE_DEVICES=mine,
            ZE_AFFINITY_MASK=mine,
            ZE_ENABLE_PCI_ID_DEVICE_ORDER="1",
        )
    return told


def own_processors(place: Place, share: int) -> list[int]:
    """A worker's part of the node's processors: all it may use, unless it shares them with other ranks."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    if share * place.count > len(usable) or len(usable) <= share:
        return usable
    return usable[place.index * share : (place.index + 1) * share]

