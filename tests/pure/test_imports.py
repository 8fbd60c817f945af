"""Who may import whom, read from the source; and what a worker rank loads, seen in one."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import mpiflow

PACKAGE = Path(mpiflow.__file__).parent

#: What any room may import: they import nothing of ours themselves.
COMMON = {"__init__", "context", "errors", "exitcodes", "linux", "representation", "stacks"}
#: For each room the rooms of ours that it may import beside those: the arrows of the design,
#: `apps → kernel → executors → farm` and `executors, worker → comm`, followed on. `executors.local` puts a
#: worker into the script's own process.
MAY_IMPORT: dict[str, set[str]] = {
    "context": set(),
    "errors": set(),
    "exitcodes": set(),
    "linux": set(),
    "representation": set(),
    "stacks": set(),
    "farm": set(),
    "comm": set(),
    "data": set(),
    "monitor": set(),
    "jobs": set(),
    "worker": {"comm", "parsl"},
    "executors": {"comm", "farm", "monitor", "parsl", "worker"},
    "config": {"configfile", "executors", "kernel", "monitor", "parsl"},
    "configfile": {"config", "executors", "kernel", "monitor"},
    "concurrent": {"apps", "config", "kernel"},
    "parsl": {"config", "executors"},
    "kernel": {"comm", "config", "data", "executors", "farm", "monitor"},
    "apps": {"comm", "config", "data", "executors", "farm", "kernel", "monitor"},
}
#: The rooms on top, which start the others.
FREE = {"__init__", "__main__", "cli"}

#: What would make the scheduler depend on where and when it runs.
IMPURE = {
    *(
        "asyncio",
        "concurrent",
        "ctypes",
        "io",
        "logging",
        "mpi4py",
        "multiprocessing",
        "numpy",
        "os",
        "pathlib",
    ),
    *("random", "select", "selectors", "shutil", "signal", "socket", "subprocess", "sys", "tempfile"),
    *("threading", "time"),
}
#: What a rank that only works must not pay for: at a thousand ranks each is a thousand opens, or ten.
NOT_ON_A_WORKER = {
    *("argparse", "asyncio", "cloudpickle", "concurrent.futures", "dataclasses", "inspect", "jinja2", "json"),
    *("logging", "multiprocessing", "numpy", "pathlib", "rich", "sqlite3", "subprocess", "tempfile"),
    *("tomllib", "typing", "unittest", "urllib"),
}


class Import(NamedTuple):
    """One import of a module."""

    importer: str
    line: int
    imported: str
    for_types: bool
    in_a_function: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports_of(module: str, path: Path) -> Iterator[Import]:
    """Every import of a module, those for types and those inside functions too."""

    def walk(node: ast.AST, for_types: bool, in_a_function: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(module, node.lineno, name.name, for_types, in_a_function)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative imports hide who imports whom"
            assert node.module is not None
            for name in node.names:
                below = f"{node.module}.{name.name}"
                is_module = (PACKAGE.parent / below.replace(".", "/")).with_suffix(".py").exists()
                is_package = (PACKAGE.parent / below.replace(".", "/")).is_dir()
                imported = below if is_module or is_package else node.module
                yield Import(module, node.lineno, imported, for_types, in_a_function)
        types = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        deeper = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for field, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child, for_types or (types and field == "body"), in_a_function or deeper)

    yield from walk(ast.parse(path.read_text()), False, False)


IMPORTS = [found for module, path in modules() for found in imports_of(module, path)]


def room(module: str) -> str:
    """The room of a module of ours: ``kernel`` for ``mpiflow.kernel.graph``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def ours(module: str) -> bool:
    return module.split(".")[0] == "mpiflow"


def test_every_room_has_its_rule() -> None:
    assert {room(module) for module, _ in modules()} <= MAY_IMPORT.keys() | FREE


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_a_room_imports_only_what_it_may(name: str) -> None:
    legal = MAY_IMPORT[name] | {name} | (COMMON if name not in COMMON else {"__init__"})
    found = [i for i in IMPORTS if room(i.importer) == name and not i.for_types and ours(i.imported)]
    broken = [str(i) for i in found if room(i.imported) not in legal]
    assert broken == [], f"{name} may import {sorted(MAY_IMPORT[name])} only"


def test_only_a_lone_process_has_its_worker_beside_the_executor() -> None:
    found = {i.importer for i in IMPORTS if room(i.importer) == "executors" and room(i.imported) == "worker"}
    assert found == {"mpiflow.executors.local"}


@pytest.mark.parametrize("module", ["mpiflow.farm", "mpiflow.farm.farm", "mpiflow.farm.gangs", "mpiflow.kernel.graph"])
def test_the_scheduler_and_the_graph_are_pure(module: str) -> None:
    found = [i for i in IMPORTS if i.importer == module]
    allowed = ("mpiflow.errors", "mpiflow.farm.farm")
    assert [str(i) for i in found if ours(i.imported) and i.imported not in allowed] == []
    assert [str(i) for i in found if i.imported.split(".")[0] in IMPURE] == []
    source = (PACKAGE.parent / module.replace(".", "/")).with_suffix(".py")
    names = ast.walk(ast.parse(source.read_text())) if source.exists() else iter(())
    called = {n.func.id for n in names if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not called & {"open", "print", "input", "__import__", "exec", "eval"}


def test_errors_import_nothing() -> None:
    assert [str(i) for i in IMPORTS if i.importer == "mpiflow.errors" and i.imported != "__future__"] == []


def test_mpi_is_imported_in_one_room_only() -> None:
    broken = [i for i in IMPORTS if i.imported.split(".")[0] == "mpi4py" and room(i.importer) != "comm"]
    assert [str(i) for i in broken] == []


def test_modules_import_each_other_in_no_circle() -> None:
    """Imports inside functions apart: they are how a circle is broken."""
    edges: dict[str, set[str]] = {module: set() for module, _ in modules()}
    for i in IMPORTS:
        if ours(i.imported) and not (i.for_types or i.in_a_function) and i.imported != i.importer:
            edges[i.importer].add(i.imported)
    while leaves := {module for module, needs in edges.items() if not needs & edges.keys()}:
        for module in leaves:
            del edges[module]
    assert sorted(edges) == [], "these import each other"


def test_what_is_imported_of_others_is_named_by_the_project() -> None:
    """The standard library, and the four packages that it depends on."""
    allowed = {*sys.stdlib_module_names, "mpiflow", "mpi4py", "cloudpickle", "numpy", "rich"}
    allowed |= {"tomllib", "tomli", "jinja2"}
    foreign = [i for i in IMPORTS if i.imported.split(".")[0] not in allowed]
    assert [str(i) for i in foreign] == []


# --- what a rank loads ---------------------------------------------------------------------------------

_AS_A_RANK = """
import sys
before = set(sys.modules)
import mpiflow.__main__
import mpiflow.comm.launcher
import mpiflow.cli.boot
import mpiflow.worker.worker
import mpiflow.comm.segments
print(*sorted(set(sys.modules) - before))
"""


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """Modules that a worker rank loads beyond what the interpreter has at its start."""
    # -S -I: what a site loads into every interpreter is not ours to count
    line = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})\n{_AS_A_RANK}",
    ]
    return set(subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout.split())


@pytest.mark.parametrize("name", sorted(NOT_ON_A_WORKER))
def test_a_worker_rank_does_not_load(name: str, loaded: set[str]) -> None:
    assert name not in loaded


def test_a_worker_rank_loads_few_rooms_and_none_of_rank_0s(loaded: set[str]) -> None:
    rooms = {room(module) for module in loaded if ours(module)}
    assert rooms == {"__init__", "__main__", "cli", "comm", "context", "errors", "linux", "worker"}
    assert {module for module in loaded if module.startswith("mpiflow.cli")} == {"mpiflow.cli", "mpiflow.cli.boot"}


def test_a_worker_rank_opens_few_files_of_ours_and_others(loaded: set[str]) -> None:
    from_files = [name for name in loaded if name not in sys.builtin_module_names]
    assert len(from_files) <= 60, sorted(from_files)


def test_public_names_are_there_and_cost_nothing_until_they_are_used() -> None:
    script = (
        "import sys, mpiflow; before = set(sys.modules); "
        "assert not [m for m in before if m.startswith('mpiflow.')]; "
        "assert set(mpiflow.__all__) <= set(dir(mpiflow)); "
        "print(*[n for n in mpiflow.__all__ if getattr(mpiflow, n, None) is None]); "
        "assert 'mpi4py.MPI' not in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.stderr, ended.stdout.strip()) == ("", "")


def test_public_names_are_said_once_to_people_and_to_type_checkers() -> None:
    assert set(mpiflow._HOME) == set(mpiflow.__all__)
    for_types = {
        name.asname or name.name: node.module
        for top in ast.parse(Path(mpiflow.__file__).read_text()).body
        if isinstance(top, ast.If)
        for node in top.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert for_types == mpiflow._HOME


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'mpiflow' has no attribute 'nothing'"):
        mpiflow.nothing  # noqa: B018
