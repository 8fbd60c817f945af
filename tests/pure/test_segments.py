"""Memory that is handed on: private, shared, and over a socket."""

from __future__ import annotations

import gc
import os
import socket
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpiflow.comm.segments import Segment, private, receive_segment, send_segment, shared, shared_copy
from mpiflow.linux import open_descriptors

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def channel() -> Pair:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@pytest.mark.parametrize("make", [private, shared])
@pytest.mark.parametrize("size", [0, 1, 4096, 100_000])
def test_it_has_the_size_asked_for_is_zero_and_can_be_written(make: type[Segment], size: int) -> None:
    segment = make(size)  # type: ignore[arg-type]
    assert len(segment) == len(segment.view) == size
    assert not segment.view.readonly
    assert bytes(segment.view) == bytes(size)
    segment.view[:] = b"x" * size
    assert bytes(segment.view) == b"x" * size
    segment.close()


def test_private_memory_has_no_descriptor_and_shared_memory_one() -> None:
    assert private(10).fd == -1
    segment = shared(10)
    assert segment.fd >= 0
    assert os.fstat(segment.fd).st_size == 10
    segment.close()


@given(st.binary(max_size=10_000))
def test_a_shared_copy_is_equal_and_its_own(data: bytes) -> None:
    source = bytearray(data)
    segment = shared_copy(source)
    source[:] = bytes(len(source))
    assert bytes(segment.view) == data
    segment.close()


def test_a_shared_copy_of_numbers_is_a_copy_of_their_bytes() -> None:
    numbers = array("d", [1.5, -2.5, 3.0])
    segment = shared_copy(numbers)
    assert bytes(segment.view) == numbers.tobytes()
    segment.close()


def test_the_memory_outlives_its_descriptor() -> None:
    segment = shared_copy(b"still here")
    segment.close()
    segment.close()
    assert segment.fd == -1
    assert bytes(segment.view) == b"still here"


def test_nothing_is_left_open() -> None:
    gc.collect()
    before = sorted(open_descriptors())
    for size in (0, 1, 100_000):
        segment = shared(size)
        segment.close()
        del segment
    assert sorted(open_descriptors()) == before


@pytest.mark.parametrize("size", [0, 1, 70_000])
def test_what_is_passed_on_is_the_same_memory(channel: Pair, size: int) -> None:
    sent = shared_copy(b"a" * size)
    send_segment(channel[0], sent)
    received = receive_segment(channel[1])
    assert bytes(received.view) == b"a" * size
    sent.view[:] = b"b" * size
    assert bytes(received.view) == b"b" * size
    sent.close()
    received.close()


def test_segments_keep_their_order_and_their_descriptors(channel: Pair) -> None:
    for number in range(5):
        segment = shared_copy(bytes([number]) * (number + 1))
        send_segment(channel[0], segment)
        segment.close()  # the one on its way keeps the memory
    for number in range(5):
        segment = receive_segment(channel[1])
        assert bytes(segment.view) == bytes([number]) * (number + 1)
        segment.close()


def test_another_process_sees_it(channel: Pair) -> None:
    child = os.fork()
    if child == 0:
        try:
            segment = receive_segment(channel[1])
            segment.view[:5] = b"child"
            os._exit(0)
        finally:
            os._exit(1)
    segment = shared_copy(b"parent")
    send_segment(channel[0], segment)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bytes(segment.view) == b"childt"
    segment.close()


def test_the_end_of_the_other_side_is_an_end_of_file(channel: Pair) -> None:
    channel[0].close()
    with pytest.raises(EOFError, match="other side"):
        receive_segment(channel[1])
