"""Word count over text files: one task a file counts, one task merges the counts (MapReduce).

The corpus is made on the spot from text that every Python brings along: the documentation strings of a few
modules of its standard library, a file a module. Each map task reads one file (`inputs`) and writes its
counts to another (`outputs`). The reduce task takes the output files of all map tasks, so it runs when they
are written, whichever workers wrote them.

    mpiexec -n 3 python -m mpiflow examples/mapreduce_words.py
    python examples/mapreduce_words.py --work-dir /scratch/words   # keep the files

Prints the ten most frequent words with their counts. Exits with 1 if the merged table is not what one process
counts in the same text.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import mpiflow
from mpiflow import File, python_app

MODULES = (
    "argparse", "collections", "configparser", "datetime", "decimal", "difflib", "email.message", "enum",
    "fractions", "functools", "inspect", "logging", "random", "shutil", "statistics", "subprocess", "tarfile",
    "threading", "turtle", "typing", "unittest.case", "unittest.mock", "urllib.request", "zipfile",
)  # fmt: skip
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


def count_text(text: str) -> Counter[str]:
    """How often each word occurs, capital letters or not."""
    return Counter(WORD.findall(text.lower()))


@python_app
def count_words(inputs: list[File], outputs: list[File]) -> int:
    """Map: count the words of a text; write a line `word count` for each. Returns the words read."""
    counts = count_text(Path(inputs[0]).read_text(encoding="utf-8"))
    lines = (f"{word} {count}\n" for word, count in counts.items())
    Path(outputs[0]).write_text("".join(lines), encoding="utf-8")
    return counts.total()


@python_app
def merge_counts(inputs: list[File], outputs: list[File]) -> None:
    """Reduce: add up the counts of all input files, most frequent word first."""
    total: Counter[str] = Counter()
    for file in inputs:
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            word, count = line.split()
            total[word] += int(count)
    lines = (f"{word} {count}\n" for word, count in total.most_common())
    Path(outputs[0]).write_text("".join(lines), encoding="utf-8")


def documentation(module: str) -> str:
    """The documentation strings of a module and of everything defined in it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise SystemExit(f"this Python has no source of its module {module}")
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented))
    return "\n\n".join(text for text in found if text)


def make_corpus(directory: Path, files: int) -> list[Path]:
    """Write one text file a module."""
    paths = []
    for module in MODULES[:files]:
        path = directory / f"{module}.txt"
        path.write_text(documentation(module), encoding="utf-8")
        paths.append(path)
    return paths


def read_table(path: Path) -> Counter[str]:
    """The table that the reduce task wrote."""
    pairs = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return Counter({word: int(count) for word, count in pairs})


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work-dir", type=Path, help="where files go; all ranks must see it (default: temporary)"
    )
    most = len(MODULES)
    parser.add_argument(
        "--files", type=int, default=most, help=f"files in the corpus (default and most: {most})"
    )
    args = parser.parse_args()
    if not 1 <= args.files <= most:
        parser.error(f"1 to {most} files can be made")
    return args


def run(directory: Path, files: int) -> int:
    """Make the corpus, count it, show and check the table."""
    texts = make_corpus(directory, files)
    counts = [count_words(inputs=[File(path)], outputs=[File(path.with_suffix(".counts"))]) for path in texts]
    table = directory / "words.table"
    merge_counts(inputs=[count.outputs[0] for count in counts], outputs=[File(table)]).result()

    merged = read_table(table)
    read = sum(count.result() for count in counts)
    print(f"{read:,} words, {len(merged):,} different, in {len(texts)} files\n")
    for word, count in merged.most_common(10):
        print(f"{count:7,}  {word}")
    expected = sum((count_text(path.read_text(encoding="utf-8")) for path in texts), Counter())
    if merged != expected:
        print("the merged table differs from the count in one process", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    args = options()
    mpiflow.load()
    with ExitStack() as stack:
        if args.work_dir is None:
            args.work_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="words-")))
        args.work_dir.mkdir(parents=True, exist_ok=True)
        return run(args.work_dir.resolve(), args.files)


if __name__ == "__main__":
    sys.exit(main())
