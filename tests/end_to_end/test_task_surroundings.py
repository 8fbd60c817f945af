"""What a task finds round it: variables, thread counts, descriptors, and what its output becomes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Form, Jobs, Mpiexec

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("launcher")]


@pytest.mark.parametrize("form", ["mpiexec", "own"])
def test_the_launchers_variables_are_gone(jobs: Jobs, form: Form, launcher: Mpiexec) -> None:
    """On rank 0 and in every kind of task; what the launcher adds is found by asking it."""
    added = jobs.command([*launcher.line(1), "env", "-0"]).wait().well()
    plain = jobs.command(["env", "-0"]).wait().well()
    names = {entry.split("=")[0] for entry in added.split("\0")}
    names -= {entry.split("=")[0] for entry in plain.split("\0")}
    # These two concern any program and say nothing of a rank: hydra sets the one, Open MPI's wrapper the other.
    names -= {"GFORTRAN_UNBUFFERED_PRECONNECTED", "LD_LIBRARY_PATH", ""}
    assert len(names) > 4, names
    script = """
        import os, subprocess, sys, mpiflow
        from mpiflow import Config, DataFlowKernel, MPIExecutor

        LAUNCHERS = set(sys.argv[1:]) | {"MPIFLOW_INTERRUPT"}

        def seen():
            child = subprocess.run(["env", "-0"], capture_output=True, text=True).stdout
            return set(os.environ) | {entry.split("=")[0] for entry in child.split("\\0")}

        assert not LAUNCHERS & seen(), LAUNCHERS & seen()
        for isolation in ("runner", "task", "rank"):
            with DataFlowKernel(Config(executors=[MPIExecutor(isolation=isolation)])) as dfk:
                there = mpiflow.python_app(seen, data_flow_kernel=dfk)().result()
                assert not LAUNCHERS & there, (isolation, LAUNCHERS & there)
                assert {"MINE", "SLURM_CLUSTER_NAME", "PATH"} <= there
        print("fine")
    """
    env = {"MINE": "1", "SLURM_CLUSTER_NAME": "blue"}
    assert jobs.run(script, *sorted(names), form=form, env=env).well() == "fine\n"


def test_thread_counts_are_set_before_numpy_is_loaded(jobs: Jobs) -> None:
    """One core for a runner unless somebody said otherwise: numpy has started no threads of its own."""
    pytest.importorskip("numpy")
    script = """
        import os, sys, mpiflow

        @mpiflow.python_app
        def threads():
            assert "numpy" not in sys.modules
            import numpy
            numpy.ones((300, 300)) @ numpy.ones((300, 300))
            names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
            return len(os.listdir("/proc/self/task")), [os.environ.get(name) for name in names]

        print(*threads().result())
    """
    assert jobs.run(script, ranks=2).well() == "1 ['1', '1', '1']\n"
    mine = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    assert jobs.run(script, ranks=2, env=mine).well() == "2 ['2', '2', '1']\n"


def test_tasks_inherit_no_descriptors(jobs: Jobs) -> None:
    """Neither the launcher's nor MPI's nor those of the script's shell; what they exec gets three."""
    script = """
        import os, subprocess, mpiflow

        @mpiflow.python_app
        def descriptors():
            own = os.listdir("/proc/self/fd")
            child = subprocess.run(["ls", "/proc/self/fd"], close_fds=False, capture_output=True, text=True)
            return own, child.stdout.split()

        own, child = descriptors().result()
        assert len(own) < 15, own
        assert len(child) <= 4, child
        print("fine")
    """
    assert jobs.run(script, ranks=2).well() == "fine\n"


@pytest.mark.parametrize("isolation", ["runner", "rank"])
def test_signal_handlers_and_timers_of_one_task_are_not_the_nexts(jobs: Jobs, isolation: str) -> None:
    """A task that ignores SIGTERM, or leaves an alarm behind, does so for itself alone."""
    script = """
        import os, signal, time, mpiflow

        @mpiflow.python_app
        def seen():
            time.sleep(0.3)
            return os.getpid(), [str(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGALRM, signal.SIGPROF)]

        @mpiflow.python_app
        def change():
            for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGPROF):
                signal.signal(number, signal.SIG_IGN)
                signal.signal(number, print)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            return os.getpid()

        before = seen().result()
        assert change().result() == before[0]
        assert seen().result() == before
        print("fine")
    """
    assert jobs.run(script, ranks=2, options=["--isolation", isolation]).well() == "fine\n"


@pytest.mark.parametrize("form", ["mpiexec", "plain"])
def test_output_of_tasks_is_shown_with_the_task_it_comes_from(jobs: Jobs, form: Form) -> None:
    """Both streams, from Python, from C and from children, also of a task that dies."""
    script = """
        import os, subprocess, sys, mpiflow
        mpiflow.load()

        @mpiflow.python_app
        def speak(word):
            print("python", word)
            print("error", word, file=sys.stderr)
            os.write(1, f"descriptor {word}\\n".encode())
            subprocess.run(["echo", "child", word])

        @mpiflow.python_app
        def dies():
            os.write(1, b"last words\\n")
            os._exit(1)

        @mpiflow.bash_app
        def shell():
            return "echo from bash"

        for word in ("a", "b"):
            speak(word).result()
        dies().exception()
        shell().result()
    """
    ended = jobs.run(script, ranks=2, form=form)
    assert ended.code == 0, str(ended)
    rank = ", rank 1" if form == "mpiexec" else ""
    for task, word in ((0, "a"), (1, "b")):
        prefix = f"[task {task} speak{rank}] "
        shown = [line for line in ended.out.splitlines() if line.startswith(prefix)]
        assert sorted(shown) == sorted(f"{prefix}{what} {word}" for what in ("python", "descriptor", "child"))
        assert f"{prefix}error {word}\n" in ended.err
    assert f"[task 2 dies{rank}] last words\n" in ended.out
    assert f"[task 3 shell{rank}] from bash\n" in ended.out
    assert len(ended.out.splitlines()) == 8, str(ended)


def test_a_flood_of_output_is_cut_and_counted(jobs: Jobs) -> None:
    """Megabytes in lines, in one line, and in bytes that are no text: little is shown, all of it is accounted for."""
    script = """
        import os, sys, mpiflow

        @mpiflow.python_app
        def flood(kind):
            if kind == "lines":
                for number in range(100_000):
                    print("line", number)
            elif kind == "one line":
                print("x" * 3_000_000)
            else:
                os.write(1, bytes(range(256)) * 4000)
            return kind

        @mpiflow.python_app
        def quiet(x):
            return x

        kinds = ["lines", "one line", "bytes"] * 2
        floods = [flood(kind) for kind in kinds]
        assert [quiet(n).result() for n in range(100)] == list(range(100))
        assert [future.result() for future in floods] == kinds
        print("the script's own")
    """
    ended = jobs.run(script)
    assert ended.code == 0, str(ended)
    assert ended.out.endswith("the script's own\n")
    assert len(ended.out) + len(ended.err) < 1_000_000
    hidden = sum(int(n.replace(",", "")) for n in re.findall(r"… and ([\d,]+) bytes more", ended.out))
    printed = 2 * (sum(len(f"line {n}\n") for n in range(100_000)) + 3_000_001 + 1_024_000)
    assert 0.9 * printed < hidden < printed, (hidden, printed)
