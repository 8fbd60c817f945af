"""The import hook: modules called ``parsl...`` whose names are mpiflow's.

They are modules of their own and not the ones of mpiflow under a second name: Parsl's layout is not ours, and a
function that uses the module `parsl` is pickled by that name. Names are looked up when first used, because a runner
should import only what its tasks use.

What Parsl has and mpiflow has not is an ImportError that says so: an AttributeError far from the import, or Parsl
itself beside mpiflow in one process, would be harder to understand.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from mpiflow.parsl.names import HOMES, LEFT_OUT
from mpiflow.parsl.shared_logger import share_logger


class ParslFinder:
    """Finds every module of Parsl that mpiflow has a counterpart of."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """The way to a module called ``parsl...``; None for all others.

        Parameters
        ----------
        name : str
            Of the module, in full.
        path : sequence of str, optional
            Where the package above it has its files. Ours have none, unless somebody adds a directory: that is how
            Parsl's own tests, which are in ``parsl.tests``, are run on mpiflow.
        target
            Not used.

        Raises
        ------
        ModuleNotFoundError
            For one that mpiflow leaves out.
        """
        if name != "parsl" and not name.startswith("parsl."):
            return None
        if name in HOMES:
            # importlib.abc.Loader, which it wants, would load more than all of this
            return ModuleSpec(name, _Loader, is_package=True)  # type: ignore[arg-type]
        found = PathFinder.find_spec(name, path) if path else None
        if found is None:
            raise ModuleNotFoundError(_left_out(name, f"No module named {name!r}"), name=name)
        return found


class _Loader:
    """Makes such a module."""

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType | None:
        """The default one."""
        return None

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Give it the names it has; none is looked up yet."""
        homes = HOMES[module.__name__]

        def get(name: str) -> object:
            value = _value(module.__name__, name)
            setattr(module, name, value)
            return value

        if module.__name__ == "parsl":
            share_logger()
        module.__path__ = []
        module.__dict__["__getattr__"] = get
        module.__dict__["__dir__"] = lambda: sorted({*vars(module), *homes})
        module.__dict__["__all__"] = [name for name in homes if not name.startswith("_")]


def _value(module: str, name: str) -> object:
    """What a name of a module stands for: something of mpiflow's, or a module of Parsl's below it."""
    home = HOMES[module].get(name)
    if home is not None:
        where, _, other = home.partition(":")
        return getattr(import_module(where), other or name)
    below = f"{module}.{name}"
    if below in HOMES:
        return import_module(below)
    # names with an underscore are what Python and its tools ask modules for, to see whether they are there
    if not name.startswith("_") and any(below == left or below.startswith(f"{left}.") for left in LEFT_OUT):
        raise ImportError(_left_out(below, f"cannot import name {name!r} from {module!r}"), name=module)
    raise AttributeError(f"module {module!r} has no attribute {name!r} (it is mpiflow's, by --as-parsl)")


def _left_out(name: str, problem: str) -> str:
    """The problem, and why it is one."""
    while name not in LEFT_OUT and "." in name:
        name = name.rpartition(".")[0]
    reason = LEFT_OUT.get(name, "mpiflow has no counterpart of it")
    return f"{problem}: left out of mpiflow: {reason}; see docs/from-parsl.md"
