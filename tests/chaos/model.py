"""A random graph of tasks, and its results without mpiflow: what the farm's are held against.

Each task has a body of bytes that follows from its number and from the bodies of its parents, so one wrong byte
anywhere changes the checksum. The workload imports this too: the farm has to bring the right bytes to the right
place, not to compute something clever.
"""

from __future__ import annotations

import hashlib
import random
from typing import NamedTuple

#: Where results begin to travel as attachments, and where the journal gives them a file of their own.
ATTACHED, BESIDE = 64 << 10, 1 << 20


class Node(NamedTuple):
    """A task of the graph.

    Attributes
    ----------
    name : str
        Its number.
    kind : str
        "python", "bash" or "join".
    parents : tuple of str
        Whose results it takes.
    size : int
        Bytes of its body.
    seconds : float
        How long it takes.
    array : bool
        Whether its body is a numpy array.
    parts : int
        Of a join: how many tasks it makes, one more putting them together.
    """

    name: str
    kind: str
    parents: tuple[str, ...]
    size: int
    seconds: float
    array: bool
    parts: int


def graph(seed: int, tasks: int) -> list[Node]:
    """The tasks of a seed, parents first; joins make more of them when they run.

    Parameters
    ----------
    seed, tasks : int
        The same two give the same graph, on every machine.
    """
    draw = random.Random(f"graph {seed}")
    nodes: list[Node] = []
    for number in range(tasks):
        kind = draw.choices(("python", "bash", "join"), (80, 12, 8))[0]
        wanted = draw.choices((0, 1, 2, 5), (15, 45, 30, 10))[0]
        near = nodes[-60:]  # edges are short: wide enough to run side by side, deep enough to wait for each other
        parents = tuple(node.name for node in draw.sample(near, min(wanted, len(near))))
        size = 16 if kind == "bash" else _size(draw)
        seconds = draw.choice((0.0, 0.0, 0.002, 0.01, 0.03))
        array = kind == "python" and size > 16 and draw.random() < 0.5
        makes = draw.randint(1, 4) if kind == "join" else 0
        nodes.append(Node(str(number), kind, parents, size, seconds, array, makes))
    return nodes


def _size(draw: random.Random) -> int:
    scale = draw.choices(("small", "attached", "beside"), (93, 6, 1))[0]
    if scale == "small":
        return 16
    return draw.randint(ATTACHED, 4 * ATTACHED) if scale == "attached" else draw.randint(BESIDE, 2 * BESIDE)


def body(name: str, size: int, parents: list[str]) -> bytes:
    """The bytes of a task.

    Parameters
    ----------
    name : str
        Its number.
    size : int
        How many.
    parents : list of str
        The fingerprints of its parents' bodies.
    """
    return random.Random(f"{name} {' '.join(parents)}").randbytes(size)


def fingerprint(data: object) -> str:
    """What tells a body from every other."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()  # type: ignore[arg-type]


def checksum(fingerprints: list[str]) -> str:
    """One word for all results of a graph, in its order."""
    return fingerprint(" ".join(fingerprints).encode())


def expected(nodes: list[Node]) -> str:
    """The checksum, computed one task after another."""
    known: dict[str, str] = {}
    for node in nodes:
        above = [known[parent] for parent in node.parents]
        if node.kind == "join":
            above = [fingerprint(body(part, 16, above)) for part in parts(node)]
        known[node.name] = fingerprint(body(node.name, node.size, above))
    return checksum([known[node.name] for node in nodes])


def parts(node: Node) -> list[str]:
    """The numbers of the tasks that a join makes before the one that has its own number."""
    return [f"{node.name}.{part}" for part in range(node.parts)]


def count(nodes: list[Node]) -> int:
    """How many tasks run in all, those that joins make and their bodies included."""
    return len(nodes) + sum(node.parts + 1 for node in nodes if node.kind == "join")
