"""A pipeline of command-line programs: make files of numbers, sort each, merge them into one sorted file.

Every step is a command line run as a task (`bash_app`). A step names the files it reads and writes, and each
starts when the files it reads are there: file 3 may be sorted while file 7 is still being made, and the merge
waits for all. A command that fails (exit code other than 0) fails its task, and every step after it.

    make_numbers ─▶ sort_file ─┐
    make_numbers ─▶ sort_file ─┼▶ merge_files ─▶ sorted.txt
    make_numbers ─▶ sort_file ─┘

    mpiexec -n 3 python -m mpiflow examples/bash_pipeline.py
    python examples/bash_pipeline.py --files 20 --numbers 100000

Prints how many numbers were sorted and the smallest and largest. Exits with 1 if the result is not sorted or
is not made of the numbers that went in. Needs `awk` and `sort`, which every Unix has.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import mpiflow
from mpiflow import File, bash_app


@bash_app
def make_numbers(count: int, seed: int, outputs: list[File]) -> str:
    """Write random whole numbers below a million, one a line."""
    program = f"BEGIN {{ srand({seed}); for (i = 0; i < {count}; i++) print int(1e6 * rand()) }}"
    return f"awk {shlex.quote(program)} > {shlex.quote(str(outputs[0]))}"


@bash_app
def sort_file(inputs: list[File], outputs: list[File]) -> str:
    """Sort the lines of a file as numbers."""
    return f"LC_ALL=C sort -n -o {shlex.quote(str(outputs[0]))} {shlex.quote(str(inputs[0]))}"


@bash_app
def merge_files(inputs: list[File], outputs: list[File]) -> str:
    """Merge sorted files into one."""
    names = " ".join(shlex.quote(str(file)) for file in inputs)
    return f"LC_ALL=C sort -n -m -o {shlex.quote(str(outputs[0]))} {names}"


def read_numbers(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().splitlines()]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work-dir", type=Path, help="where files go; all ranks must see it (default: temporary)"
    )
    parser.add_argument("--files", type=int, default=8, help="files of numbers (default 8)")
    parser.add_argument("--numbers", type=int, default=20_000, help="numbers in each (default 20000)")
    args = parser.parse_args()
    if args.files < 1 or args.numbers < 1:
        parser.error("at least one file with one number is needed")
    return args


def run(directory: Path, files: int, numbers: int) -> int:
    """Run the pipeline and check what came out of it."""
    raw = [directory / f"numbers-{place}.txt" for place in range(files)]
    made = [make_numbers(numbers, seed, outputs=[File(path)]) for seed, path in enumerate(raw)]
    ordered = [
        sort_file(inputs=[future.outputs[0]], outputs=[File(path.with_suffix(".sorted"))])
        for future, path in zip(made, raw, strict=True)
    ]
    result = directory / "sorted.txt"
    merge_files(inputs=[future.outputs[0] for future in ordered], outputs=[File(result)]).result()

    merged = read_numbers(result)
    print(f"{len(merged):,} numbers from {files} files, {merged[0]:,} to {merged[-1]:,}")
    if any(one > following for one, following in pairwise(merged)):
        print(f"{result} is not sorted", file=sys.stderr)
        return 1
    if merged != sorted(number for path in raw for number in read_numbers(path)):
        print(f"{result} is not made of the numbers that went in", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    args = options()
    mpiflow.load()
    with ExitStack() as stack:
        if args.work_dir is None:
            args.work_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sort-")))
        args.work_dir.mkdir(parents=True, exist_ok=True)
        return run(args.work_dir.resolve(), args.files, args.numbers)


if __name__ == "__main__":
    sys.exit(main())
