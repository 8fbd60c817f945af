"""The process between the launcher and a rank, which keeps the death of one rank from ending the job.

hydra (and Slurm's PMI-2) watch the process they have started and the descriptor ``PMI_FD`` that it talks
through. When a rank dies, its process and its end of that descriptor go at once, and the launcher kills all
other ranks; ``-disable-auto-cleanup`` was tried, signals every survivor, and kills them all the same in nine
of 24 runs. So the process that the launcher has started forks before MPI is there: the child becomes the rank,
and the parent stays, without MPI, with the descriptor open. A dead rank then goes unnoticed by the launcher,
and the guardian says in its place what it would have said at its end.

It costs 4 MiB a rank and wakes for nothing (rank 0's: once in five seconds). Open MPI needs none: with
``--with-ft ulfm`` its own daemons keep the job alive, and without them a guardian changes nothing.

The rank tells its guardian how it will leave, in lines on a pipe::

    started               MPI_Init is over; before it, the death of a rank leaves all others in MPI_Init
    report DIRECTORY      where to leave a note of this rank's death, for rank 0 to find
    finalized CODE        MPI_Finalize is under way: the launcher will hear what it is used to
    leave CODE            the rank ends without MPI_Finalize, because another rank has been lost
    abort CODE            the same, and ranks are left that will not end by themselves

No such line, and the rank is dead: a worker's guardian leaves a note and then quietly in its place; rank 0's
ends the job with the code that says "start me again".

Rank 0 can be caught inside MPI by a peer that died a moment ago: MPICH has sends that never come back. So it
marks one byte of shared memory for as long as it is inside MPI, and its guardian ends it when it has been
inside one and the same call for two minutes. The byte costs 40 ns a call.
"""

from __future__ import annotations

import os
import select
import sys
import time

from mpiflow import linux
from mpiflow.linux import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from mmap import mmap

    #: One byte that says whether a rank is inside MPI.
    Inside = bytearray | mmap

#: Seconds between two looks at rank 0, and how many it may be inside one MPI call, or stopped.
LOOK_EVERY, INSIDE_AT_MOST, STOPPED_AT_MOST = 5.0, 120.0, 20.0
#: Seconds that a rank may take to end after it has said that it does.
ENDS_WITHIN = 60.0
#: Seconds that the others have to end before this process ends with another code than 0, at which hydra kills them.
HEAD_START = 0.1

_OUTSIDE, _INSIDE, _SEEN_INSIDE = 0, 1, 2


class Guardian:
    """The rank's end of its guardian; without one, all of this does nothing.

    Parameters
    ----------
    words : int
        Descriptor of the pipe; -1: there is no guardian.
    inside : bytearray or mmap
        Its one byte is `_INSIDE` while this rank is inside MPI.
    """

    def __init__(self, words: int = -1, inside: Inside | None = None) -> None:
        self._words = words
        self.inside: Inside = bytearray(1) if inside is None else inside

    @property
    def there(self) -> bool:
        """Whether there is one."""
        return self._words >= 0

    def tell(self, word: str) -> None:
        """Tell it one of the lines above."""
        if self._words >= 0:
            os.kill(os.getppid(), signal.SIGCONT)  # somebody may have stopped it, and it must not stay behind
            os.write(self._words, word.encode() + b"\n")


def fork_guardian(environ: Mapping[str, str]) -> Guardian:
    """Fork, where the launcher has a descriptor to be kept open; the child returns, as the rank.

    Before MPI, before any thread, from the main thread. The parent stays in here and ends with the rank.

    Parameters
    ----------
    environ : mapping of str to str
        The environment as the launcher has made it.
    """
    pmi = environ.get("PMI_FD", "")
    rank = environ.get("PMI_RANK", "")
    if not (pmi.isdecimal() and rank.isdecimal()):
        return Guardian()
    inside: Inside | None = None
    if rank == "0":
        import mmap

        inside = mmap.mmap(-1, 1)
    reading, writing = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child:
        os.close(writing)
        hydra = "HYDI_CONTROL_FD" in environ or "MPI_LOCALNRANKS" in environ
        os._exit(_Guard(child, int(rank), int(pmi), reading, inside, hydra).watch())
    os.close(reading)
    linux.die_with_parent(signal.SIGKILL, parent)
    return Guardian(writing, inside)


class _Guard:
    """What the guardian knows of its rank."""

    def __init__(self, child: int, rank: int, pmi: int, words: int, inside: Inside | None, hydra: bool) -> None:
        self.hydra = hydra
        self.child = child
        self.rank = rank
        self.pmi = pmi
        self.words = words
        self.inside = inside
        self.started = False
        self.notes = ""
        self.farewell = ""  #: how the rank has said that it leaves
        self.code = 0
        self.killed = False  #: whether a signal has ended it
        self._text = b""
        self._stopped = self._caught = 0.0  # seconds

    def watch(self) -> int:
        """Wait for the rank's end, and say what is to be said then; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # launchers signal the group, so the rank has it already
        poll = select.poll()
        poll.register(self.words, select.POLLIN)
        poll.register(self.pmi, 0)  # says only that its other end has gone
        died = linux.end_of(self.child)
        if died >= 0:
            poll.register(died, select.POLLIN)
        while True:
            ready = dict(poll.poll(LOOK_EVERY * 1000 if self.inside is not None else None))
            if self.words in ready and self._listen():
                break
            if died in ready:
                self._listen()  # its last word may have come together with its end
                break
            if self.pmi in ready:  # the launcher has gone, and nobody waits for this rank any more
                from mpiflow.exitcodes import RELAUNCH  # here and below: one file less for every rank to open

                self._kill()
                return RELAUNCH
            if not ready:
                self._look()
        return self._end()

    def _listen(self) -> bool:
        """Take what the rank says; whether it has said good-bye, or can say nothing more."""
        os.set_blocking(self.words, False)
        try:
            chunk = os.read(self.words, 4096)
        except BlockingIOError:
            return False
        *lines, self._text = (self._text + chunk).split(b"\n")
        for line in lines:
            word, _, rest = line.decode().partition(" ")
            if word == "started":
                self.started = True
            elif word == "report":
                self.notes = rest
            else:
                self.farewell, self.code = word, int(rest)
        return not chunk or bool(self.farewell)

    def _look(self) -> None:
        """See whether rank 0 is inside one MPI call for too long, or stopped, and end it then."""
        assert self.inside is not None
        # Time in which this process itself did not run, a suspended job's, does not count: each look adds a little.
        self._stopped = self._stopped + LOOK_EVERY if linux.is_stopped(self.child) else 0.0
        if self.inside[0] == _OUTSIDE:
            self._caught = 0.0
        elif self.inside[0] == _INSIDE:
            self.inside[0] = _SEEN_INSIDE  # overwritten by the rank at its next step out of MPI, or into it
            self._caught = 0.0
        else:
            self._caught += LOOK_EVERY
        if self._caught >= INSIDE_AT_MOST:
            self._give_up(f"inside one MPI call for {self._caught:g} s; a rank that died a moment ago can cause this")
        elif self._stopped >= STOPPED_AT_MOST:
            self._give_up(f"stopped by a signal for {self._stopped:g} s")

    def _give_up(self, why: str) -> None:
        from mpiflow.exitcodes import RELAUNCH

        print(
            f"mpiflow: rank 0 has been {why}. The job is ended with code {RELAUNCH}; run it again, "
            "and it takes up what is in its journal.",
            file=sys.stderr,
            flush=True,
        )
        self._kill()

    def _kill(self) -> None:
        try:
            os.kill(self.child, signal.SIGKILL)
        except ProcessLookupError:
            return  # it has ended by itself

    def _end(self) -> int:
        """The rank has ended, or says that it does: see it out, and tell the launcher what it has to hear."""
        from mpiflow.exitcodes import NOT_STARTED, RELAUNCH

        timely = self._await_end(ENDS_WITHIN if self.farewell else 0.0)
        if not self.started:
            return self._end_job(NOT_STARTED)
        if self.farewell == "finalized" and timely and not self.killed:
            if self.code:
                time.sleep(HEAD_START)
            return self.code
        if not self.farewell and self.rank > 0:
            self._leave_note()
        elif self.farewell == "abort" or (self.rank == 0 and (not self.farewell or not timely or self.killed)):
            return self._end_job(self.code if self.farewell else RELAUNCH)
        self._say(b"finalize")
        if self.code:
            time.sleep(HEAD_START)
        return self.code

    def _end_job(self, code: int) -> int:
        """End the job with this code, which is also this process's own."""
        if self.hydra:
            self._say(b"abort exitcode=%d" % code)
        elif self.started:
            # Slurm makes 137 of any abort. With -K it ends a step whose process has failed, and keeps the code.
            self._say(b"finalize")
        return code

    def _await_end(self, seconds: float) -> bool:
        """Wait for the rank's end, and kill it when it takes longer than so; whether it ended by itself."""
        end = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.child, os.WNOHANG)
            if pid:
                self.killed = os.WIFSIGNALED(status)
                return True
            if time.monotonic() >= end:
                self._kill()
                os.waitpid(self.child, 0)
                return False
            time.sleep(0.002)

    def _say(self, command: bytes) -> None:
        """Say something to the launcher in the rank's place, and wait for its answer."""
        try:
            os.write(self.pmi, b"cmd=" + command + b"\n")
            os.read(self.pmi, 4096)
        except OSError:
            return  # the launcher has gone; nothing can be said to it

    def _leave_note(self) -> None:
        """Tell rank 0 by a file: it hears of the death of a rank in no other way than its silence."""
        if not self.notes:
            return
        from mpiflow.comm.notes import leave_note

        try:
            leave_note(self.notes, self.rank)
        except OSError as error:
            print(f"mpiflow: rank {self.rank} has died, and no note can be left: {error}", file=sys.stderr)
