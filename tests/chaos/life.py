"""One life of a run: the program is started, faults come, it ends; and nothing of it may be left."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from . import faults, victims
from .jobs import inherited

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .faults import Injected
    from .schedule import Appointment

#: Seconds without any note of the program, and without its end, that count as a hang. A rank 0 that is caught inside
#: MPI is ended after 120.
PATIENCE = 180.0
#: Seconds that an ended life has until nothing of it may be there any more.
GONE_WITHIN = 10.0
#: Seconds between two looks at a life.
LOOK_EVERY = 0.005
#: After so many seconds an appointment that nobody could be found for is dropped.
FIND_WITHIN = 2.0

MARK = "CHAOS_MARK"


class Life:
    """One start of the program.

    Parameters
    ----------
    directory : Path
        Where it runs.
    name : str
        For its files of output.
    line : sequence of str
        The command.
    """

    def __init__(self, directory: Path, name: str, line: Sequence[str]) -> None:
        self.directory = directory
        self._mark = f"{MARK}={uuid.uuid4().hex}"
        # What launchers leave behind when they are killed is named by process ids, which come again.
        self.temporary = directory / f"tmp-{name}"
        self.temporary.mkdir()
        variable, _, value = self._mark.partition("=")
        own = {**inherited(), variable: value, "TMPDIR": str(self.temporary)}
        self._out, self._err = directory / f"out-{name}", directory / f"err-{name}"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                line,
                cwd=directory,
                env=own,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.began = time.monotonic()
        self.injected: list[Injected] = []
        self.log: list[str] = []
        self.hung = False
        self._hurt: set[int] = set()
        self._shared: set[str] = set()
        self._size, self._stirred = -1, self.began
        self._read = self._lines = 0

    # --- what it says ---------------------------------------------------------------------------------------

    @property
    def out(self) -> str:
        """Standard output."""
        return self._out.read_text("utf-8", "replace")

    @property
    def err(self) -> str:
        """Standard error."""
        return self._err.read_text("utf-8", "replace")

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self.began

    def _notes(self) -> int:
        """How many bytes of notes there are; a line an execution or result, of some thirty bytes."""
        total = 0
        for name in ("executions", "seen"):
            with contextlib.suppress(FileNotFoundError):
                total += os.path.getsize(self.directory / name)
        return total

    def seen(self) -> int:
        """How many results the script has seen, in all lives."""
        with contextlib.suppress(FileNotFoundError), (self.directory / "seen").open("rb") as file:
            file.seek(self._read)
            new = file.read()
            self._read += len(new)
            self._lines += new.count(b"\n")
        return self._lines

    # --- what happens to it ---------------------------------------------------------------------------------

    def endure(self, schedule: Iterator[Appointment], most: int, draw: random.Random) -> None:
        """Inject faults as their time comes, until the life has ended.

        Parameters
        ----------
        schedule : iterator of Appointment
            What comes.
        most : int
            How many faults at most.
        draw : random.Random
            Who is hit.
        """
        coming = self._draw(schedule) if most else None
        base, done, drawn_at = self.seen(), 0, None
        paused: list[Injected] = []
        while self.goes_on():
            now = time.monotonic()
            for injected in [one for one in paused if one.until is not None and one.until <= now]:
                faults.take_back(injected)
                paused.remove(injected)
            if coming is not None and self._is_time(coming, base):
                drawn_at = drawn_at or now
                injected = self._inject(coming, draw, now)
                if injected is not None:
                    done += 1
                    paused += [injected] if injected.until is not None else []
                if injected is not None or now - drawn_at > FIND_WITHIN:
                    over = done >= most or (injected is not None and injected.fault.final)
                    coming = None if over else self._draw(schedule)
                    base, drawn_at = self.seen(), None
            time.sleep(LOOK_EVERY)
        for injected in paused:
            faults.take_back(injected)

    def _draw(self, schedule: Iterator[Appointment]) -> Appointment:
        """The next fault; one for the start of a life only where it is the first."""
        coming = next(schedule)
        while coming.fault.early and self.injected:
            coming = next(schedule)
        return coming

    def _is_time(self, coming: Appointment, base: int) -> bool:
        if coming.fault.early:
            return self.seconds >= coming.seconds
        return self.seen() - base >= coming.tasks

    def _inject(self, coming: Appointment, draw: random.Random, now: float) -> Injected | None:
        self._shared |= victims.shared_files(victims.marked(self._mark))
        injected = faults.inject(coming.fault, self.process.pid, self._hurt, draw, now)
        if injected is not None:
            self.injected.append(injected)
            words = f"{self.seconds:7.2f} s  {coming.fault.name}: {injected.where}, pid {injected.victim.pid}"
            self.log.append(words if injected.until is None else f"{words}, for {injected.until - now:.1f} s")
        return injected

    def goes_on(self) -> bool:
        """Whether it has not ended; one that stands still is ended here."""
        if self.process.poll() is not None:
            return False
        size, now = self._notes(), time.monotonic()
        if size != self._size:
            self._size, self._stirred = size, now
        if now - self._stirred > PATIENCE:
            self.hung = True
            self.log.append(f"{self.seconds:7.2f} s  HANGS: nothing has happened for {PATIENCE:g} s")
            self._keep_stacks()
            self.kill()
        return True

    # --- its end --------------------------------------------------------------------------------------------

    def left_behind(self) -> list[str]:
        """What is still there a while after its end, in words; processes among it are killed."""
        end = time.monotonic() + GONE_WITHIN
        while (left := victims.marked(self._mark)) and time.monotonic() < end:
            time.sleep(0.02)
        words = [f"process {p.pid} (state {p.state}, parent {p.parent}): {victims.command(p.pid)}" for p in left]
        self.kill()
        files = sorted(path for path in self._shared if os.path.exists(path))
        for path in files:
            os.unlink(path)
        shutil.rmtree(self.temporary, ignore_errors=True)
        return words + [f"shared memory {path}" for path in files]

    def kill(self) -> None:
        """Kill whatever there is of it."""
        while left := victims.marked(self._mark):
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.05)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)

    def _keep_stacks(self) -> None:
        """Where each process stands, into a file beside the others."""
        spy = shutil.which("py-spy", path=os.path.dirname(sys.executable)) or shutil.which("py-spy")
        with (self.directory / f"{self._out.name}.stacks").open("w") as file:
            for process in victims.marked(self._mark):
                file.write(f"=== {process} {victims.command(process.pid)}\n")
                if spy is not None and "python" in victims.command(process.pid):
                    line = [spy, "dump", "--nonblocking", "--pid", str(process.pid)]
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        said = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False)
                        file.write(said.stdout + said.stderr)
                with contextlib.suppress(OSError):
                    file.write(f"wchan: {Path(f'/proc/{process.pid}/wchan').read_text()}\n")
