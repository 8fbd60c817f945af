"""A worker's runners: which task goes to which, what comes back, and who died of what.

The pool relays records between whoever feeds it (a rank, or the script's own process when there is no MPI)
and its runners, without opening payloads. What it knows of a task is in its header. Each runner is a first-in
first-out pipe, so the first task of it that has no result is the one that runs: when a runner dies, that task
is charged and the ones behind it go to another runner.

A runner is given as many tasks at once as last about five milliseconds, so that the pool is not woken for
each of a stream of tiny ones and long ones still spread over all runners.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import suppress

from mpiflow import linux
from mpiflow.comm.segments import receive_segment, send_segment
from mpiflow.comm.sockets import SHUT_WR
from mpiflow.comm.wire import (
    DIED,
    DONE,
    HEADER,
    HEADER_SIZE,
    LEAVING,
    NOT_BEGUN,
    OVERTIME,
    RAISED,
    STARTED,
    TASK_FORK,
    USED,
    record,
)
from mpiflow.linux import Watch, signal
from mpiflow.worker.channel import Runner, Task
from mpiflow.worker.limits import TaskLimits
from mpiflow.worker.runner import STACKS_SIGNAL
from mpiflow.worker.zygote import Ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mpiflow.comm.segments import Segment
    from mpiflow.worker.zygote import Zygote

    #: Processors of a runner (None: all), and variables for its tasks.
    Binding = tuple[list[int] | None, dict[str, str]]

#: Bytes asked of one recv. Twice as many would be mapped and unmapped by malloc each time.
CHUNK = 64 * 1024
#: Work a runner is given ahead, in seconds and in tasks.
AHEAD = 0.005
MOST_AHEAD = 256
#: Zygotes that may end one after the other without a result between them: with more, something is wrong here.
MOST_REPLACED = 5
#: Bytes a runner is given ahead; it gets a larger task when it has fewer than these.
MOST_BYTES = 1 << 20
#: How long runners may take to write their stacks, and for how long nothing more must have come, in seconds.
STACKS_WITHIN, STACKS_SETTLED = 0.2, 0.01


class RunnerPool:
    """The runners of one worker.

    Parameters
    ----------
    zygote : Zygote
        What they are forked from.
    """

    def __init__(self, zygote: Zygote) -> None:
        self._zygote = zygote
        self._watch = Watch()
        self._watch.add(zygote.fd)
        self._size = 1
        self._settings: dict[str, object] = {}
        self._bindings: list[Binding] = [(None, {})]
        self._asked: object = None  # what runners were started with, where it differs between kernels
        #: Zygotes that have been replaced since the last result.
        self._replaced = 0
        #: Whether a runner may have a task that nobody wants any more, or that is to be given back.
        self._unwanted = False
        #: Attempts that rank 0 wants back, while runners have them.
        self._asked_back: set[int] = set()
        #: How many tasks a runner may run, and how much memory it may have after one; 0: any.
        self._max_tasks = self._max_rss = 0
        #: How long the rank may be stopped before the zygote ends it, 0 for ever.
        self._rank_watched = 0.0
        self._functions: dict[int, bytes] = {}
        self._queue: deque[Task] = deque()
        self._runners: list[Runner] = []
        self._limits = TaskLimits(self._runners)
        #: Seconds between two looks at what a task uses, 0: one look; below 0: nobody wants to know. And the next look.
        self._usage_every = -1.0
        self._usage_at = 0.0
        self._by_fd: dict[int, Runner] = {}
        self._requested: dict[int, Runner] = {}
        self._seconds = AHEAD  # running mean of what tasks take here
        #: Records for rank 0 and their attachments, until `take`.
        self._results: list[bytes | memoryview] = []
        self._attachments: list[Segment] = []

    # --- from rank 0 --------------------------------------------------------------------------------------

    def configure(self, size: int, settings: dict[str, object], bindings: list[Binding] | None = None) -> None:
        """Say how many runners there may be and what a new one starts with.

        Parameters
        ----------
        size : int
            Runners at a time.
        settings : dict
            As for `runner.start`; and ``max_tasks`` and ``max_rss``, after which a runner is replaced.
        bindings : list of Binding, optional
            For each place, its processors and variables.
        """
        usage_every = settings.get("usage_every", -1.0)
        assert isinstance(usage_every, float | int)
        self._usage_every = float(usage_every)
        asked = bindings, settings["directory"], settings.get("variables"), usage_every >= 0
        if asked != self._asked:
            self._retire()
        self._size = size
        self._asked = asked
        self._bindings = bindings or [(None, {})] * size
        self._settings = settings
        max_tasks, max_rss = settings.get("max_tasks") or 0, settings.get("max_rss") or 0
        assert isinstance(max_tasks, int)
        assert isinstance(max_rss, int)
        self._max_tasks, self._max_rss = max_tasks, max_rss

    def have_rank_watched(self, seconds: float) -> None:
        """Have the zygote kill this process when that has been stopped by a signal for so long.

        Whatever a dead zygote, or a task in the rank itself, leaves running is adopted, and killed: for a rank that is
        a worker and no more.
        """
        linux.adopt_orphans()
        self._rank_watched = seconds
        self._have_watched()

    def _have_watched(self) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it has died; `_hear` is about to learn it
            self._zygote.watch_rank(self._rank_watched)

    def _retire(self) -> None:
        """Have the runners there are leave after their tasks: what they are bound to is out of date."""
        for runner in self._runners:
            if not runner.tasks and runner.usable:
                runner.records.shutdown(SHUT_WR)
            runner.single_use = True

    def learn(self, fid: int, record: memoryview) -> None:
        """Keep a function for every runner that will need it."""
        self._functions[fid] = bytes(record)

    def forget(self, fid: int, record: memoryview) -> None:
        """Drop a function that is called no more, here and in every runner."""
        self._functions.pop(fid, None)
        for runner in self._runners:
            if fid in runner.functions:
                runner.functions.discard(fid)
                runner.outgoing.append(bytes(record))

    def add(self, task: Task) -> None:
        """Take a task into the queue."""
        self._queue.append(task)

    def limit(self, aid: int, memory: int) -> None:
        """Say how many bytes of memory a task may use, with all it starts; before it is added."""
        self._limits.memory[aid] = [memory, 0]

    def drop(self, aids: set[int]) -> None:
        """Forget tasks that nobody wants any more; what runs one of them is killed."""
        for task in self._queue:
            if task.aid in aids:
                task.close()
        self._queue = deque(task for task in self._queue if task.aid not in aids)
        for runner in self._runners:
            if runner.tasks and runner.tasks[0].aid in aids:
                runner.dropped = True
                runner.kill()
            for task in runner.tasks:
                if task.aid in aids:
                    task.aid = 0  # no attempt has this number: its result counts for nothing
                    self._unwanted = True

    def hand_back(self, aids: set[int]) -> None:
        """Give back tasks that have not begun: at once what no runner has, the rest when its runner comes to it."""
        self._give_back([task for task in self._queue if task.aid in aids])
        self._queue = deque(task for task in self._queue if task.aid not in aids)
        for runner in self._runners:
            behind = aids.intersection([task.aid for task in runner.tasks][1:])
            if behind:
                self._asked_back |= behind
                runner.called_back = runner.single_use = self._unwanted = True

    def _give_back(self, tasks: list[Task]) -> None:
        if tasks:
            self._asked_back.difference_update([task.aid for task in tasks])
            self._results.append(not_begun(tasks))

    # --- the work -----------------------------------------------------------------------------------------

    def step(self, seconds: float) -> bool:
        """Give out what can be given out, wait at most so long, take what has come; whether anything came."""
        self._feed()
        seconds = 0.0 if self._results else self._limits.until_next(seconds)
        ready = self._watch.wait(seconds)
        for fd in ready:
            if fd == self._zygote.fd:
                self._hear()
            elif (runner := self._by_fd.get(fd)) is not None:
                self._read(runner, fd)
        if self._limits.end_overdue():
            self._limits.look_for_stopped(self._zygote, bool(self._queue or self._requested))
        if self._limits.memory:
            self._limits.measure(self._queue)
        if self._usage_every >= 0:
            self._look_at_usage()
        if self._unwanted:
            self._end_unwanted()
        if ready:
            self._feed()
        return bool(ready)

    def take(self) -> tuple[list[bytes | memoryview], list[Segment]]:
        """Records for rank 0 that have come since the last call, and their attachments."""
        taken = self._results, self._attachments
        self._results, self._attachments = [], []
        for runner in self._runners:
            text = runner.output.take()
            if text:
                taken[0].append(text)
        return taken

    @property
    def in_use(self) -> bool:
        """Whether there is anything to look after: a worker whose tasks run in the rank has an empty pool."""
        return bool(self._runners or self._queue or self._results)

    @property
    def stocked(self) -> bool:
        """Whether every runner is at work, so that nothing rank 0 could send is urgent."""
        return sum(bool(runner.tasks) for runner in self._runners) >= self._size

    @property
    def streaming(self) -> bool:
        """Whether more results are about to come: some runner has several tasks before it."""
        return any(len(runner.tasks) > 1 for runner in self._runners)

    def stacks(self) -> list[tuple[int, int, str]]:
        """What each runner is at: its place, its process id, and its Python stacks, all threads of it.

        Never waits for longer than `STACKS_WITHIN`; of a runner that has not answered by then, the text says how it
        stands with its process. The runner goes on undisturbed, and one that is in C code answers as well.
        """
        asked = [runner for runner in self._runners if runner.pid]
        for runner in asked:
            os.ftruncate(runner.stacks, 0)
            os.lseek(runner.stacks, 0, os.SEEK_SET)  # for the runner too: it has the same open file
            with suppress(ProcessLookupError):
                os.kill(runner.pid, STACKS_SIGNAL)
        end = settled = time.monotonic() + STACKS_WITHIN
        written = [0] * len(asked)
        while (now := time.monotonic()) < min(end, settled):
            sizes = [os.fstat(runner.stacks).st_size for runner in asked]
            if sizes != written:
                written, settled = sizes, end
            elif all(sizes) and settled == end:
                settled = now + STACKS_SETTLED
            time.sleep(0.001)
        return [(runner.slot, runner.pid, _stack_of(runner)) for runner in asked]

    # --- giving out ---------------------------------------------------------------------------------------

    def _feed(self) -> None:
        for runner in self._runners:
            if runner.outgoing:
                self._write(runner)
        if not self._queue:
            return
        window = 1 + min(MOST_AHEAD, int(AHEAD / max(self._seconds, 1e-6)))
        if self._seconds > AHEAD / 2:
            window = 1
        while self._queue:
            single_use = self._queue[0].kind == TASK_FORK
            place = self._place(window, single_use)
            if place is None:
                return
            share = 1 if single_use else self._share(window - len(place.tasks))
            self._give(place, min(share, place.to_run) if place.to_run else share)

    def _share(self, room: int) -> int:
        """How many tasks to hand over at once: not so many that another runner has none."""
        return max(1, min(room, -(-len(self._queue) // self._size)))

    def _place(self, window: int, single_use: bool) -> Runner | None:
        """The runner for the next task: an idle one, else a new one, else the one with most room."""
        usable = [] if single_use else [runner for runner in self._runners if runner.usable]
        best = min(usable, key=lambda runner: len(runner.tasks), default=None)
        if best is not None and not best.tasks:
            return best
        busy = sum(bool(runner.tasks) for runner in self._runners)
        if busy < self._size and (single_use or len(usable) < self._size):
            return self._spawn(single_use)
        if best is not None and len(best.tasks) < window and best.size < MOST_BYTES and not best.outgoing:
            return best
        return None

    def _spawn(self, single_use: bool) -> Runner:
        taken = {runner.slot for runner in self._runners}
        slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        runner = Runner(single_use, slot, 0 if single_use else self._max_tasks)
        fds = [*(channel.fileno() for channel in runner.channels), *runner.output.fds, runner.stacks]
        try:
            request = self._zygote.spawn(self._settings_of(runner.slot), fds)
        except (BrokenPipeError, ConnectionResetError):  # the zygote has died; `_hear` is about to learn it
            request = -1
        for channel in runner.channels:
            channel.close()
        runner.output.started()
        self._requested[request] = runner
        self._runners.append(runner)
        for fd in (runner.records.fileno(), *runner.output.watched):
            self._watch.add(fd)
            self._by_fd[fd] = runner
        return runner

    def _settings_of(self, slot: int) -> dict[str, object]:
        """What a runner in this place starts with. One beside those there may be is to be replaced soon."""
        binding = self._bindings[slot % self._size]
        environment = self._settings["environment"]
        assert isinstance(environment, dict)
        return {**self._settings, "cpus": binding[0], "environment": {**environment, **binding[1]}}

    def _give(self, runner: Runner, share: int) -> None:
        """Hand the next tasks of the queue to a runner, with the functions it does not know."""
        before = len(self._queue)
        if self._usage_every >= 0 and not runner.tasks:
            runner.began = time.monotonic()
        for place in range(share):
            if place and self._queue[0].kind == TASK_FORK:
                break  # another executor's, which has each task run in a process of its own
            task = self._queue.popleft()
            runner.size += task.size
            if task.fid not in runner.functions:
                runner.functions.add(task.fid)
                runner.outgoing.append(self._functions[task.fid])
            runner.outgoing.append(task.record)
            runner.tasks.append(task)
            try:
                for segment in task.attachments:
                    send_segment(runner.segments, segment)
            except (BrokenPipeError, ConnectionResetError):
                break  # it has died; the zygote's word follows, and its tasks go to another
            if runner.size >= MOST_BYTES:
                break
        self._write(runner)
        if runner.to_run:
            runner.to_run -= before - len(self._queue)
            runner.single_use = runner.to_run == 0

    def _write(self, runner: Runner) -> None:
        """Send what the socket has room for. Never blocks: the runner may be blocked sending to us."""
        waiting = runner.outgoing[0] if len(runner.outgoing) == 1 else b"".join(runner.outgoing)
        try:
            sent = runner.records.send(waiting)
        except BlockingIOError:
            sent = 0
        except (BrokenPipeError, ConnectionResetError):
            sent = len(waiting)  # it has died; the zygote's word follows, and its tasks go to another
        runner.outgoing = [memoryview(waiting)[sent:]] if sent < len(waiting) else []

    # --- taking back --------------------------------------------------------------------------------------

    def _read(self, runner: Runner, fd: int) -> None:
        """Take what one descriptor of a runner has.

        Records first, whichever it is: a runner sends the result of a task that printed only after its output
        has been taken, so with all results in, the first task left is the one that printed.
        """
        self._read_records(runner)
        if fd in runner.output.watched:
            ended = runner.output.read(fd, *runner.running) < 0
            if ended:
                self._unwatch(fd)

    def _read_records(self, runner: Runner) -> bool:
        """Take what the socket has; False when there is nothing (more)."""
        fd = runner.records.fileno()
        if fd not in self._by_fd:
            return False
        try:
            data = runner.records.recv(CHUNK)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            self._unwatch(fd)  # its end; how it ended is the zygote's to say
            return False
        if runner.partial:
            runner.partial += data
            if len(runner.partial) < runner.needed:
                return True  # a long one: joined once, not anew with each piece of it
            data = bytes(runner.partial)
        self._take_records(runner, data)
        return True

    def _take_records(self, runner: Runner, data: bytes) -> None:
        """Pass on whole records, and check off the tasks they answer."""
        unpack, header, tasks = HEADER.unpack_from, HEADER_SIZE, runner.tasks
        position, end = 0, len(data)
        start = 0
        while position + header <= end:
            _, _, _, size, seconds, kind, more = unpack(data, position)
            following = position + header + size
            if following > end:
                break
            if kind != DONE and kind != RAISED:
                if kind == USED:  # for rank 0 too, before the result that follows
                    runner.used = data[position + header : following]
                    position = following
                    continue
                self._take_word(runner, kind)
                if position > start:
                    self._results.append(data[start:position])
                start = following
            elif not tasks:  # nothing of it is wanted: some process of a task has got hold of the socket
                if position > start:
                    self._results.append(data[start:position])
                start = following
            else:
                answered = tasks.popleft()
                self._replaced = 0
                runner.size -= answered.size
                runner.deadline = 0.0
                self._seconds += 0.1 * (seconds - self._seconds)
                for _ in range(more):
                    segment = receive_segment(runner.segments)
                    segment.close()
                    self._attachments.append(segment)
                for segment in answered.attachments:
                    segment.close()
            position = following
        if position > start:
            self._results.append(data[start:position])
        if self._usage_every >= 0:
            runner.began, runner.looked = time.monotonic(), 0.0
        runner.partial = bytearray(data[position:])
        runner.needed = header + unpack(data, position)[3] if position + header <= end else 0
        if self._max_rss and not runner.single_use and linux.resident_memory(runner.pid) > self._max_rss:
            runner.single_use = True
        if runner.single_use and not tasks and not runner.leaving:
            runner.records.shutdown(SHUT_WR)  # it reads the end, and leaves

    def _take_word(self, runner: Runner, kind: int) -> None:
        """Take what a runner says for the pool alone."""
        if kind == STARTED and runner.tasks:
            runner.deadline = time.monotonic() + runner.tasks[0].walltime
        elif kind == LEAVING:
            runner.leaving = runner.single_use = True

    def _unwatch(self, fd: int) -> None:
        if self._by_fd.pop(fd, None) is not None:
            self._watch.remove(fd)

    # --- ends ---------------------------------------------------------------------------------------------

    def _look_at_usage(self) -> None:
        """Tell rank 0 of tasks that have run for a while, and then, at every interval, what they use."""
        now = time.monotonic()
        if now >= self._usage_at:
            from mpiflow.worker.usage import LOOK_EVERY, news

            self._usage_at = now + min(LOOK_EVERY, self._usage_every or LOOK_EVERY)
            self._results += news(self._runners, self._usage_every, now)

    def _end_unwanted(self) -> None:
        """Kill runners in which the turn of a task has come that was dropped while it waited there.

        Those whose tasks are to be given back are told to leave, once they have all that they were sent.
        """
        self._unwanted = False
        for runner in self._runners:
            if runner.called_back:
                runner.called_back = bool(runner.outgoing)
                if runner.called_back:
                    self._unwanted = True
                else:
                    runner.records.shutdown(SHUT_WR)
            if runner.dropped or all(task.aid for task in runner.tasks):
                continue
            if runner.tasks[0].aid:
                self._unwanted = True  # its turn is yet to come
            else:
                runner.dropped = True
                runner.kill()

    def _hear(self) -> None:
        try:
            words = self._zygote.hear()
        except EOFError:
            self._replace_zygote()
            return
        for word in words:
            if isinstance(word, Ended):
                buried = next((runner for runner in self._runners if runner.pid == word.pid), None)
                if buried is not None:  # else it had been given up already
                    self._bury(buried, word)
            else:
                request, pid = word
                runner = self._requested.pop(request)
                runner.pid = pid
                if runner.dropped:
                    runner.kill()

    def _replace_zygote(self) -> None:
        """Start another zygote: some task, or the kernel for want of memory, has killed the one there was.

        Its runners have died with it, so what ran in each is charged: one of them may have done it.
        """
        from mpiflow.worker.zygote import exec_zygote

        self._replaced += 1
        if self._replaced > MOST_REPLACED:
            raise EOFError(f"{self._replaced} zygotes have ended one after the other, without a result between them")
        self._watch.remove(self._zygote.fd)
        self._zygote.close()
        self._requested.clear()
        for runner in list(self._runners):
            # What the task left running. Not the process itself: its number may be somebody else's by now.
            with suppress(ProcessLookupError):
                if runner.pid and not self._rank_watched:  # 0 is this process's own group
                    os.killpg(runner.pid, signal.SIGKILL)
            self._bury(runner, Ended(runner.pid, signal.SIGKILL, 0.0, 0))
        self._zygote = exec_zygote(in_rank=self._rank_watched > 0)
        self._limits.zygote_replaced(with_orphans=self._rank_watched > 0)
        self._watch.add(self._zygote.fd)
        if self._rank_watched:
            self._have_watched()

    def _bury(self, runner: Runner, ended: Ended) -> None:
        """Take what a dead runner left, charge the task that ran, and give the others out again."""
        while self._read_records(runner):
            pass
        runner.output.drain(*runner.running)
        if text := runner.output.take():
            self._results.append(text)
        self._runners.remove(runner)
        for fd in (runner.records.fileno(), *runner.output.watched):
            self._unwatch(fd)
        # One that is killed for a task may have ended it meanwhile: then the next one has done nothing wrong.
        innocent = runner.overtime is not None and runner.tasks and runner.tasks[0] is not runner.overtime
        # One without a process id has not begun: it was asked of a zygote that had died.
        if runner.tasks and ended.pid and not (runner.dropped or runner.leaving or innocent):
            self._charge(runner.tasks.popleft(), runner, ended)
        for task in runner.tasks:
            if not task.aid:
                task.close()
        left = [task for task in runner.tasks if task.aid]
        if self._asked_back:
            asked = [task for task in left if task.aid in self._asked_back]
            left = [task for task in left if task.aid not in self._asked_back]
            self._give_back(asked)
        self._queue.extendleft(reversed(left))
        runner.close()

    def _charge(self, task: Task, runner: Runner, ended: Ended) -> None:
        import pickle

        for segment in task.attachments:
            segment.close()
        if self._usage_every >= 0:
            from mpiflow.worker.usage import only_began

            self._results.append(only_began(time.monotonic() - runner.began, task.aid, task.tid, task.fid))
        if runner.overtime:
            payload, kind = runner.excess, OVERTIME
        else:
            payload, kind = pickle.dumps((ended.code, ended.pid, ended.peak), 5), DIED
        answer = HEADER.pack(task.aid, task.tid, task.fid, len(payload), ended.cpu, kind, 0)
        self._results.append(answer + payload)

    def close(self) -> None:
        """End every runner: the zygote kills what is below it."""
        for runner in self._runners:
            runner.close()
        self._runners.clear()
        self._watch.remove(self._zygote.fd)
        self._watch.close()
        self._zygote.close()
        if self._rank_watched:  # what tasks have left that ran in the rank itself
            for pid in linux.descendants(os.getpid()):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)


def _stack_of(runner: Runner) -> str:
    size = os.fstat(runner.stacks).st_size
    if not size:
        state = linux.state(runner.pid)[0] or "ended"
        return f"no answer within {STACKS_WITHIN:g} s; the state of its process is {state}\n"
    return os.pread(runner.stacks, size, 0).decode("utf-8", "replace")


def not_begun(tasks: list[Task]) -> bytes:
    """The record that says of tasks that they have not begun here; what they hold is given back."""
    import pickle

    for task in tasks:
        task.close()
    return record(NOT_BEGUN, pickle.dumps([task.aid for task in tasks], 5))
