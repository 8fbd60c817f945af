"""What rank 0 runs for ``mpiflow perf``: batches of tasks that do nothing, each larger than the one before.

What it prints is what ``parsl-perf`` prints, so that whatever reads the one reads the other.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from typing import Any

import mpiflow
from mpiflow.cli import perf
from mpiflow.errors import ConfigurationError

#: Tasks of the first batch, and batches that there are at least.
_FIRST, _LEAST = 10, 2
#: A batch that takes this part of the target time is the last one, where sizes are estimated.
_CLOSE = 0.75


def seven(extra: object, parsl_resource_specification: object = None) -> int:
    """The task."""
    return 7


def main() -> int:
    """Measure what the command line asks for; the exit code."""
    said, _ = perf.parse(sys.argv[1:])
    try:
        config = _config(said.config)
        kernel = mpiflow.load(config)
    except ConfigurationError as error:
        print(f"mpiflow perf: {error}", file=sys.stderr, flush=True)
        return 2
    with kernel:
        _measure(said)
        print("Tests complete - leaving DFK block")
    print("The end")
    return 0


def _config(path: str | None) -> mpiflow.Config:
    """The Config of a file; ConfigurationError where it has none."""
    if path is None:
        return mpiflow.Config.default()
    if not os.path.isfile(path):
        raise ConfigurationError(f"--config {path}: there is no such file (looked in {os.getcwd()})")
    if not path.endswith(".py"):
        return mpiflow.Config.from_file(path)
    from mpiflow.parsl import install

    install()  # a file that was written for Parsl says `import parsl`
    specification = importlib.util.spec_from_file_location("config_of_perf", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    if hasattr(module, "config"):
        config = module.config
    elif hasattr(module, "fresh_config"):
        config = module.fresh_config()
    else:
        raise ConfigurationError(f"--config {path}: it defines neither `config` nor `fresh_config()`")
    if not isinstance(config, mpiflow.Config):
        raise ConfigurationError(f"--config {path}: its Config is {config!r}; legal is a mpiflow.Config")
    return config


def _measure(said: perf.Words) -> None:
    app = mpiflow.python_app(seven)
    extra = "x" * said.argsize
    named: dict[str, Any] = {"parsl_resource_specification": said.resources} if said.resources else {}
    sizes = list(said.iterate) if isinstance(said.iterate, list) else []
    size = sizes[0] if sizes else _FIRST
    iteration = 1
    while True:
        print(f"==== Iteration {iteration} ====")
        print(f"Will run {size} tasks")
        began = time.perf_counter()
        print("Submitting tasks / invoking apps")
        futures = [app(extra, **named) for _ in range(size)]
        submission = time.perf_counter() - began
        print(f"All {size} tasks submitted ... waiting for completion")
        print(f"Submission took {submission:.3f} seconds = {size / submission:.3f} tasks/second")
        for future in futures:
            if future.result() != 7:
                raise RuntimeError(f"a task has returned {future.result()!r}, and not 7")
        took = time.perf_counter() - began
        print(f"Runtime: actual {took:.3f}s vs target {said.time}s")
        print(f"Tasks per second: {size / took:.3f}", flush=True)
        iteration += 1
        if sizes:
            if iteration > len(sizes):
                return
            size = sizes[iteration - 1]
        elif said.iterate == "estimate":
            if took >= _CLOSE * said.time and iteration > _LEAST:
                return
            size = max(1, int(said.time * size / took))
        else:
            if took >= said.time and iteration > _LEAST:
                return
            size *= 2


if __name__ == "__main__":
    sys.exit(main())
