"""What came of the faults."""

from __future__ import annotations

from collections import Counter

#: What must not happen, and what it means: the job ended though it had to live on; results of ours were gone; nothing
#: happened any more; a wrong or doubled result; something was left behind.
BAD = ("died", "lost", "hangs", "wrong", "left")


class Table:
    """Counts by fault.

    Parameters
    ----------
    title : str
        Of whom: the MPI.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._counts: dict[str, Counter[str]] = {}
        self.last = ""

    def _of(self, fault: str) -> Counter[str]:
        self.last = fault or self.last
        return self._counts.setdefault(fault or "(none)", Counter())

    def survived(self, fault: str) -> None:
        """A fault came, and the job lived on."""
        self._of(fault)["survived"] += 1

    def ended(self, fault: str) -> None:
        """A fault came, and the job ended; it is resumed."""
        self._of(fault)["ended"] += 1

    def failed(self, column: str, fault: str) -> None:
        """Something of `BAD` happened, last after this fault."""
        self._of(fault)[column] += 1

    @property
    def injected(self) -> int:
        """How many faults came."""
        return sum(counts["survived"] + counts["ended"] for counts in self._counts.values())

    @property
    def failures(self) -> int:
        """How much of `BAD` happened."""
        return sum(counts[column] for counts in self._counts.values() for column in BAD)

    def __str__(self) -> str:
        columns = ("injected", "survived live", "ended, resumed", *BAD)
        width = max(map(len, (*self._counts, self.title, "all"))) + 2
        lines = [f"{self.title:{width}}" + "".join(f"{name:>{len(name) + 3}}" for name in columns)]
        rows = [(name, self._counts[name]) for name in sorted(self._counts)]
        total = Counter[str]()
        for _, counts in rows:
            total.update(counts)
        for name, counts in [*rows, ("all", total)]:
            values = (counts["survived"] + counts["ended"], counts["survived"], counts["ended"])
            values += tuple(counts[column] for column in BAD)
            cells = zip(columns, values, strict=True)
            lines.append(f"{name:{width}}" + "".join(f"{value:>{len(column) + 3}}" for column, value in cells))
        return "\n".join(lines)
