"""Whether the script sits in an MPI call that its other ranks will never answer.

Only rank 0 runs the script; the others run tasks. A script that was written for MPI, or a library in it, calls
``COMM_WORLD.Barrier()`` and waits for ever, silently: MPI cannot know. The call cannot be forbidden, for mpi4py's
objects are not ours, and the same call on COMM_SELF is right. So the watchdog looks where the main thread has been
for a long time.

It looks at the source of the innermost frame, for mpi4py's functions have no frames of their own, and then at the
object whose method is called there, if that can be had without running anything: many other things have a method
``gather`` or ``reduce``. Nothing is imported, and MPI is not asked: it may not allow a second thread.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import sys
from itertools import islice
from types import FrameType
from typing import Any

from mpiflow.stacks import file_of, line_of_script

#: Methods that wait for all ranks of a communicator, as their names are for arrays.
_ARRAYS = (
    "Barrier", "Bcast", "Gather", "Gatherv", "Scatter", "Scatterv", "Allgather", "Allgatherv", "Alltoall", "Alltoallv",
    "Alltoallw", "Reduce", "Allreduce", "Reduce_scatter", "Reduce_scatter_block", "Scan", "Exscan", "Dup", "Split",
    "Split_type", "Create", "Disconnect",
)  # fmt: skip
#: The same for Python's objects.
_OBJECTS = ("barrier", "bcast", "gather", "scatter", "allgather", "alltoall", "reduce", "allreduce", "scan", "exscan")
COLLECTIVES = frozenset(_ARRAYS + _OBJECTS)
#: Names that say nothing by themselves: with these the object has to be known.
_COMMON = frozenset({"gather", "scatter", "reduce", "scan", "Create", "Split", "Dup", "Disconnect", "Reduce", "Scan"})


def collective_words(frame: FrameType | None) -> list[str]:
    """What to say of a main thread that is in a collective call; nothing when it is not.

    Parameters
    ----------
    frame : frame or None
        The innermost frame of the main thread.
    """
    call = None if frame is None else collective_of(frame)
    if call is None or frame is None:
        return []
    where = line_of_script(frame) or f"{file_of(frame)}:{frame.f_lineno}"
    return [
        f"the script is inside MPI: {call}(), at {where}",
        "it waits for all ranks of that communicator, and the others never call it: rank 0 alone runs the script;",
        "say COMM_SELF or @mpi_app: the communicator of rank 0 alone, or a task that runs on several ranks",
    ]


def collective_of(frame: FrameType) -> str | None:
    """The collective that a frame has called and is inside of, as the source names it; None when it is none.

    Parameters
    ----------
    frame : frame
        The innermost one of its thread.
    """
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None:
        return None
    for call in _calls_at(frame):
        receiver = _resolve(call.value, frame)
        if receiver is _UNKNOWN:
            if call.attr not in _COMMON:
                return ast.unparse(call)
        # What is on the other side of an intercommunicator may well answer.
        elif isinstance(receiver, mpi.Intracomm) and receiver != mpi.COMM_SELF:
            return ast.unparse(call)
    return None


def _calls_at(frame: FrameType) -> list[ast.Attribute]:
    """Methods with the names of collectives, called in the line that a frame is at."""
    source = "".join(linecache.getlines(file_of(frame), frame.f_globals))
    try:
        tree = ast.parse(source)
    except SyntaxError:  # the file is not what was run: edited meanwhile, or made up
        return []
    here, exactly = frame.f_lineno, _call_place(frame)
    return [
        node.func
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in COLLECTIVES
        if node.lineno <= here <= (node.end_lineno or node.lineno)
        if exactly is None or exactly == (node.lineno, node.end_lineno, node.col_offset, node.end_col_offset)
    ]


def _call_place(frame: FrameType) -> tuple[int | None, ...] | None:
    """Lines and columns of the expression that a frame is at; None before Python 3.11, which knows the line only."""
    if sys.version_info < (3, 11):
        return None
    place = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None))
    return None if None in place else place


_UNKNOWN = object()


def _resolve(expression: ast.expr, frame: FrameType) -> Any:
    """The object that a dotted name stands for in a frame, found without running anything; else `_UNKNOWN`."""
    if isinstance(expression, ast.Name):
        for names in (frame.f_locals, frame.f_globals, vars(builtins)):
            if expression.id in names:
                return names[expression.id]
    elif isinstance(expression, ast.Attribute):
        owner = _resolve(expression.value, frame)
        if owner is not _UNKNOWN:
            found = inspect.getattr_static(owner, expression.attr, _UNKNOWN)
            return _UNKNOWN if inspect.isdatadescriptor(found) else found
    return _UNKNOWN
