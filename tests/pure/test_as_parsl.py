"""``import parsl`` as mpiflow: every name, what is left out, and what it costs. Each case in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mpiflow
from mpiflow.parsl.names import HOMES, LEFT_OUT

_INSTALL = "import mpiflow.parsl; mpiflow.parsl.install()\n"


def run(script: str, cwd: Path | None = None) -> str:
    """What a process prints in which the hook is installed first; an error is the test's."""
    line = [sys.executable, "-c", _INSTALL + script]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=cwd, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_name_of_every_module_is_there() -> None:
    out = run(
        "import importlib\n"
        "from mpiflow.parsl.names import HOMES\n"
        "for module, names in HOMES.items():\n"
        "    for name in names:\n"
        "        getattr(importlib.import_module(module), name)\n"
        "print('all')"
    )
    assert out == "all\n"


def test_a_parsl_programs_imports_find_mpiflow() -> None:
    script = """
import parsl
from parsl import *
from parsl import AUTO_LOGNAME
from parsl.app.app import python_app as app, bash_app, join_app
from parsl.config import Config as C
from parsl.data_provider.files import File as F
from parsl.dataflow.memoization import id_for_memo
import parsl.app.errors as pe
import mpiflow, mpiflow.errors

assert python_app is app is mpiflow.python_app
assert Config is C is mpiflow.Config and File is F is mpiflow.File
assert parsl.load is mpiflow.load and parsl.dfk is mpiflow.dfk and parsl.clear is mpiflow.clear
assert AUTO_LOGNAME == -1
assert parsl.dataflow.errors.DependencyError is mpiflow.errors.DependencyError, "without an import of its own"
assert pe.AppTimeout is mpiflow.errors.AppTimeout
assert tuple(map(int, parsl.__version__.split("."))) > (2024,)
assert parsl.VERSION == parsl.__version__ == parsl.version.VERSION
assert "python_app" in dir(parsl) and not hasattr(parsl, "nothing_at_all") and not hasattr(parsl, "__wrapped__")
"""
    run(script)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("from parsl.executors import WorkQueueExecutor", "cannot import name 'WorkQueueExecutor' from 'parsl.exec"),
        ("from parsl import WorkQueueExecutor", "left out of mpiflow: it drives another task system"),
        ("import parsl.executors.taskvine.manager", "No module named 'parsl.executors.taskvine"),
        ("from parsl.data_provider.globus import GlobusStaging", "its transfers need a service outside"),
        ("from parsl.serialize import serialize", "arguments and results are pickled"),
        ("import parsl.nothing", "mpiflow has no counterpart of it"),
    ],
)
def test_what_is_left_out_is_an_import_error_that_says_why(statement: str, words: str) -> None:
    out = run(f"try:\n    {statement}\nexcept ImportError as error:\n    print(error)")
    assert words in out
    assert out.endswith("; see docs/from-parsl.md\n")


def test_an_attribute_that_parsl_has_not_either_is_none_here() -> None:
    script = "import parsl.config\ntry:\n    parsl.config.nothing\nexcept AttributeError as error:\n    print(error)"
    assert run(script).startswith("module 'parsl.config' has no attribute 'nothing'")


def test_the_hook_wins_over_a_parsl_that_is_installed_and_one_that_is_imported_already(tmp_path: Path) -> None:
    (tmp_path / "parsl").mkdir()
    (tmp_path / "parsl" / "__init__.py").write_text("real = True")
    (tmp_path / "parsl" / "config.py").write_text("real = True")
    script = (
        "import sys\nassert not hasattr(sys.modules.get('parsl'), 'real')\n"
        "import parsl, parsl.config\nassert not hasattr(parsl.config, 'real')\nprint(parsl.Config.__module__)"
    )
    assert run(script, cwd=tmp_path) == "mpiflow.config\n"
    before = f"import parsl.config\nassert parsl.real\n{_INSTALL}{script}"
    line = [sys.executable, "-c", before]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert (ended.stdout, ended.stderr) == ("mpiflow.config\n", "")


def test_a_directory_beside_it_gives_parsls_own_tests(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "configs.py").write_text("from parsl.config import Config\nhere = 'here'")
    script = f"import parsl\nparsl.__path__.append({str(tmp_path)!r})\n"
    assert run(f"{script}from parsl.tests.configs import here\nprint(here)") == "here\n"


def test_functions_that_use_the_module_are_pickled_by_its_name() -> None:
    script = """
import cloudpickle, pickle, subprocess, sys
import parsl
def task():
    return parsl.app.errors.AppTimeout.__module__
code = "import mpiflow.parsl, sys; mpiflow.parsl.install(); import pickle; print(pickle.load(sys.stdin.buffer)())"
print(subprocess.run([sys.executable, "-c", code], input=cloudpickle.dumps(task), capture_output=True).stdout.decode())
"""
    assert run(script).strip() == "mpiflow.errors"


def test_it_loads_next_to_nothing_by_itself() -> None:
    """A runner installs it as well."""
    script = f"""
import sys
sys.path.insert(0, {str(Path(mpiflow.__file__).parent.parent)!r})
before = set(sys.modules)
import mpiflow.parsl; mpiflow.parsl.install()
import parsl, parsl.executors
print(*sorted(set(sys.modules) - before))
"""
    line = [sys.executable, "-S", "-c", script]
    loaded = set(subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout.split())
    assert not loaded & {"logging", "typing", "inspect", "concurrent.futures", "importlib.abc", "mpiflow.errors"}
    assert {name for name in loaded if name.startswith("mpiflow")} == {
        *("mpiflow", "mpiflow.parsl", "mpiflow.parsl.finder", "mpiflow.parsl.names", "mpiflow.parsl.shared_logger"),
    }
    assert len(loaded) < 30, sorted(loaded)


def test_parsls_logger_is_mpiflows_with_the_handlers_it_had() -> None:
    script = """
import io, logging
lines = io.StringIO()
logging.getLogger("parsl").addHandler(logging.StreamHandler(lines))
logging.getLogger("parsl").setLevel(logging.INFO)
import parsl
assert logging.getLogger("parsl") is logging.getLogger("mpiflow")
logging.getLogger("mpiflow.kernel").info("AAA")
logging.getLogger("parsl.app").info("BBB")
end = parsl.set_stream_logger("parsl", stream=lines, format_string="again %(message)s")
logging.getLogger("mpiflow").info("CCC")
end()
print(lines.getvalue())
"""
    assert run(script).split("\n")[:4] == ["AAA", "BBB", "CCC", "again CCC"]


def test_fields_of_the_log_have_parsls_names_as_well(tmp_path: Path) -> None:
    script = """
import json, logging, pathlib
import parsl
from parsl.logconfigs.json import JSONLogging
end = JSONLogging().initialize_logging(log_dir=pathlib.Path("."), log_name="parsl")
logging.getLogger("mpiflow.kernel").info("a", extra={"mpiflow.task": 3, "mpiflow.task_state": "pending"})
logging.getLogger("mpiflow").info("b")
end()
a, b = map(json.loads, open("parsl.jsonlog"))
assert a["parsl.task"] == a["mpiflow.task"] == "3" and a["parsl.task_state"] == "pending"
assert b["formatted"] == "b" and not [key for key in b if key.startswith("parsl.")]
"""
    run(script, cwd=tmp_path)


def test_no_name_is_both_here_and_left_out() -> None:
    here = {*HOMES, *(f"{module}.{name}" for module, names in HOMES.items() for name in names)}
    packages = {"parsl.configs", "parsl.addresses", "parsl.executors.high_throughput", "parsl.jobs", "parsl.monitoring"}
    packages |= {"parsl.providers", "parsl.serialize", "parsl.usage_tracking", "parsl.utils"}
    assert here & LEFT_OUT.keys() == packages, "of these, all that is not named is left out"
