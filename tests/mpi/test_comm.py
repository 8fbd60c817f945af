"""Messages over MPI, in every rank of a job: ``mpiexec -n 4 python -m pytest --with-mpi tests/mpi``.

All ranks run the same tests in the same order. Rank 0 sends and checks; the others do what a test tells them.
A test begins and ends with a barrier of the script's own world, so that none can meet another's messages.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mpiflow.comm.mpi import MPIComm
    from mpiflow.comm.segments import Segment

pytestmark = [pytest.mark.mpi(min_size=2), pytest.mark.timeout(60, method="thread")]

#: What has not come after so many seconds never will.
LONG = 20.0

Message = tuple[int, bytes, list[bytes]]


@pytest.fixture(scope="module")
def made() -> MPIComm:
    """One for all tests: making it is collective."""
    from mpiflow.comm.mpi import MPIComm
    from mpiflow.comm.segments import private, shared

    return MPIComm(lambda rank: private if rank == 0 else shared)


@pytest.fixture
def comm(made: MPIComm) -> Iterator[MPIComm]:
    from mpi4py import MPI

    MPI.COMM_WORLD.Barrier()
    yield made
    end = time.monotonic() + LONG
    while made._sends and time.monotonic() < end:
        assert made.poll() == [], "a message that no test expects"
    MPI.COMM_WORLD.Barrier()
    assert made.poll() == []
    assert not made._sends
    assert not made._incoming


def take(comm: MPIComm, number: int) -> list[Message]:
    """So many messages, in the order in which they came."""
    taken: list[Message] = []
    end = time.monotonic() + LONG
    while len(taken) < number:
        for peer, head, segments in comm.poll():
            taken.append((peer, bytes(head), [bytes(segment.view) for segment in segments]))
            close(segments)
        assert time.monotonic() < end, f"{len(taken)} of {number} messages came"
    return taken


def close(segments: list[Segment]) -> None:
    for segment in segments:
        segment.close()


def echo(comm: MPIComm, number: int) -> None:
    """Send so many messages back as they are."""
    for peer, head, attachments in take(comm, number):
        comm.send(peer, head, attachments)


def pattern(number: int, size: int) -> bytes:
    """Bytes that are nowhere the same."""
    unit = struct.pack("<I", number) + bytes(range(251))
    return (unit * (size // len(unit) + 1))[:size]


def test_rank_0_has_all_others_as_peers_and_they_have_rank_0(comm: MPIComm) -> None:
    assert comm.peers == (list(range(1, comm.size)) if comm.rank == 0 else [0])


def test_nothing_has_come_when_nothing_was_sent(comm: MPIComm) -> None:
    assert comm.poll() == []


def test_messages_go_to_every_peer_and_back(comm: MPIComm) -> None:
    if comm.rank:
        echo(comm, 1)
        return
    for peer in comm.peers:
        comm.send(peer, b"to %d" % peer)
    assert sorted(take(comm, len(comm.peers))) == [(peer, b"to %d" % peer, []) for peer in comm.peers]


def test_many_small_messages_keep_their_order(comm: MPIComm) -> None:
    number = 1500
    if comm.rank:
        echo(comm, number)
        return
    for place in range(number):
        for peer in comm.peers:
            comm.send(peer, b"%d" % place)
    taken = take(comm, number * len(comm.peers))
    for peer in comm.peers:
        own = [int(head) for source, head, _ in taken if source == peer]
        assert own == list(range(number))


def test_messages_with_and_without_attachments_keep_their_order(comm: MPIComm) -> None:
    """Also where a small one follows a large one that is still on its way."""
    sizes: list[list[int]] = [
        [],
        [3_000_000],
        [],
        [0],
        [1, 0, 70_000],
        [],
        [],
        [2_000_000, 5],
        [100_000] * 10,
        [],
    ]
    if comm.rank:
        echo(comm, len(sizes))
        return
    for peer in comm.peers:
        for place, own in enumerate(sizes):
            comm.send(peer, b"head %d" % place, [pattern(peer, size) for size in own])
    taken = take(comm, len(sizes) * len(comm.peers))
    for peer in comm.peers:
        messages = [(head, attachments) for source, head, attachments in taken if source == peer]
        assert [head for head, _ in messages] == [b"head %d" % place for place in range(len(sizes))]
        for own, (_, attachments) in zip(sizes, messages, strict=True):
            assert attachments == [pattern(peer, size) for size in own]


@pytest.mark.parametrize("size", [999, 1000, 1001, 2000, 12_345])
def test_attachments_above_the_limit_go_in_pieces(
    size: int, comm: MPIComm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpiflow.comm.mpi.PIECE_BYTES", 1000)
    if comm.rank:
        echo(comm, 3)
        return
    for peer in comm.peers:
        comm.send(peer, b"one", [pattern(peer, size)])
        comm.send(peer, b"none")
        comm.send(peer, b"three", [pattern(peer + n, size + n) for n in range(3)])
    taken = take(comm, 3 * len(comm.peers))
    for peer in comm.peers:
        assert [message for message in taken if message[0] == peer] == [
            (peer, b"one", [pattern(peer, size)]),
            (peer, b"none", []),
            (peer, b"three", [pattern(peer + n, size + n) for n in range(3)]),
        ]


def test_numbers_travel_as_their_bytes(comm: MPIComm) -> None:
    from array import array

    numbers = array("d", [1.5, -2.5] * 50_000)
    if comm.rank:
        echo(comm, 1)
        return
    for peer in comm.peers:
        comm.send(peer, b"numbers", [numbers, memoryview(numbers)[10:20]])
    for _, head, attachments in take(comm, len(comm.peers)):
        assert head == b"numbers"
        assert attachments == [numbers.tobytes(), numbers[10:20].tobytes()]


def test_a_worker_receives_attachments_into_memory_that_it_can_pass_on(comm: MPIComm) -> None:
    if comm.rank == 0:
        for peer in comm.peers:
            comm.send(peer, b"", [bytes(100_000)])
        take(comm, len(comm.peers))
        return
    end = time.monotonic() + LONG
    while not (messages := comm.poll()):
        assert time.monotonic() < end
    ((_, head, (segment,)),) = messages
    assert head == b""
    assert segment.fd >= 0
    assert len(segment) == 100_000
    segment.close()
    comm.send(0, b"well")


def test_sending_does_not_wait_for_a_peer_that_does_not_listen(comm: MPIComm) -> None:
    """A large message is only started; what was sent keeps until it is gone, though the sender forgets it."""
    from mpi4py import MPI

    if comm.rank == 0:
        started = time.monotonic()
        for peer in comm.peers:
            comm.send(peer, b"large", [pattern(peer, 8 << 20)])
        assert time.monotonic() - started < LONG / 2
        MPI.COMM_WORLD.Barrier()
        assert sorted(head for _, head, _ in take(comm, len(comm.peers))) == [b"well"] * len(comm.peers)
    else:
        MPI.COMM_WORLD.Barrier()
        ((_, head, (attachment,)),) = take(comm, 1)
        assert (head, attachment) == (b"large", pattern(comm.rank, 8 << 20))
        comm.send(0, b"well")


def test_a_flood_is_taken_in_portions_and_loses_nothing(comm: MPIComm) -> None:
    from mpi4py import MPI

    from mpiflow.comm.mpi import MOST_MESSAGES

    number = 300
    if comm.rank:
        for place in range(number):
            comm.send(0, b"%d" % place)
        MPI.COMM_WORLD.Barrier()
        return
    MPI.COMM_WORLD.Barrier()
    taken: list[Any] = []
    end = time.monotonic() + LONG
    while len(taken) < number * len(comm.peers):
        arrived = comm.poll()
        assert len(arrived) <= MOST_MESSAGES
        taken += arrived
        assert time.monotonic() < end
    for peer in comm.peers:
        assert [int(head) for source, head, _ in taken if source == peer] == list(range(number))


@pytest.mark.parametrize("tag", [0, 1, 2, 3])
def test_a_scripts_own_messages_are_never_taken_for_ours(comm: MPIComm, tag: int) -> None:
    """Nor ours for the script's, whatever tag it uses and whatever it probes for."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    if comm.rank:
        world.send("the script's own", 0, tag)
        comm.send(0, b"ours", [bytes(70_000)])
        assert world.recv(source=0, tag=tag) == "answer"
        assert take(comm, 1) == [(0, b"ours too", [])]
        return
    for peer in comm.peers:
        comm.send(peer, b"ours too")
    ours = take(comm, len(comm.peers))
    assert sorted(ours) == [(peer, b"ours", [bytes(70_000)]) for peer in comm.peers]
    assert comm.poll() == []
    for peer in comm.peers:
        assert world.recv(source=peer, tag=tag) == "the script's own"
        world.send("answer", peer, tag)
    assert not world.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG)


def test_two_of_them_do_not_mix(comm: MPIComm) -> None:
    from mpiflow.comm.mpi import MPIComm
    from mpiflow.comm.segments import private

    other = MPIComm(lambda rank: private)
    if comm.rank:
        echo(other, 2)
        echo(comm, 2)
        end = time.monotonic() + LONG
        while other._sends and time.monotonic() < end:
            other.poll()
        return
    for peer in comm.peers:
        for place in range(2):
            comm.send(peer, b"first", [pattern(1, 80_000)])
            other.send(peer, b"other %d" % place, [pattern(2, 90_000)])
    first, second = take(comm, 2 * len(comm.peers)), take(other, 2 * len(comm.peers))
    assert {(head, *attachments) for _, head, attachments in first} == {(b"first", pattern(1, 80_000))}
    assert {head for _, head, _ in second} == {b"other 0", b"other 1"}
    assert {attachments[0] for _, _, attachments in second} == {pattern(2, 90_000)}
    assert not other._sends


def test_several_threads_may_send_and_poll(comm: MPIComm) -> None:
    import threading

    number, threads = 100, 4
    if comm.rank:
        echo(comm, number * threads)
        return
    taken: list[bytes] = []
    problems: list[BaseException] = []

    def work(me: int) -> Callable[[], None]:
        def send_and_poll() -> None:
            try:
                for place in range(number):
                    for peer in comm.peers:
                        comm.send(
                            peer, b"%d %d" % (me, place), [pattern(me, 70_000)] if place % 20 == 0 else []
                        )
                    taken.extend(bytes(head) for _, head, _ in comm.poll())
            except BaseException as error:
                problems.append(error)

        return send_and_poll

    started = [threading.Thread(target=work(me)) for me in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(LONG)
    rest = number * threads * len(comm.peers) - len(taken)
    taken += [head for _, head, _ in take(comm, rest)]
    assert problems == []
    expected = {b"%d %d" % (me, place) for me in range(threads) for place in range(number)}
    assert set(taken) == expected
    assert len(taken) == len(expected) * len(comm.peers)
