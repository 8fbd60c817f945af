"""What exists only for programs written for Parsl: its module paths, and what it has and a farm has no use for.

`install` makes ``import parsl`` mean mpiflow, for the process that calls it: ``python -m mpiflow --as-parsl`` does so
on rank 0 and in every runner. Nothing of Parsl is imported, whether it is installed or not, and nothing of
mpiflow either until a name is asked for.
"""

from __future__ import annotations

import sys

#: The release of Parsl whose behaviour is followed.
VERSION = "2026.10.26"


def install() -> None:
    """Have ``import parsl`` and everything below it find mpiflow; a second call changes nothing.

    Examples
    --------
    >>> install()
    >>> from parsl.app.app import python_app
    >>> python_app.__module__
    'mpiflow.apps.decorators'
    """
    from mpiflow.parsl.finder import ParslFinder

    if installed():
        return
    for name in [name for name in sys.modules if name == "parsl" or name.startswith("parsl.")]:
        del sys.modules[name]  # the real one, imported by something that ran before
    sys.meta_path.insert(0, ParslFinder())


def installed() -> bool:
    """Whether ``import parsl`` means mpiflow in this process."""
    return any(type(finder).__module__ == "mpiflow.parsl.finder" for finder in sys.meta_path)
