"""A mosaic of sky tiles from a web server: one is damaged, and the picture is made of the rest."""

import functools
import os
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import parsl
from parsl import AUTO_LOGNAME
from parsl.app.app import bash_app, python_app
from parsl.app.errors import BashExitFailure
from parsl.config import Config
from parsl.data_provider.data_manager import default_staging
from parsl.data_provider.files import File
from parsl.dataflow.errors import DependencyError
from parsl.executors import HighThroughputExecutor


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def serve(directory):
    """A web server with four tiles, one of them damaged."""
    os.makedirs(directory)
    for number, text in enumerate(["1 2 3", "4 5 6", "7 eight 9", "10 11 12"]):
        with open(f"{directory}/tile{number}.txt", "w") as tile:
            tile.write(text + "\n")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=directory))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


@python_app
def brightness(inputs=()):
    with open(inputs[0]) as tile:
        return sum(int(word) for word in tile.read().split())


@bash_app
def header(tile, outputs=(), stdout=AUTO_LOGNAME, stderr=AUTO_LOGNAME, label=None):
    return f"echo header of {label}; (echo '# {label}'; cat {tile}) > {outputs[0]}"


@bash_app
def forgetful(outputs=()):
    return "true"


@python_app
def mean(values):
    return sum(values) / len(values)


@python_app
def scaled(value, by):
    return value * by


def main(directory):
    site = serve(f"{directory}/site")
    tiles = [brightness(inputs=[File(f"{site}/tile{number}.txt")]) for number in range(4)]
    good = []
    for number, tile in enumerate(tiles):
        try:
            good.append(tile.result())
        except ValueError as error:
            print(f"tile {number} is damaged: {error}")
    print(f"mean {mean(good).result()}")

    behind = scaled(scaled(tiles[2], 2), 3)
    try:
        behind.result()
    except DependencyError as error:
        print(f"lost: {type(error.__cause__).__name__}, {error.task_id == behind.tid}, {behind.task_status()}")
        for name, tid in (("C", behind.tid), ("B", behind.tid - 1), ("A", tiles[2].tid)):
            error = str(error).replace(f"task {tid}", f"task {name}")
        print(error)

    labelled = header(File(f"{site}/tile0.txt"), outputs=[File(f"{directory}/tile0.fits")], label="tile0")
    print(Path(labelled.outputs[0].result().filepath).read_text().splitlines())
    print(labelled.stdout.endswith("_header_tile0.stdout"), Path(labelled.stdout).read_text().strip())
    print("forgotten", [file.url for file in forgetful(outputs=[File("nowhere.fits")]).exception().outputs])
    spoilt = header(File("no-such-tile"), outputs=[File(f"{directory}/bad.fits")], label="bad")
    assert isinstance(spoilt.outputs[0].exception(), BashExitFailure)
    print("said", Path(spoilt.stderr).read_text().splitlines()[-1].split(": ", 1)[1])


if __name__ == "__main__":
    work = os.path.abspath(sys.argv[1])
    farm = HighThroughputExecutor(working_dir=f"{work}/staged", storage_access=default_staging, max_workers_per_node=2)
    with parsl.load(Config(executors=[farm], run_dir=f"{work}/runs")):
        main(work)
