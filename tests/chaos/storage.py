"""A run directory on a file system that is full, or read-only: a tiny one of memory, mounted over it.

Nobody but root may mount, and not everywhere: `unavailable` says why these faults cannot be had.

What is asked of a job then: on a full disk it goes on and says that results are not kept any more, for they are right
all the same; on a read-only one it does not begin, and says which directory it is. When there is room again, the
next life takes up what had been written until then.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .campaign import Run
    from .schedule import Appointment

NAMES = FULL, READ_ONLY = "disk-full", "read-only"
#: Bytes: some results go in, not all; and all of them.
TINY, AMPLE = 2 << 20, 512 << 20
#: No other faults come meanwhile.
NOTHING: Iterator[Appointment] = iter(())
#: What the job has to say.
SAYS_FULL, SAYS_READ_ONLY = "results cannot be written", "cannot be made: Read-only file system"


def unavailable(directory: Path) -> str:
    """Why nothing can be mounted below a directory; empty if it can."""
    if os.geteuid() != 0:
        return "only root may mount a file system"
    place = directory / "probe"
    place.mkdir()
    try:
        with mounted(place, TINY):
            return ""
    except subprocess.CalledProcessError as error:
        return f"no file system of memory can be mounted here: {error.stderr.strip()}"
    finally:
        place.rmdir()


@contextmanager
def mounted(place: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes over a directory."""
    _mount("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
    try:
        yield
    finally:
        _mount("umount", "--lazy", str(place))


def remount(place: Path, size: int, how: str) -> None:
    """Give it another size, and have it "ro" or "rw"."""
    _mount("mount", "-o", f"remount,{how},size={size}", str(place))


def _mount(*line: str) -> None:
    subprocess.run(line, check=True, capture_output=True, text=True, timeout=30)


def go(run: Run) -> None:
    """Three lives of a run: on a full disk, on a read-only one, and on one with room."""
    place = run.directory / "runinfo"
    place.mkdir()
    run.cut = True  # what does not fit is not kept
    with mounted(place, TINY):
        life = run.live(NOTHING, 0)
        run.table.ended(FULL) if not run.judge(life, FULL) else run.table.survived(FULL)
        if SAYS_FULL not in life.err or "Traceback" in life.err:
            words = "it does not say that nothing is kept any more, or says too much"
            run.fail("wrong", FULL, f"{words}:\n{life.err[-2000:]}")
        remount(place, AMPLE, "ro")
        life = run.live(NOTHING, 0)
        run.judge(life, READ_ONLY)
        run.table.ended(READ_ONLY)
        if life.process.returncode == 0 or SAYS_READ_ONLY not in life.err:
            run.fail("wrong", READ_ONLY, f"it does not say what is wrong:\n{life.err[-2000:]}")
        remount(place, AMPLE, "rw")
        if not run.judge(run.live(NOTHING, 0)) and not run.failures:
            run.fail("wrong", READ_ONLY, "with room again it does not end well")
        run.check_ledger()
