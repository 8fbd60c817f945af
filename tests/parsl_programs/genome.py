"""A pipeline as one for genomes: make reads, split them, align each part, merge, index and call variants.

Every step is a command line; files are what they pass on to each other.
"""

import os
import sys
from pathlib import Path

import parsl
from parsl import AUTO_LOGNAME
from parsl.app.app import bash_app, python_app
from parsl.app.errors import BashExitFailure
from parsl.config import Config
from parsl.data_provider.files import File
from parsl.executors import HighThroughputExecutor

PARTS = 4


@bash_app
def make_reads(count, outputs=(), stderr=AUTO_LOGNAME):
    line = 'print int(1e6 * rand()), substr("ACGTTGCA", i % 5 + 1, 4)'
    return f"""
        echo making {count} reads >&2
        awk 'BEGIN {{ srand(3); for (i = 0; i < {count}; i++) {line} }}' > {outputs[0]}
    """


@bash_app
def split(reads, parts, outputs=()):
    names = " ".join(str(part) for part in outputs)
    return f"awk -v names='{names}' 'BEGIN {{ split(names, to) }} {{ print > to[NR % {parts} + 1] }}' {reads}"


@bash_app
def align(inputs=(), outputs=(), stdout=None, stderr=None):
    return f"echo aligned $(wc -l < {inputs[0]}); LC_ALL=C sort -n {inputs[0]} > {outputs[0]}"


@bash_app
def merge(inputs=(), outputs=()):
    return "LC_ALL=C sort -n -m " + " ".join(part.filepath for part in inputs) + f" > {outputs[0]}"


@bash_app
def validate(merged, lines):
    return f"test $(wc -l < {merged}) -eq {lines}"


@python_app
def call_variants(inputs=(), outputs=()):
    from collections import Counter

    with open(inputs[0]) as merged:
        seen = Counter(line.split()[1] for line in merged)
    with open(outputs[0], "w") as table:
        for bases, times in sorted(seen.items()):
            table.write(f"{bases} {times}\n")
    return sum(seen.values())


def main(directory, reads=2000):
    def place(name):
        return File(os.path.join(directory, name))

    raw = make_reads(reads, outputs=[place("reads.txt")])
    parts = split(raw.outputs[0], PARTS, outputs=[place(f"part{i}.txt") for i in range(PARTS)])
    aligned = [
        align(
            inputs=[part],
            outputs=[place(f"aligned{i}.txt")],
            stdout=place(f"align{i}.log"),
            stderr=(f"{directory}/align{i}.err", "w"),
        )
        for i, part in enumerate(parts.outputs)
    ]
    merged = merge(inputs=[one.outputs[0] for one in aligned], outputs=[place("merged.txt")])
    variants = call_variants(inputs=merged.outputs, outputs=[place("variants.txt")])
    print(f"{variants.result()} reads, {validate(merged.outputs[0], reads).result()} is the exit code")
    print(Path(variants.outputs[0].result()).read_text(), end="")
    print(f"aligned {sum(int(Path(one.stdout.result()).read_text().split()[1]) for one in aligned)}")
    print(f"{os.path.basename(raw.stderr)}: {Path(raw.stderr).read_text().splitlines()[-1]}")
    print(Path(aligned[0].stderr[0]).read_text().splitlines()[0])
    try:
        validate(merged.outputs[0], reads + 1).result()
    except BashExitFailure as failure:
        print(f"{failure.app_name} ends with {failure.exitcode}")


if __name__ == "__main__":
    farm = HighThroughputExecutor(max_workers_per_node=2)
    with parsl.load(Config(executors=[farm], run_dir=f"{sys.argv[1]}/runs")):
        main(os.path.abspath(sys.argv[1]))
