"""Streams of records: what is put in comes out."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpiflow.comm import wire
from mpiflow.comm.wire import HEADER, record, records

_OTHERS = {"INLINE", "HEADER_SIZE", "TYPE_CHECKING"}
KINDS = {
    name: value
    for name, value in vars(wire).items()
    if name.isupper() and isinstance(value, int) and name not in _OTHERS
}

_u32, _u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
_records = st.tuples(st.sampled_from(sorted(KINDS.values())), st.binary(max_size=200), _u64, _u32, _u32)


@given(st.lists(_records, max_size=20), st.sampled_from([bytes, bytearray]))
def test_what_is_put_in_comes_out(parts: list[tuple[int, bytes, int, int, int]], form: type) -> None:
    stream = form(b"".join(record(*part) for part in parts))
    found = [
        (kind, bytes(stream[start:end]), aid, tid, fid)
        for aid, tid, fid, time, kind, more, start, end in records(stream)
        if (time, more) == (0.0, 0)
    ]
    assert found == parts


@given(st.lists(_records, max_size=10))
def test_records_lie_side_by_side_each_behind_its_header(
    parts: list[tuple[int, bytes, int, int, int]],
) -> None:
    stream = b"".join(record(*part) for part in parts)
    expected = 0
    for *_, start, end in records(stream):
        assert start == expected + HEADER.size
        expected = end
    assert expected == len(stream)


@given(_u64, _u32, _u32, st.floats(0, 1e9, width=32), st.integers(0, 2**16 - 1))
def test_a_header_carries_time_and_attachments(aid: int, tid: int, fid: int, time: float, more: int) -> None:
    stream = HEADER.pack(aid, tid, fid, 3, time, wire.TASK, more) + b"abc"
    assert list(records(stream)) == [(aid, tid, fid, time, wire.TASK, more, HEADER.size, HEADER.size + 3)]


def test_a_header_is_as_long_as_its_description_says() -> None:
    assert HEADER.size == 28
    assert "28 bytes" in (wire.__doc__ or "")


def test_kinds_differ_and_each_is_described() -> None:
    assert len(set(KINDS.values())) == len(KINDS)
    for name in KINDS:
        assert f"\n{name} " in (wire.__doc__ or ""), f"{name} is not in the table"


def test_the_ends_of_a_try_are_neighbours() -> None:
    """Rank 0 tells them from all else by their range."""
    ends = {wire.DONE, wire.RAISED, wire.DIED, wire.OVERTIME}
    assert {kind for kind in KINDS.values() if wire.DONE <= kind <= wire.OVERTIME} == ends


@pytest.mark.parametrize("left_out", [1, 5, HEADER.size - 1])
def test_a_stream_that_is_cut_in_a_header_is_noticed(left_out: int) -> None:
    stream = record(wire.DONE, b"") + record(wire.ACK)[:-left_out]
    walk = records(stream)
    assert next(walk)[4] == wire.DONE
    with pytest.raises(struct.error):
        next(walk)
