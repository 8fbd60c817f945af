"""Requests to a run from outside, through files in its run directory: a login node and rank 0 share no more than that.

    requests/open                     while the run listens: host and process id of rank 0
    requests/drain-HOST-PID.request   what somebody wants, and who
    requests/drain-HOST-PID.taken     rank 0 has seen it
    requests/drain-HOST-PID.answer    what it says to that, until whoever has asked has read it

Every file is written under another name and then renamed, so that nobody reads half of one. Rank 0 looks at most
once a second. Nothing listens on an address: who may write into the run directory may ask, and nobody else.
"""

from __future__ import annotations

import os
import pwd
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mpiflow.errors import RequestError

#: Least seconds between two looks of rank 0.
LOOK_EVERY = 1.0
#: Seconds between two looks for an answer.
_ANSWER_EVERY = 0.1

_OPEN, _REQUEST, _TAKEN, _ANSWER = "open", ".request", ".taken", ".answer"


# --- who asks ----------------------------------------------------------------------------------------------


def ask(run_dir: str | os.PathLike[str], name: str) -> Path:
    """Write a request to a run.

    Parameters
    ----------
    run_dir : path
        Its run directory, or a directory of such (``runinfo``): then the newest run in it.
    name : str
        What is wanted: "drain", say.

    Returns
    -------
    Path
        The request, for `wait_for_answer`.

    Raises
    ------
    RequestError
        It is no run directory, the run has ended, or the directory may not be written to.
    """
    directory = _requests_of(Path(run_dir))
    _check_open(directory)
    path = directory / f"{name}-{os.uname().nodename}-{os.getpid()}{_REQUEST}"
    try:
        _write(path, f"{_user()} on {os.uname().nodename}")
    except OSError as error:
        raise RequestError(f"{directory}: a request cannot be written there: {error.strerror}") from error
    return path


def wait_for_answer(path: str | os.PathLike[str], seconds: float) -> str:
    """What the run answers to a request.

    Parameters
    ----------
    path : path
        What `ask` has returned.
    seconds : float
        How long to wait, at most.

    Raises
    ------
    RequestError
        No answer has come. The request is taken back, unless rank 0 has it already.
    """
    request = Path(path)
    answer = request.with_suffix(_ANSWER)
    end = time.monotonic() + seconds
    while True:
        try:
            text = answer.read_text()
        except FileNotFoundError:
            if time.monotonic() >= end:
                break
            time.sleep(_ANSWER_EVERY)
        else:
            answer.unlink()
            return text
    try:
        request.unlink()
    except FileNotFoundError:
        words = "it has seen the request, and has not answered it"
    else:
        words = "rank 0 does not look: it has died, or is stuck in a call that does not return to Python"
    raise RequestError(f"the run in {request.parent.parent} has not answered within {seconds:g} s: {words}")


def _requests_of(given: Path) -> Path:
    """The ``requests`` directory of a run, or of the newest one in a directory of runs."""
    if not given.is_dir():
        raise RequestError(f"{given}: there is no such directory (looked in {os.getcwd()})")
    try:
        runs = [given] if (given / "requests").is_dir() else _runs_in(given)
    except OSError as error:
        raise RequestError(f"{given} cannot be read: {error.strerror}") from error
    if not runs:
        raise RequestError(f"{given} is no run directory: there is no requests/ in it, nor a numbered run with one")
    return runs[-1] / "requests"


def _runs_in(directory: Path) -> list[Path]:
    """Numbered runs, the newest last."""
    numbered = sorted((int(name), name) for name in os.listdir(directory) if name.isdecimal())
    return [directory / name for _, name in numbered if (directory / name / "requests").is_dir()]


def _check_open(directory: Path) -> None:
    """RequestError, unless the run listens."""
    try:
        host, pid = (directory / _OPEN).read_text().split()
    except FileNotFoundError:
        raise RequestError(f"the run in {directory.parent} has ended") from None
    except OSError as error:
        raise RequestError(f"{directory} cannot be read: {error.strerror}") from error
    if host == os.uname().nodename and not os.path.exists(f"/proc/{pid}"):
        raise RequestError(f"the run in {directory.parent} has died: its rank 0, process {pid}, is not there any more")


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container, say
        return f"user {os.getuid()}"


# --- who answers -------------------------------------------------------------------------------------------


class Request:
    """What somebody wants of this run.

    Parameters
    ----------
    taken : Path
        Its file.
    name : str
        What is wanted.
    by : str
        Who wants it, in words.
    """

    def __init__(self, taken: Path, name: str, by: str) -> None:
        self._taken = taken
        self.name = name
        self.by = by

    def answer(self, text: str) -> None:
        """Tell whoever has asked; at once or later, but once."""
        _write(self._taken.with_suffix(_ANSWER), text)
        self._taken.unlink(missing_ok=True)


#: What this process can do, by the name of the request. Each is given the `Request`, and sees to its answer.
answers: dict[str, Callable[[Request], object]] = {}


#: How many kernels of this process listen in a directory: with ``--run-dir`` they share one.
_listening: Counter[Path] = Counter()


class Requests:
    """The requests to one run.

    Parameters
    ----------
    run_dir : path
        Its run directory.

    Raises
    ------
    OSError
        The directory cannot be written to.
    """

    def __init__(self, run_dir: str | os.PathLike[str]) -> None:
        self.directory = Path(run_dir, "requests")
        self.directory.mkdir(exist_ok=True)
        self._who = f"{os.uname().nodename} {os.getpid()}"
        _write(self.directory / _OPEN, self._who)
        _listening[self.directory] += 1
        self._next = 0.0

    def serve(self, now: float) -> None:
        """Have each request that has come answered by whoever can; looks at most once a second.

        Parameters
        ----------
        now : float
            `time.monotonic`, in seconds.
        """
        for request in self.poll(now):
            answer = answers.get(request.name)
            if answer is None:
                request.answer(f"this run has no answer to {request.name!r}; it has to {', '.join(sorted(answers))}\n")
                continue
            try:
                answer(request)
            except Exception as error:  # it belongs to whoever has asked; the run goes on
                request.answer(f"this failed: {type(error).__name__}: {error}\n")

    def poll(self, now: float) -> list[Request]:
        """Requests that have come; looks at most once a second, and is told of each only once.

        Parameters
        ----------
        now : float
            `time.monotonic`, in seconds.
        """
        if now < self._next:
            return []
        self._next = now + LOOK_EVERY
        return self._take()

    def _take(self) -> list[Request]:
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:  # somebody has tidied up: whoever asks will be told that this is no run directory
            return []
        taken: list[Request] = []
        for name in names:
            if name.endswith(_REQUEST):
                path = self.directory / name
                claimed = path.with_suffix(_TAKEN)
                with suppress(FileNotFoundError):  # taken back
                    path.rename(claimed)  # two kernels that share a directory must not both answer
                    if (by := _read(claimed)) is not None:
                        taken.append(Request(claimed, name.partition("-")[0], by))
        return taken

    def close(self) -> None:
        """Listen no more; whoever has asked in this very moment is told."""
        _listening[self.directory] -= 1
        if _listening[self.directory]:
            return
        with suppress(FileNotFoundError):
            opened = self.directory / _OPEN
            if opened.read_text() == self._who:
                opened.unlink()
        for request in self._take():
            request.answer("the run has ended\n")


def _read(taken: Path) -> str | None:
    """Who asks; None for what `ask` has not written, or for nobody to read but its owner."""
    try:
        return taken.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _write(path: Path, text: str) -> None:
    """Write a file as a whole."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.rename(path)
