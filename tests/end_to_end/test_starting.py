"""A script that is started: what it is, what it sees, and who runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Form, Jobs

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("launcher")]

SCRIPT = """
    import os
    import sys

    import mpiflow
    import neighbour

    with open("who_ran_the_script.txt", "a") as file:
        file.write(f"{os.getpid()}\\n")

    @mpiflow.python_app
    def in_task(value):
        import neighbour
        return neighbour.double(value), neighbour.__file__, os.getcwd(), os.getpid()

    def main():
        if len(sys.argv) > 3 and sys.argv[3] == "load":
            mpiflow.load()
        value, where, directory, pid = in_task(21).result()
        assert value == 42
        assert where == neighbour.__file__, where
        assert directory == os.getcwd(), directory
        assert pid != os.getpid()
        assert sys.path[0] == os.path.dirname(os.path.abspath(__file__)), sys.path
        assert sys.modules["__main__"].__dict__ is globals()
        print(__name__, os.path.basename(__file__), sys.argv[1:], os.path.basename(os.getcwd()))

    if __name__ == "__main__":
        main()
"""


@pytest.mark.parametrize("form", ["mpiexec", "own", "lone", "plain"])
def test_script_is_main_with_its_own_arguments_path_and_directory(jobs: Jobs, form: Form) -> None:
    """Its options are not ours, its neighbours can be imported in tasks too, and one process only runs it."""
    jobs.write("scripts/neighbour.py", "def double(x):\n    return 2 * x\n")
    jobs.write("scripts/given.py", SCRIPT)
    (jobs.directory / "elsewhere").mkdir()
    arguments = ("-n", "7", "load") if form == "plain" else ("-n", "7", "--isolation", "none")
    out = jobs.run("../scripts/given.py", *arguments, form=form, cwd=jobs.directory / "elsewhere").well()
    assert out == f"__main__ given.py {list(arguments)} elsewhere\n"
    ran = (jobs.directory / "elsewhere" / "who_ran_the_script.txt").read_text()
    assert len(ran.splitlines()) == 1


def test_the_scripts_annotations_are_its_own(jobs: Jobs) -> None:
    """Values, as in any script without a ``__future__`` import of its own, and not texts."""
    script = """
        def half(x: int) -> float: ...
        print(half.__annotations__ == {"x": int, "return": float})
    """
    assert jobs.run(script).well() == "True\n"


def test_run_takes_a_script_that_is_called_like_a_command(jobs: Jobs) -> None:
    """``run doctor`` is the script of that name, here and on the ranks."""
    jobs.write("doctor", "import sys\nprint('the script', sys.argv)\n")
    assert jobs.run("doctor", "-x", form="own", options=["run"]).well() == "the script ['doctor', '-x']\n"


def test_options_may_stand_before_and_after_run(jobs: Jobs) -> None:
    """Both places belong to mpiflow; what follows the script does not."""
    script = """
        import sys, mpiflow
        mpiflow.load()
        print(mpiflow.dfk().config.seed, mpiflow.dfk().run_dir.rpartition("/")[2], sys.argv[1:])
    """
    options = ["--seed", "5", "run", "--run-dir", "mine"]
    assert jobs.run(script, "--seed", "6", options=options).well() == "5 mine ['--seed', '6']\n"
    assert (jobs.directory / "mine" / "mpiflow.log").is_file()


@pytest.mark.parametrize("form", ["mpiexec", "own", "lone"])
def test_rank_0_reads_its_own_standard_input(jobs: Jobs, form: Form) -> None:
    """Line by line as they are wanted, and a task that reads finds the end at once."""
    script = """
        import os, sys, mpiflow

        @mpiflow.python_app
        def read():
            return sys.stdin.read(), os.read(0, 10), os.readlink("/proc/self/fd/0")

        assert read().result() == ("", b"", "/dev/null"), read().result()
        lines = [sys.stdin.readline() for _ in range(5000)]
        assert read().result() == ("", b"", "/dev/null"), read().result()
        lines += [sys.stdin.readline() for _ in range(5000)]
        print(len(lines), set(lines))
    """
    out = jobs.run(script, form=form, stdin=b"typed\n" * 10_000).well()
    assert out == "10000 {'typed\\n'}\n"


@pytest.mark.parametrize("form", ["own", "lone"])
def test_standard_input_of_any_length_is_read_to_its_end(jobs: Jobs, form: Form) -> None:
    """A megabyte from a file, read late.

    Not beneath another's mpiexec: hydra ends a job whose rank 0 does not read its first 64 KiB at once
    ("process reading stdin too slowly"), and prterun never passes on the end of the input.
    """
    script = """
        import sys, time
        time.sleep(0.5)
        print(len(sys.stdin.read()))
    """
    assert jobs.run(script, form=form, stdin=b"typed\n" * 200_000, limit=20).well() == "1200000\n"


def test_one_rank_under_mpiexec_works_with_local_runners(jobs: Jobs) -> None:
    """An MPI world of one has no worker rank, and needs none."""
    script = """
        import mpiflow, os

        @mpiflow.python_app
        def pid(x):
            return x, os.getpid()

        answers = [future.result() for future in [pid(i) for i in range(20)]]
        assert [number for number, _ in answers] == list(range(20))
        assert os.getpid() not in {where for _, where in answers}
        print("fine")
    """
    assert jobs.run(script, ranks=1).well() == "fine\n"
