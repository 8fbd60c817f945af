"""Which of a job's ranks an executor takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from mpiflow.errors import ConfigurationError

#: All of them; "1-511,600-"; a share of them; their numbers; or a pattern that their hosts' names match.
Ranks = str | float | Sequence[int] | None

_RANGES = re.compile(r"\s*\d+\s*(-\s*\d*\s*)?(,\s*\d+\s*(-\s*\d*\s*)?)*")


def check_ranks(ranks: Ranks) -> None:
    """ConfigurationError for what can be no choice of ranks in any job."""
    legal = (
        'legal is None, a text such as "1-511,600-", a share above 0 and up to 1, a list of numbers, '
        "or a pattern of host names"
    )
    if isinstance(ranks, bool):
        wrong = True
    elif isinstance(ranks, int | float):
        wrong = not 0 < ranks <= 1
    elif isinstance(ranks, str):
        wrong = not ranks.strip()
    elif ranks is not None:
        wrong = not isinstance(ranks, Sequence) or not ranks or not all(type(rank) is int for rank in ranks)
    else:
        wrong = False
    if wrong:
        raise ConfigurationError(f"MPIExecutor: ranks is {ranks!r}; {legal}")


def by_host(ranks: Ranks) -> bool:
    """Whether it takes the workers' hosts to choose."""
    return isinstance(ranks, str) and not _RANGES.fullmatch(ranks)


def choose(ranks: Ranks, workers: Sequence[int], hosts: Mapping[int, str], before: float = 0.0) -> list[int]:
    """The workers that an executor takes.

    Parameters
    ----------
    ranks : Ranks
        What its Config says.
    workers : sequence of int
        Ranks of all workers. The 0 of a lone process stands for any choice: the same script runs on a laptop.
    hosts : mapping of int to str
        Name of each worker's host; looked at for a pattern only.
    before : float
        The share that executors before this one in the Config have taken; this one's begins there.

    Raises
    ------
    ConfigurationError
        When it names ranks that are no workers, or none.

    Examples
    --------
    >>> choose("1-2,4-", [1, 2, 3, 4, 5], {})
    [1, 2, 4, 5]
    >>> choose(0.25, range(1, 9), {}), choose(0.75, range(1, 9), {}, before=0.25)
    ([1, 2], [3, 4, 5, 6, 7, 8])
    >>> choose("gpu*", [1, 2], {1: "gpu01", 2: "cpu01"})
    [1]
    """
    everyone = list(workers)
    if ranks is None or everyone == [0]:
        return everyone
    if isinstance(ranks, int | float):
        first = min(round(before * len(everyone)), len(everyone) - 1)
        return everyone[first : max(first + 1, round((before + ranks) * len(everyone)))]
    if by_host(ranks):
        chosen = [worker for worker in everyone if fnmatchcase(hosts.get(worker, ""), str(ranks))]
        if not chosen:
            there = ", ".join(sorted(set(hosts.values()))) or "none that is known"
            words = f"MPIExecutor: ranks is {ranks!r}, and no worker's host matches it; hosts: {there}"
            raise ConfigurationError(words)
        return chosen
    numbers = _numbers(ranks, everyone[-1]) if isinstance(ranks, str) else list(ranks)
    wrong = sorted(set(numbers) - set(everyone))
    if wrong or not numbers:
        named = f"names rank {wrong[0]}, which is no worker" if wrong else "names none"
        words = f"MPIExecutor: ranks is {ranks!r} and {named}; workers are ranks {everyone[0]} to {everyone[-1]}"
        raise ConfigurationError(words + (" (rank 0 runs the script)" if 0 in wrong else ""))
    return sorted(set(numbers))


def _numbers(text: str, last: int) -> list[int]:
    """The numbers in "1-511,600-"; an open end is the last rank."""
    numbers: list[int] = []
    for part in text.replace(" ", "").split(","):
        start, dash, end = part.partition("-")
        stop = (int(end) if end else last) if dash else int(start)
        numbers += range(int(start), stop + 1)
    return numbers
