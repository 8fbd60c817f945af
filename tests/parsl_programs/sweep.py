"""A parameter sweep: points that fail now and then, points that hang, results kept for the next run.

A second run takes up what the first one has computed, and tries again what had failed.
"""

import os
import sys

import parsl
from parsl.app.app import bash_app, python_app
from parsl.app.errors import AppTimeout
from parsl.config import Config
from parsl.data_provider.files import File
from parsl.dataflow.memoization import BasicMemoizer, id_for_memo
from parsl.executors import HighThroughputExecutor
from parsl.utils import get_all_checkpoints


class Material:
    def __init__(self, name, stiffness):
        self.name = name
        self.stiffness = stiffness


@id_for_memo.register(Material)
def material_id(material, output_ref=False):
    return id_for_memo([material.name, material.stiffness])


@id_for_memo.register(File)
def file_id(file, output_ref=False):
    return id_for_memo(file.url)


@python_app(cache=True, ignore_for_cache=["marks"])
def bend(material, load, marks=None):
    """How far a beam bends; a load of 30 is computed only at the second try."""
    import os
    import uuid

    os.makedirs(f"{marks}/bend-{load}", exist_ok=True)
    open(f"{marks}/bend-{load}/{uuid.uuid4()}", "w").close()
    if load == 30 and len(os.listdir(f"{marks}/bend-{load}")) < 2:
        raise ConnectionError("the licence server is busy")
    if load < 0:
        raise ValueError("a load below zero")
    return load / material.stiffness


@python_app(cache=True)
def relax(steps, walltime=1):
    import time

    for _ in range(steps):
        time.sleep(0.1)
    return steps


@bash_app(cache=True)
def archive(name, outputs=(), stdout=parsl.AUTO_LOGNAME):
    return f"echo {name} >> {outputs[0]}"


def cost(error, task):
    """Some failures are not worth another try."""
    return 1 if isinstance(error, ConnectionError) else 100


def main(directory):
    marks, steel = f"{directory}/marks", Material("steel", 200.0)
    points = {load: bend(steel, load, marks=marks) for load in (10, 20, 30, 40)}
    hanging, failing, short = relax(600), bend(steel, -1, marks=marks), relax(1)
    kept = archive("steel", outputs=[File(f"{directory}/archive.txt")])
    print("bent", [future.result() for future in points.values()])
    print("relaxed", short.result(), "archived", kept.result())
    print("given up", type(failing.exception()).__name__)
    print("hanging", isinstance(hanging.exception(), AppTimeout))
    known = [future.task_record["from_memo"] is True for future in [*points.values(), short, kept]]
    print("from memory", sum(known), "computed so far", sum(len(files) for _, _, files in os.walk(marks)))


if __name__ == "__main__":
    runs = f"{sys.argv[1]}/runs"
    memoizer = BasicMemoizer(checkpoint_mode="task_exit", checkpoint_files=get_all_checkpoints(runs))
    farm = HighThroughputExecutor(label="farm", max_workers_per_node=2)
    with parsl.load(Config(executors=[farm], retries=2, retry_handler=cost, memoizer=memoizer, run_dir=runs)):
        main(os.path.abspath(sys.argv[1]))
