"""The program under fire: the graph of `model.py` as apps.

    python -m mpiflow workload.py SEED TASKS

Prints the checksum. It notes in its directory what `ledger.py` reads: each execution of a task, and each result
that this script has seen. What differs from life to life is kept out of the keys of the calls
(``ignore_for_cache``).
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import ledger
import model
import notes

import mpiflow
from mpiflow import AppFuture, Config, File, bash_app, join_app, python_app

#: Seconds that a task may take: a runner that was stopped is found out by it. Tasks need a hundredth of that.
WALLTIME = 8.0


def fingerprint_of(result: Any) -> tuple[str, str]:
    """Of a task's result the fingerprint of its body, and the mark of the execution that it is from."""
    if isinstance(result, File):
        written, mark = Path(result.filepath).read_bytes().split(b"\n")[:2]
        return model.fingerprint(bytes.fromhex(written.decode())), mark.decode()
    _, mark, data = result
    return model.fingerprint(data), mark


def begin(name: str, life: str, parents: tuple[Any, ...]) -> tuple[list[str], str]:
    """Note that a task runs, and with which results; the fingerprints of its parents, and the mark of its own."""
    above = [fingerprint_of(parent) for parent in parents]
    mark = f"{os.getpid()}-{time.time_ns():x}"
    notes.note_execution(name, life, mark, [other for _, other in above])
    return [own for own, _ in above], mark


@python_app(cache=True, ignore_for_cache=["life"])
def compute(name: str, size: int, seconds: float, array: bool, *parents: Any, life: str, walltime: float) -> Any:
    above, mark = begin(name, life, parents)
    time.sleep(seconds)
    data = model.body(name, size, above)
    if not array:
        return name, mark, data
    import numpy as np  # here: a process that runs one task only would load it for nothing

    return name, mark, np.frombuffer(data, np.uint8).copy()


@bash_app(cache=True, ignore_for_cache=["life"])
def command(
    name: str, size: int, seconds: float, *parents: Any, life: str, walltime: float, outputs: list[File]
) -> str:
    above, mark = begin(name, life, parents)
    target = shlex.quote(outputs[0].filepath)
    own = shlex.quote(f"{outputs[0].filepath}.{mark}")
    # Whole or not at all, and the first one stays: a second attempt changes nothing that somebody may have read.
    written = f"printf '%s\\n%s\\n' {model.body(name, size, above).hex()} {mark} > {own}"
    return f"sleep {seconds}; {written} && ln {own} {target} 2>/dev/null; rm -f {own}; test -s {target}"


@join_app(cache=True, ignore_for_cache=["life"])
def fan(name: str, parts: list[str], size: int, seconds: float, *parents: Any, life: str) -> AppFuture:
    begin(f"{name}.join", life, parents)
    made = [noted(part, life, compute(part, 16, seconds, False, *parents, life=life, walltime=WALLTIME))
            for part in parts]  # fmt: skip
    whole = compute(name, size, seconds, False, *made, life=life, walltime=WALLTIME)
    return noted(name, life, whole)


def noted(name: str, life: str, future: AppFuture) -> AppFuture:
    """Have it noted when this script can see the result of a task."""
    future.add_done_callback(partial(_note, name, life))
    return future


def _note(name: str, life: str, future: AppFuture) -> None:
    if not future.exception():
        result = future.result()
        mark = result[1] if isinstance(result, tuple) else ""
        notes.note_seen(name, life, str(future.task_record["hashsum"]), mark)


def call(node: model.Node, above: list[Any], life: str) -> tuple[AppFuture, Any]:
    """Make the task of a node: its future, and what those below it take."""
    if node.kind == "bash":
        file = File(os.path.abspath(f"files/{node.name}"))
        future = command(
            node.name, node.size, node.seconds, *above, life=life, walltime=WALLTIME, outputs=[file]
        )
        return future, future.outputs[0]
    if node.kind == "join":
        future = fan(node.name, model.parts(node), node.size, node.seconds, *above, life=life)
    else:
        future = compute(node.name, node.size, node.seconds, node.array, *above, life=life, walltime=WALLTIME)
    return future, future


def main() -> int:
    seed, tasks = int(sys.argv[1]), int(sys.argv[2])
    os.makedirs("files", exist_ok=True)
    life = ledger.begin_life("runinfo")
    taken: dict[str, Any] = {}
    futures: list[AppFuture] = []
    # Faults are not the tasks' own: what they cost is tried again as often as it takes.
    with mpiflow.load(Config(retries=50)):
        nodes = model.graph(seed, tasks)
        for node in nodes:
            future, taken[node.name] = call(node, [taken[parent] for parent in node.parents], life)
            futures.append(noted(f"{node.name}.join" if node.kind == "join" else node.name, life, future))
        results = [future.result() for future in futures]
        files = [future.outputs[0].result() if node.kind == "bash" else None
                 for node, future in zip(nodes, futures, strict=True)]  # fmt: skip
    ends = [fingerprint_of(file or result)[0] for result, file in zip(results, files, strict=True)]
    print(f"checksum {model.checksum(ends)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
