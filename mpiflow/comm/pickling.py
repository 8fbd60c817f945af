"""How calls, results and failures become bytes, and objects again.

Calls and results go by plain pickle (protocol 5), the fastest there is, each on its own: two tasks must not
come to share a list because they shared a message. There are two cases that plain pickle gets wrong:

* it refuses: a lambda, a function or class made inside a function;
* it succeeds here and fails there: anything of the user's script is ``__main__.X`` on rank 0, and a runner's
  ``__main__`` is not the script. So bytes that contain ``__main__`` are made again by cloudpickle, which
  sends such classes by value. cloudpickle also remembers which class it sent under which number, so that an
  instance that comes back is again an instance of the script's own class.

A false alarm (a string that says ``__main__``) costs a little time and nothing else.

Buffers above `wire.INLINE` bytes (numpy arrays and the like) are not copied into the pickle: they leave as
attachments. So does a pickle that is itself larger.
"""

from __future__ import annotations

# The C half of the stdlib's pickle. Its Python half imports `re` and so opens six files, on every rank.
from _pickle import PickleBuffer, dumps, loads

from mpiflow.comm.wire import INLINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Buffer, Callable, Sequence  # type: ignore[attr-defined]
    from typing import Any

#: Buffers of one object that travel beside its pickle. Each is a descriptor on its way through a socket and in
#: every process that has it, and the system allows some hundreds; the rest is copied into the pickle.
MOST_BUFFERS = 64



def pack(value: object, attachments: list[Buffer]) -> bytes:
    """Turn an object into bytes and attachments.

    Parameters
    ----------
    value : object
        What to send.
    attachments : list
        Large buffers are appended to it; a pickle that is large itself goes before them.

    Returns
    -------
    bytes
        The payload; empty when it went into the attachments.

    Raises
    ------
    Exception
        Whatever cloudpickle raises for an object that neither pickle can take.
    """
    before = len(attachments)
    try:
        # Every buffer goes beside at first: a callback that looks at sizes would have to be made for each
        # task, and hardly any task has a buffer at all.
        data = dumps(value, 5, buffer_callback=attachments.append)
        # `find`, for `in` first tries the text as a number, and drops an exception each time.
        right = len(attachments) == before and data.find(b"__main__") < 0
    except Exception:  # whatever plain pickle has against it, cloudpickle's word is the last
        right = False
    if not right:
        return _pack_again(value, attachments, before)
    if len(data) <= INLINE:
        return data
    attachments.append(data)
    return b""


def _pack_again(value: object, attachments: list[Buffer], before: int) -> bytes:
    """Pack what has buffers, or is not for plain pickle."""
    del attachments[before:]

    def beside(buffer: PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < INLINE or len(attachments) - before >= MOST_BUFFERS:
            return True
        attachments.append(raw)
        return False

    try:
        data = dumps(value, 5, buffer_callback=beside)
        by_value = b"__main__" in data
    except Exception:  # as above
        by_value = True
    if by_value:
        from mpiflow.comm.by_value import dumps_by_value

        del attachments[before:]
        data = dumps_by_value(value, beside)
    if len(data) > INLINE:
        attachments.insert(before, data)
        return b""
    return data


def unpack(payload: memoryview | bytes, attachments: Sequence[Buffer] = ()) -> Any:
    """The object again, from what `pack` made.

    Raises
    ------
    Exception
        Whatever the object's own classes raise, or ImportError where they are missing.
    """
    if not attachments:
        return loads(payload)
    if len(payload):
        return loads(payload, buffers=attachments)
    return loads(attachments[0], buffers=attachments[1:])


def pack_function(function: Callable[..., object]) -> bytes:
    """A function as bytes: by its name where any process can import it, else by value."""
    try:
        data = dumps(function, 5)
        if b"__main__" not in data:
            return data
    except Exception:  # not importable under its own name (the app stands there), a lambda, a closure, ...
        pass  # cloudpickle sends those by value, and its error is the one to see
    from mpiflow.comm.by_value import dumps_by_value

    return dumps_by_value(function)


def pack_failure(error: BaseException) -> bytes:
    """A failure as bytes that always open: each exception of its ``__cause__`` chain, and words beside it.

    The words (type, text, traceback) are plain strings, so that rank 0 can speak of an exception whose own
    class it cannot build. `pickle` loses ``__cause__``, so the chain travels as a list.
    """
    import traceback

    chain: list[bytes | None] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link_bytes: bytes | None
        try:
            link_bytes = dumps(link, 5)
            if b"__main__" in link_bytes:
                from mpiflow.comm.by_value import dumps_by_value

                link_bytes = dumps_by_value(link)
        except Exception:  # an attribute that cannot travel; the words below still tell what happened
            link_bytes = _by_value_or_none(link)
        chain.append(link_bytes)
        link = link.__cause__
    try:
        text = str(error)
    except Exception as unprintable:  # a broken __str__ must not hide that the task failed
        text = f"<its text cannot be made: {type(unprintable).__name__}>"
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return dumps((chain, type(error).__qualname__, text, trace), 5)


def placed_failure(payload: bytes, place: str) -> bytes:
    """What `pack_failure` made, with a word in its traceback of the place where it happened."""
    chain, name, text, trace = loads(payload)
    return dumps((chain, name, text, f"On {place}:\n{trace}"), 5)


def _by_value_or_none(error: BaseException) -> bytes | None:
    """An exception by cloudpickle, or None if that cannot take it either."""
    from mpiflow.comm.by_value import dumps_by_value

    try:
        return dumps_by_value(error)
    except Exception:  # its words travel without it
        return None


class RemoteTraceback(Exception):
    """Where a task failed, as text: the last cause of every exception that comes back from a task."""

    def __init__(self, task: str, text: str) -> None:
        super().__init__(task, text)
        self.task = task
        self.text = text

    def __str__(self) -> str:
        return f"\n\nIn {self.task}:\n{self.text}"


def unpack_failure(payload: memoryview | bytes, task: str) -> BaseException:
    """The exception that a task raised, with its causes and its remote traceback as the last of them.

    Parameters
    ----------
    payload : bytes
        What `pack_failure` made.
    task : str
        The task in words, for the error if the exception cannot be built here.
    """
    from itertools import pairwise

    from mpiflow.errors import DeserializationError

    chain, name, text, trace = loads(payload)
    links: list[BaseException] = []
    reason = "it could not be pickled"
    for data in chain:
        if data is None:
            break
        try:
            link = loads(data)
            if not isinstance(link, BaseException):
                raise TypeError(f"it unpickles to {type(link).__name__}")
            links.append(link)
        except Exception as error:  # its __init__ wants other arguments, its module is not here, ...
            reason = f"{type(error).__name__}: {error}"
            break
    if not links:
        words = f"{task} raised {name}: {text} (the exception itself cannot be rebuilt on rank 0: {reason})"
        links = [DeserializationError(words)]
    for upper, lower in pairwise(links):
        upper.__cause__ = lower
    links[-1].__cause__ = RemoteTraceback(task, trace)
    return links[0]
