"""Which worker gets which tasks: the farm.

Plain data and plain functions. Events come in (`on_joined`, `on_ready`, `on_results`, `on_lost`, ...), a
plan goes out (`plan`), and time is an argument, so the same farm runs on rank 0 over MPI and in a test over
thousands of workers that do not exist.

**Credit.** A worker holds as many tasks as it can run at once, plus about ten milliseconds of work, so that
it never waits for a message, and a long task never waits behind another while a worker is idle somewhere.
How long a task takes is learnt for each function from the results; until the first result a function counts
as long. What was charged for a task is kept with it, so that a later estimate cannot unbalance the sum.

**Spreading.** Free slots are filled first, over all workers; then what is left is shared out over all that
have credit. Both queues hold only workers that have room: the cost of a plan grows with the tasks in it and
not with the number of workers. First in, first out; a cleverer placement has to win a benchmark first.

**Messages.** One bulk a worker and plan, and none to a worker that has two unacknowledged: MPI libraries
hang or fail in sends to a peer that no longer receives.

**Pools.** Attempts wait in pools: each may be run by some of the workers only (a job with a `cpu` and an `io`
executor), pool 0 by all. A worker may be in several. Within a pool attempts wait by priority, lowest number
first, and are first in, first out within one: a queue for each priority in use, which is nearly always one.

**Attempts.** Every hand-out of a task has its own number, `Attempt.aid`, and goes by it over the wire. The
result of an attempt the farm no longer knows is late, and is dropped.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Sequence
from typing import Any

#: Work a worker holds ahead, in seconds a slot.
HORIZON = 0.010
#: Tasks up to this long still have a successor waiting beside them: an idle gap of about a millisecond is
#: 2 % of it. Anything longer waits on rank 0, where every worker can have it.
PREFETCH_UP_TO = 0.050
#: What a function is taken to need before its first result, in seconds: long.
UNKNOWN = 1.0
#: Bounds on one bulk: a message stays small enough to be received in one go, and a death gives back little.
MOST_TASKS = 4096
MOST_BYTES = 4 << 20
#: Messages a worker may have that it has not acknowledged.
UNACKNOWLEDGED = 2
#: Weight of a new duration in the running mean of its function.
WEIGHT = 0.2


class Attempt:
    """One hand-out of a task.

    Attributes
    ----------
    aid : int
        Number of the attempt, unique in a job.
    fid : int
        The function it calls: durations are learnt, and code is sent, for each.
    size : int
        Bytes it puts into a message.
    task : object
        What it is an attempt of; the farm never looks inside.
    worker : int
        Who has it; -1 while it waits.
    charge : float
        Seconds charged to that worker.
    """

    __slots__ = ("aid", "charge", "fid", "size", "task", "worker")

    def __init__(self, aid: int, fid: int, size: int, task: Any) -> None:
        self.aid = aid
        self.fid = fid
        self.size = size
        self.task = task
        self.worker = -1
        self.charge = 0.0

    def __repr__(self) -> str:
        return f"W({self.aid})" if self.worker < 0 else f"R({self.aid}, {self.worker})"


class Bulk:
    """What one worker is sent in one message: functions it has not seen, then attempts in order."""

    __slots__ = ("attempts", "new_functions", "worker")

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.new_functions: list[int] = []
        self.attempts: list[Attempt] = []


class _Worker:
    """The farm's picture of one worker."""

    __slots__ = ("functions", "held", "load", "most", "number", "pools", "slots", "unacknowledged")

    def __init__(self, number: int, slots: int) -> None:
        self.number = number
        self.slots = slots
        self.held: dict[int, Attempt] = {}
        self.load = 0.0
        self.unacknowledged = 0
        #: Messages it may have that it has not acknowledged; 0 while it is withheld.
        self.most = UNACKNOWLEDGED
        self.functions: set[int] = set()
        self.pools: list[_Pool] = []


class _Pool:
    """What waits for the same workers, and those of them that a plan has to look at."""

    __slots__ = ("free", "members", "prefetch", "queues", "roomy")

    def __init__(self, members: frozenset[int] | None, prefetch: int | None) -> None:
        #: Numbers of its workers; None for all.
        self.members = members
        #: Attempts that a worker may hold beside those it runs; None to go by time alone.
        self.prefetch = prefetch
        #: By priority.
        self.queues: dict[int, deque[Attempt]] = {}
        # Workers with a free slot, and those with credit but no free slot. Ordered: the one that has waited
        # longest comes first. Not plain dicts: finding the front of one takes a scan over all that was taken
        # from there before.
        self.free: OrderedDict[int, _Worker] = OrderedDict()
        self.roomy: OrderedDict[int, _Worker] = OrderedDict()

    def queue(self, known: _Worker) -> None:
        """Put a worker into the queue it belongs to now."""
        number, free, roomy = known.number, self.free, self.roomy
        receives = known.unacknowledged < known.most
        has_slot = receives and len(known.held) < known.slots
        has_room = receives and not has_slot and self.has_credit(known)
        # Looked at first: to take out what is not there costs much more.
        if has_slot != (number in free):
            if has_slot:
                free[number] = known
            else:
                del free[number]
        if has_room != (number in roomy):
            if has_room:
                roomy[number] = known
            else:
                del roomy[number]

    def has_credit(self, known: _Worker) -> bool:
        """Whether a worker with every slot taken may have more to wait beside what runs."""
        if self.prefetch is not None and len(known.held) >= known.slots + self.prefetch:
            return False
        if known.load < HORIZON * known.slots:
            return True
        return len(known.held) < 2 * known.slots and known.load <= PREFETCH_UP_TO * known.slots


class Farm:
    """The scheduler's whole state.

    Examples
    --------
    >>> farm = Farm()
    >>> farm.on_joined(1, slots=1)
    >>> farm.on_ready([Attempt(0, fid=7, size=100, task="a")])
    >>> [(bulk.worker, bulk.new_functions, bulk.attempts) for bulk in farm.plan()]
    [(1, [7], [R(0, 1)])]
    >>> [attempt.task for attempt in farm.on_results(1, [(0, 0.001)])]
    ['a']
    """

    def __init__(self) -> None:
        self._workers: dict[int, _Worker] = {}
        self._seconds: dict[int, float] = {}
        self._pools: list[_Pool] = [_Pool(None, None)]
        # Pools in which something waits, by number: a plan looks at no others.
        self._stocked: dict[int, _Pool] = {}
        # Attempts that wait but are no longer wanted; they are dropped when their turn comes, since taking
        # one out of the midst of a long queue costs as much as the queue is long.
        self._revoked: set[int] = set()

    # --- pools --------------------------------------------------------------------------------------------

    def pool(self, members: Iterable[int] | None = None, prefetch: int | None = None) -> int:
        """Number of the pool with these workers, made if it is not there.

        Parameters
        ----------
        members : iterable of int, optional
            Numbers of workers, in service or not; default: all.
        prefetch : int, optional
            Attempts that a worker may hold beside those it runs, at most; default: as many as the horizon
            allows.
        """
        wanted = None if members is None else frozenset(members)
        for number, pool in enumerate(self._pools):
            if pool.members == wanted and pool.prefetch == prefetch:
                return number
        pool = _Pool(wanted, prefetch)
        self._pools.append(pool)
        for known in self._workers.values():
            if wanted is None or known.number in wanted:
                known.pools.append(pool)
                pool.queue(known)
        return len(self._pools) - 1

    # --- events -------------------------------------------------------------------------------------------

    def on_joined(self, worker: int, slots: int) -> None:
        """Take a worker into service, or change how many tasks it runs at once."""
        known = self._workers.get(worker)
        if known is None:
            known = self._workers[worker] = _Worker(worker, slots)
            known.pools = [pool for pool in self._pools if pool.members is None or worker in pool.members]
        known.slots = slots
        self._queue(known)

    def on_ready(self, attempts: Iterable[Attempt], pool: int = 0, priority: int = 0) -> None:
        """Attempts that may be given out, after those of their priority that wait already."""
        chosen = self._pools[pool]
        queue = chosen.queues.get(priority)
        if queue is None:
            queue = chosen.queues[priority] = deque()
            chosen.queues = dict(sorted(chosen.queues.items()))
        queue.extend(attempts)
        self._stocked[pool] = chosen

    def on_results(
        self, worker: int, results: Sequence[tuple[int, float]], acknowledged: int = 0
    ) -> list[Attempt | None]:
        """Take what a worker has said: results, each (attempt number, seconds), and how many messages it has had.

        Returns
        -------
        list of Attempt or None
            In the order of the results; None for one that came too late to count.
        """
        known = self._workers.get(worker)
        if known is None:
            return [None for _ in results]
        # One that was silent, and came back, acknowledges what it was sent before.
        known.unacknowledged = max(0, known.unacknowledged - acknowledged)
        held, seconds_of = known.held, self._seconds
        taken: list[Attempt | None] = []
        for aid, seconds in results:
            attempt = held.pop(aid, None)
            taken.append(attempt)
            if attempt is not None:
                known.load -= attempt.charge
                mean = seconds_of.get(attempt.fid)
                seconds_of[attempt.fid] = seconds if mean is None else mean + WEIGHT * (seconds - mean)
        if not held:
            known.load = 0.0  # no drift from adding and subtracting floats all day
        self._queue(known)
        return taken

    def attempt(self, worker: int, aid: int) -> Attempt | None:
        """The attempt of this number, if that worker has it."""
        known = self._workers.get(worker)
        return None if known is None else known.held.get(aid)

    def on_lost(self, worker: int) -> list[Attempt]:
        """Strike a worker off; what it held is to be given out again under new numbers."""
        known = self._workers.pop(worker, None)
        if known is None:
            return []
        for pool in known.pools:
            pool.free.pop(worker, None)
            pool.roomy.pop(worker, None)
        return list(known.held.values())

    def behind(self, aids: set[int]) -> dict[int, list[int]]:
        """Which of these attempts are with workers that hold more than they can run, by worker."""
        found: dict[int, list[int]] = {}
        for worker, known in self._workers.items():
            if len(known.held) > known.slots and (theirs := aids & known.held.keys()):
                found[worker] = sorted(theirs)
        return found

    def on_handed_back(self, worker: int, aids: Iterable[int]) -> list[Attempt]:
        """A worker will not run these attempts; returns those it held, to be given out under new numbers."""
        known = self._workers.get(worker)
        if known is None:
            return []
        attempts = [known.held.pop(aid) for aid in aids if aid in known.held]
        for attempt in attempts:
            known.load -= attempt.charge
        self._queue(known)
        return attempts

    def stranded(self) -> list[frozenset[int] | None]:
        """Members of the pools in which attempts wait and no worker is left; None for the pool of all."""
        return [pool.members for pool in self._stocked.values() if not self._serving(pool)]

    def lives_by(self, workers: Collection[int]) -> bool:
        """Whether some pool would have no worker without these."""
        return any(serving <= set(workers) for pool in self._pools if (serving := self._serving(pool)))

    def _serving(self, pool: _Pool) -> set[int]:
        return set(self._workers) if pool.members is None else self._workers.keys() & pool.members

    def on_forgotten(self, fid: int) -> list[int]:
        """A function is called no more; returns the workers that have it."""
        self._seconds.pop(fid, None)
        having = [number for number, known in self._workers.items() if fid in known.functions]
        for number in having:
            self._workers[number].functions.discard(fid)
        return having

    def withdraw(self, aids: set[int]) -> dict[int, list[int]]:
        """Forget attempts. Those not sent are gone; for each worker, the numbers of those it must drop."""
        for number, pool in list(self._stocked.items()):
            for priority, queue in list(pool.queues.items()):
                left = deque(attempt for attempt in queue if attempt.aid not in aids)
                self._set_queue(number, priority, left)
        self._revoked -= aids
        sent: dict[int, list[int]] = {}
        for worker, known in self._workers.items():
            for aid in aids & known.held.keys():
                known.load -= known.held.pop(aid).charge
                sent.setdefault(worker, []).append(aid)
            self._queue(known)
        return sent

    def revoke(self, attempt: Attempt) -> bool:
        """Forget an attempt that no worker has; whether that was so."""
        if attempt.worker >= 0:
            return False
        self._revoked.add(attempt.aid)
        return True

    # --- for gangs (`farm.gangs`) -------------------------------------------------------------------------

    def withhold(self, worker: int) -> None:
        """Plan nothing more for a worker: it finishes what it has, and is then free for what `give` hands it."""
        known = self._workers[worker]
        known.most = 0
        self._queue(known)

    def release(self, worker: int) -> None:
        """End `withhold`; nothing for a worker that is not there any more."""
        known = self._workers.get(worker)
        if known is not None:
            known.most = UNACKNOWLEDGED
            self._queue(known)

    def give(self, worker: int, attempt: Attempt) -> bool:
        """Give an attempt to this very worker, in a message of its own; whether it has yet to be sent the function."""
        known, bulk = self._workers[worker], Bulk(worker)
        self._hand(attempt, known, bulk, self._seconds.get(attempt.fid, UNKNOWN))
        known.unacknowledged += 1
        self._queue(known)
        return bool(bulk.new_functions)

    def load(self, worker: int) -> tuple[int, float]:
        """How many attempts a worker in service holds, and how many seconds they are taken to need."""
        known = self._workers[worker]
        return len(known.held), known.load

    def is_withheld(self, worker: int) -> bool:
        """Whether a worker in service is planned nothing."""
        return self._workers[worker].most == 0

    # --- the plan -----------------------------------------------------------------------------------------

    def plan(self) -> list[Bulk]:
        """Give out what is ready to whoever has room, at most one bulk a worker."""
        bulks: dict[int, Bulk] = {}
        for number, pool in list(self._stocked.items()):
            for priority, queue in list(pool.queues.items()):
                self._fill(pool, queue, pool.free, bulks, slots_only=True)
                if queue:
                    self._fill(pool, queue, pool.roomy, bulks, slots_only=False)
                if queue:
                    break  # nobody has room for these, so nobody for what is less urgent
                self._set_queue(number, priority, queue)
        planned = [bulk for bulk in bulks.values() if bulk.attempts]
        for bulk in planned:
            known = self._workers[bulk.worker]
            known.unacknowledged += 1
            self._queue(known)
        return planned

    def _set_queue(self, number: int, priority: int, queue: deque[Attempt]) -> None:
        """Put a queue into the place of one; an empty one is kept for priority 0 only, which comes again."""
        pool = self._pools[number]
        if queue or priority == 0:
            pool.queues[priority] = queue
        else:
            pool.queues.pop(priority, None)
        if not any(pool.queues.values()):
            self._stocked.pop(number, None)

    def give_at_once(self, attempt: Attempt, pool: int = 0) -> Bulk | None:
        """`on_ready` and `plan` for a lone attempt: what a script makes that calls and waits, by turns.

        Returns
        -------
        Bulk or None
            With this attempt alone. None, and nothing has changed, where others wait or no slot is free.
        """
        free = self._pools[pool].free
        if self._stocked or not free:
            return None
        worker, known = free.popitem(False)
        bulk = Bulk(worker)
        self._hand(attempt, known, bulk, self._seconds.get(attempt.fid, UNKNOWN))
        known.unacknowledged += 1
        self._queue(known)
        return bulk

    def _hand(self, attempt: Attempt, known: _Worker, bulk: Bulk, seconds: float) -> None:
        """Put an attempt into a worker's bulk, and charge it."""
        attempt.worker = known.number
        attempt.charge = seconds
        known.load += seconds
        known.held[attempt.aid] = attempt
        if attempt.fid not in known.functions:
            known.functions.add(attempt.fid)
            bulk.new_functions.append(attempt.fid)
        bulk.attempts.append(attempt)

    def _fill(
        self,
        pool: _Pool,
        ready: deque[Attempt],
        queue: OrderedDict[int, _Worker],
        bulks: dict[int, Bulk],
        slots_only: bool,
    ) -> None:
        """Rounds over the workers of a queue, each taking its share, until nothing is ready or nobody has room."""
        while ready and queue:
            again: dict[int, _Worker] = {}
            waiting = len(queue)
            while ready and queue:
                if not slots_only and self._seconds.get(ready[0].fid, UNKNOWN) > PREFETCH_UP_TO:
                    return  # a long task waits here, where every worker can have it
                number, known = queue.popitem(False)
                share = -(-len(ready) // waiting)
                waiting -= 1
                if slots_only:
                    share = min(share, known.slots - len(known.held))
                bulk = bulks.get(number)
                if bulk is None:
                    bulk = bulks[number] = Bulk(number)
                before = len(ready)
                self._give(pool, ready, known, bulk, share, slots_only)
                if len(ready) == before:
                    continue  # its bulk is full, or another pool has filled it
                if slots_only and len(known.held) < known.slots:
                    again[number] = known
                elif pool.has_credit(known):
                    (pool.roomy if slots_only else again)[number] = known
            queue.update(again)

    def _give(
        self,
        pool: _Pool,
        ready: deque[Attempt],
        known: _Worker,
        bulk: Bulk,
        share: int,
        slots_only: bool,
    ) -> None:
        """Move up to `share` attempts from the queue into one worker's bulk, while its credit lasts."""
        seconds_of, revoked = self._seconds, self._revoked
        size = sum([attempt.size for attempt in bulk.attempts]) if bulk.attempts else 0
        for _ in range(min(share, MOST_TASKS - len(bulk.attempts))):
            if not ready:
                break
            attempt = ready[0]
            if revoked and attempt.aid in revoked:
                ready.popleft()
                revoked.discard(attempt.aid)
                continue
            seconds = seconds_of.get(attempt.fid, UNKNOWN)
            size += attempt.size
            if size > MOST_BYTES and bulk.attempts:
                break
            if not slots_only and (seconds > PREFETCH_UP_TO or not pool.has_credit(known)):
                break
            ready.popleft()
            self._hand(attempt, known, bulk, seconds)

    def _queue(self, known: _Worker) -> None:
        """Put a worker into the queues it belongs to now."""
        for pool in known.pools:
            pool.queue(known)

    # --- looking ------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> dict[int, float]:
        """Mean seconds of each function that has had a result, by its number; not to be changed."""
        return self._seconds

    @property
    def workers(self) -> list[int]:
        """Workers in service."""
        return list(self._workers)

    @property
    def waiting(self) -> int:
        """Attempts that no worker has yet."""
        if not self._stocked:
            return 0
        return sum(len(queue) for pool in self._stocked.values() for queue in pool.queues.values())

    @property
    def outstanding(self) -> int:
        """Attempts that some worker has."""
        return sum(len(known.held) for known in self._workers.values())

    @property
    def busy(self) -> int:
        """Workers that hold at least one attempt."""
        return sum(bool(known.held) for known in self._workers.values())

    @property
    def held(self) -> dict[int, list[Attempt]]:
        """What each worker that has something holds, in the order in which it was given it."""
        return {number: list(known.held.values()) for number, known in self._workers.items() if known.held}

    def sanity_check(self) -> None:
        """Check every cross-index; tests call it after each event."""
        seen: set[int] = set()
        for number, known in self._workers.items():
            assert known.number == number
            assert known.most in (0, UNACKNOWLEDGED)
            assert 0 <= known.unacknowledged <= UNACKNOWLEDGED + 1  # one may have come from `give`
            assert known.load > -1e-6
            assert abs(known.load - sum(attempt.charge for attempt in known.held.values())) < 1e-6
            for aid, attempt in known.held.items():
                assert attempt.aid == aid
                assert attempt.worker == number
                assert attempt.fid in known.functions
                assert aid not in seen
                seen.add(aid)
        for number, pool in enumerate(self._pools):
            self._check_pool(pool)
            assert (number in self._stocked) == any(pool.queues.values())
            assert list(pool.queues) == sorted(pool.queues)
            for queue in pool.queues.values():
                for attempt in queue:
                    assert attempt.worker == -1
                    assert attempt.aid not in seen
                    seen.add(attempt.aid)
        assert self._revoked <= seen

    def _check_pool(self, pool: _Pool) -> None:
        for number, known in self._workers.items():
            member = pool.members is None or number in pool.members
            assert member == (pool in known.pools)
            free, roomy = number in pool.free, number in pool.roomy
            assert not (free and roomy)
            receives = member and known.unacknowledged < known.most
            assert free == (receives and len(known.held) < known.slots)
            assert roomy == (receives and not free and pool.has_credit(known))
        assert set(pool.free) | set(pool.roomy) <= set(self._workers)
