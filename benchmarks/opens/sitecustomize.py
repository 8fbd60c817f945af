"""Put on PYTHONPATH by `benchmarks.footprint`: writes down every file that a Python process opens.

One file a process under the directory named in FOOTPRINT_DIR, called RANK.PID, one line a file opened. The
log is opened for every line anew: a process that closes inherited descriptors, as a task's does, would
otherwise have its log closed under it, and the next line written to whatever got the number.
"""

import os
import sys
import time

DIRECTORY = os.environ.get("FOOTPRINT_DIR", "")
RANK_VARIABLES = ("FOOTPRINT_RANK", "PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")
#: the audited events that open a file, and which of their arguments is its path
PATH_OF = {"open": 0, "import": 1, "ctypes.dlopen": 0}

_writing = False


def note(event: str, args: tuple[object, ...]) -> None:
    """Write down a file that is opened, or loaded as an extension module."""
    global _writing
    if event not in PATH_OF or _writing:
        return
    opened = args[PATH_OF[event]]
    if not isinstance(opened, (str, bytes, os.PathLike)):  # a descriptor, or no file at all
        return
    _writing = True
    try:
        path = os.path.join(DIRECTORY, f"{os.environ['FOOTPRINT_RANK']}.{os.getpid()}")
        log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(log, f"{time.time():.6f} {os.fsdecode(opened)}\n".encode())
        os.close(log)
    finally:
        _writing = False


if DIRECTORY:
    # The launcher's own variables are taken from the environment of tasks; this one stays.
    ranks = [os.environ[name] for name in RANK_VARIABLES if name in os.environ]
    os.environ["FOOTPRINT_RANK"] = ranks[0] if ranks else "0"
    sys.addaudithook(note)
