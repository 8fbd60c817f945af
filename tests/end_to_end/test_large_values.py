"""Arguments and results beyond what one MPI message, one pipe or one int can hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Form, Jobs

pytestmark = [pytest.mark.usefixtures("launcher")]


def free_gib() -> float:
    """Memory that may be used: what the machine has free, cut by the limit of the control group."""
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(meminfo["MemAvailable"].split()[0]) / 2**20
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and limit.read_text().strip().isdigit():
        free = min(free, (int(limit.read_text()) - int(used.read_text())) / 2**30)
    return free


@pytest.mark.timeout(90)
@pytest.mark.parametrize(("form", "isolation"), [("mpiexec", "runner"), ("mpiexec", "rank"), ("plain", "")])
def test_arrays_and_bytes_of_many_sizes(jobs: Jobs, form: Form, isolation: str) -> None:
    """Round every limit between one message and the next way of sending, there and back, many at once."""
    pytest.importorskip("numpy")
    script = """
        import numpy as np, mpiflow

        mpiflow.load()

        @mpiflow.python_app
        def double(array, *others, **named):
            return array * 2, others, named

        @mpiflow.python_app
        def same(data):
            return data

        sizes = [0, 1, 1000, 8191, 8192, 8193, 65535, 65536, 65537, 131072, 1_000_003, 30_000_001]
        for size in sizes:
            array = np.arange(size, dtype=np.uint8)
            doubled, others, named = double(array, array[::-1], b"x", key=array.reshape(1, -1)).result()
            assert np.array_equal(doubled, array * 2)
            assert np.array_equal(others[0], array[::-1]) and others[1] == b"x"
            assert np.array_equal(named["key"], array.reshape(1, -1))
            assert doubled.flags.writeable
            data = bytes(range(256)) * (size // 256 + 1)
            assert same(data).result() == data
            assert same(bytearray(data)).result() == data
            assert same("ä" * size).result() == "ä" * size
        many = [same(np.full(100_000, n)) for n in range(60)]
        assert all((future.result() == n).all() for n, future in enumerate(many))
        fortran = np.asfortranarray(np.random.random((300, 500)))
        back = same(fortran).result()
        assert np.array_equal(back, fortran) and back.flags.f_contiguous
        mixed = same({"a": np.arange(100_000), "b": [np.zeros(50_000), "text"], "c": b"z" * 300_000}).result()
        assert mixed["a"][-1] == 99_999 and mixed["b"][0].sum() == 0 and mixed["c"] == b"z" * 300_000
        objects = np.array([{"x": 1}, None, "text"] * 50_000, dtype=object)
        assert (same(objects).result() == objects).all()
        print("fine")
    """
    options = ["--isolation", isolation] if isolation else []
    assert jobs.run(script, form=form, options=options).well() == "fine\n"


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(("kind", "size"), [("bytes", 1_100_000_003), ("array", 2_500_000_003)])
def test_result_larger_than_one_message(jobs: Jobs, kind: str, size: int) -> None:
    """More than one piece of a message can hold, and more than an int can count; the tasks behind it are right.

    Bytes travel inside their pickle, which takes four copies where an array takes two.
    """
    pytest.importorskip("numpy")
    if (free := free_gib()) < 12:
        pytest.skip(f"needs 12 GiB of free memory; there are {free:.0f}")
    script = """
        import sys, mpiflow

        SIZE = int(sys.argv[2])

        @mpiflow.python_app
        def make(kind):
            if kind == "bytes":
                return bytes(1000) + b"end" + bytes(SIZE - 1003)
            import numpy
            array = numpy.zeros(SIZE, dtype=numpy.uint8)
            array[-1] = 7
            return array

        value = make(sys.argv[1]).result()
        assert len(value) == SIZE
        if sys.argv[1] == "bytes":
            assert value[1000:1003] == b"end" and value[-1] == 0
        else:
            assert value[-1] == 7 and value[0] == 0
        del value
        assert [f.result() for f in [mpiflow.python_app(abs)(-n) for n in range(50)]] == list(range(50))
        print("fine")
    """
    assert jobs.run(script, kind, str(size), ranks=2, options=["--no-progress"], limit=150).well() == "fine\n"
