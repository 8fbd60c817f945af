"""What the threads of this process are at, for a person.

Not `faulthandler`: it shows no source lines and no names of threads, and its text would have to be read back from a
file. Whatever is needed for this is loaded only when somebody asks.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


def own_stacks() -> str:
    """Every thread of this process, the main thread first; the calling one only if that is the main thread.

    Examples
    --------
    >>> own_stacks().splitlines()[0]
    'thread MainThread:'
    """
    import threading
    import traceback

    names = {thread.ident: thread.name for thread in threading.enumerate()}
    here, main = threading.get_ident(), threading.main_thread().ident
    frames = {ident: frame for ident, frame in sys._current_frames().items() if ident == main or ident != here}
    parts = [
        f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frames[ident]))}"
        for ident in sorted(frames, key=lambda ident: (ident != main, ident))
    ]
    return "".join(parts)


def main_frame() -> FrameType | None:
    """The innermost frame of the main thread; None when it has none any more."""
    import threading

    ident = threading.main_thread().ident
    return None if ident is None else sys._current_frames().get(ident)


def line_of_script(frame: FrameType | None) -> str:
    """Where the script is, as ``script.py:12: future.result()``; empty where none of the frames is its own.

    Parameters
    ----------
    frame : frame or None
        The innermost frame of the thread that runs the script.
    """
    import linecache
    import os

    while frame is not None:
        if frame.f_globals is vars(sys.modules["__main__"]):
            path = file_of(frame)
            return f"{os.path.basename(path)}:{frame.f_lineno}: {linecache.getline(path, frame.f_lineno).strip()}"
        frame = frame.f_back
    return ""


def file_of(frame: FrameType) -> str:
    """The file of a frame's source. A script's own name may be relative to a directory that it has left."""
    import os

    main = vars(sys.modules["__main__"])
    name, script = frame.f_code.co_filename, str(main.get("__file__", ""))
    return script if frame.f_globals is main and os.path.basename(name) == os.path.basename(script) else name
