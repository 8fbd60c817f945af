"""The DataFlowKernel of the process: load, dfk, clear, and the barriers."""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mpiflow.config import Config
from mpiflow.errors import ConfigurationError, NoDataFlowKernelError
from mpiflow.executors.options import options
from mpiflow.kernel.dataflow import DataFlowKernel
from mpiflow.kernel.drain import job

_loaded: DataFlowKernel | None = None
#: Whether the loaded one came from a first call, without the script asking; written here only.
_by_itself = False
#: Whether the script has ended. Its threads may not have: what they load now would find no workers any more.
_over = False
#: Held while a call loads: two threads may call their first apps at the same time.
_loading = threading.Lock()


def load(config: Config | None = None) -> DataFlowKernel:
    """Start a DataFlowKernel and make it the one that apps use.

    Parameters
    ----------
    config : Config, optional
        Default: ``Config()``.

    Raises
    ------
    ConfigurationError
        When one is loaded already; `clear` it first.
    NoDataFlowKernelError
        The script has ended.

    Examples
    --------
    >>> import mpiflow
    >>> with mpiflow.load():                                   # doctest: +SKIP
    ...     print(app(1).result())
    """
    global _loaded, _by_itself
    if config is not None and not isinstance(config, Config):
        raise ConfigurationError(f"load() takes a Config, not {type(config).__name__}: {config!r}")
    _check_time()
    if _loaded is not None:
        if not _by_itself or _loaded.unended:
            raise ConfigurationError("Config has already been loaded")
        _loaded.cleanup()
    _loaded = DataFlowKernel(config)
    _by_itself = False
    _end_at_exit()
    return _loaded


def dfk() -> DataFlowKernel:
    """The loaded DataFlowKernel; NoDataFlowKernelError when there is none."""
    if _loaded is None:
        raise NoDataFlowKernelError("Must first load config")
    return _loaded


def clear() -> None:
    """Forget the loaded DataFlowKernel, without cleaning it up."""
    global _loaded
    _loaded = None


def forget(kernel: DataFlowKernel) -> None:
    """Forget this one, if it is the one that is loaded."""
    if _loaded is kernel:
        clear()


def for_a_call() -> DataFlowKernel:
    """The kernel for an app that names none.

    Under ``python -m mpiflow`` a first call loads a default Config by itself, and a later `load` replaces it
    while nothing is unfinished; elsewhere, and for a program written for Parsl, a script has to say where it
    wants to run.
    """
    global _loaded, _by_itself
    if _loaded is None:
        if not options.started_by_mpiflow or options.as_parsl:
            raise NoDataFlowKernelError("Must first load config")
        with _loading:
            if _loaded is None:  # no other thread was faster
                _check_time()
                _loaded = DataFlowKernel()
                _by_itself = True
                _end_at_exit()
    return _loaded


def _check_time() -> None:
    if _over:
        raise NoDataFlowKernelError("The script has ended, and with it the farm: a thread of it is too late for a call")


def end_script(complain: bool) -> None:
    """The script has ended: clean up as `end_loaded` does, and let no thread that it has left load anything more."""
    global _over
    with _loading:
        _over = True
    end_loaded(complain)
    for drain in list(job.drains):  # of kernels that the script has made itself, and left to go on
        drain.kernel.cleanup()


def end_loaded(complain: bool = True) -> None:
    """Clean up the loaded kernel, if there is one, at the end of the script.

    Parameters
    ----------
    complain : bool
        Whether to say that tasks are given up: not to one who has pressed Ctrl-C.
    """
    if _loaded is None or _loaded.cleanup_called:
        return
    left = len(_loaded.unended)
    _loaded.cleanup()
    if left and complain:
        print(
            f"mpiflow: the script has ended, but {left:,} of its tasks have not; they are given up. "
            "Wait for them with mpiflow.wait_for_current_tasks().",
            file=sys.stderr,
        )


def _end_at_exit() -> None:
    """Have a plain ``python script.py`` end its kernel; before the executors' own ends, thus registered after."""
    atexit.unregister(end_loaded)
    atexit.register(end_loaded)


def wait_for_current_tasks() -> None:
    """Wait until every task called so far has ended."""
    dfk().wait_for_current_tasks()


@contextmanager
def superstep() -> Iterator[None]:
    """Collect the calls made inside, send them as one bulk, and wait for all of them at the end.

    Examples
    --------
    >>> with mpiflow.superstep():                              # doctest: +SKIP
    ...     halves = [halve(x) for x in grid]
    """
    with for_a_call().superstep():
        yield


class _Loader(type):
    @property
    def _dfk(cls) -> DataFlowKernel | None:
        """The loaded one, for programs that look without asking."""
        return _loaded


class DataFlowKernelLoader(metaclass=_Loader):
    """Parsl's name for the functions of this module."""

    load = staticmethod(load)
    dfk = staticmethod(dfk)
    clear = staticmethod(clear)
    wait_for_current_tasks = staticmethod(wait_for_current_tasks)
