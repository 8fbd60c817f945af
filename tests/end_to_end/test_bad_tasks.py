"""Tasks that misbehave: each fails with words that help, or not at all, and costs nothing but itself.

One job for each isolation runs all of them, one after another, with a handful of ordinary tasks behind each;
every test looks at one of its outcomes.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from launching import Ended, our_mpiexec

if TYPE_CHECKING:
    from launching import Jobs

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("launcher")]

SCRIPT = """
    import json
    import os
    import signal
    import subprocess
    import sys
    import threading
    import time

    import mpiflow

    HERE = os.getcwd()

    def exits():
        sys.exit(7)

    def exits_with_words():
        sys.exit("enough")

    def exits_at_once():
        os._exit(3)

    def aborts():
        os.abort()

    def segfaults():
        os.kill(os.getpid(), signal.SIGSEGV)

    def is_killed():
        os.kill(os.getpid(), signal.SIGKILL)

    def is_terminated():
        os.kill(os.getpid(), signal.SIGTERM)

    def interrupts():
        raise KeyboardInterrupt

    def raises_deeply():
        try:
            {}["key"]
        except KeyError as error:
            raise RuntimeError("deep") from error

    def is_given(x):
        return x

    def returns_a_lock():
        return threading.Lock()

    def returns_a_generator():
        return (i for i in range(3))

    class Picky(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} and {two}")

    def raises_what_cannot_be_unpickled():
        raise Picky(1, 2)

    class Holder(Exception):
        pass

    def raises_what_cannot_be_pickled():
        error = Holder("holds a lock")
        error.lock = threading.Lock()
        raise error

    def closes_python_output():
        sys.stdout.close()
        sys.stderr.close()

    def closes_output():
        os.close(1)
        os.close(2)

    def replaces_output():
        sys.stdout = None
        sys.stderr = 3

    def changes_directory():
        os.chdir("/")
        return os.getcwd()

    def changes_environment():
        os.environ["LEFT_BY_A_TASK"] = "yes"
        os.environ.pop("HOME", None)
        os.environ["PATH"] = "/nowhere"
        os.environ.update(TZ="Mars")

    def leaves_a_thread():
        threading.Thread(target=time.sleep, args=(600,)).start()
        return threading.active_count()

    def leaves_a_child():
        subprocess.Popen(["sleep", "600"])
        subprocess.Popen(["sleep", "600"], start_new_session=True)

    def leaves_a_fork():
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)

    def returns_twice():
        pid = os.fork()
        return "child" if pid == 0 else os.waitpid(pid, 0) and "parent"

    def raises_in_a_fork():
        pid = os.fork()
        if pid == 0:
            raise ValueError("in the child")
        os.waitpid(pid, 0)
        return "parent"

    def exits_in_a_fork():
        pid = os.fork()
        if pid == 0:
            sys.exit(5)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def uses_multiprocessing():
        import multiprocessing
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.map(abs, [-1, -2, -3])

    def recurses():
        return recurses()

    def takes_all_memory():
        return bytearray(1 << 50)

    def ignores_terminations():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def sets_an_alarm():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0.0)

    def runs_mpiexec(line):
        done = subprocess.run([*line, "hostname"], capture_output=True, text=True, timeout=30)
        return done.returncode, len(done.stdout.split()), done.stderr

    def runs_mpi_below_it(line):
        code = "from mpi4py import MPI; print(MPI.COMM_WORLD.allreduce(MPI.COMM_WORLD.rank + 1))"
        done = subprocess.run([*line, sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
        return done.returncode, "".join(done.stdout.split()), done.stderr

    def imports_mpi4py_below_it():
        code = "from mpi4py import MPI; print(MPI.COMM_WORLD.size)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
        return done.returncode, "".join(done.stdout.split()), done.stderr

    # --- what is looked at after each ---------------------------------------------------------------------

    def ordinary(number):
        surroundings = (
            os.getcwd() == HERE,
            "LEFT_BY_A_TASK" not in os.environ,
            os.environ.get("HOME") == HOME,
            "TZ" not in os.environ,
            os.environ["PATH"] != "/nowhere",
            os.readlink("/proc/self/fd/0"),
        )
        print("", end="", flush=True)
        sys.stderr.flush()
        return number * number, surroundings

    HOME = os.environ.get("HOME")
    ARGUMENTS = {"runs_mpiexec": [json.loads(sys.argv[1])], "runs_mpi_below_it": [json.loads(sys.argv[1])]}
    UNPICKLABLE = {"an_argument": lambda: threading.Lock(), "an_iterator": lambda: (i for i in [])}
    GOOD = [True, True, True, True, True, "/dev/null"]

    def judge(call):
        outcome = {}
        started = time.monotonic()
        try:
            outcome["value"] = call().result(timeout=60)
        except BaseException as error:
            outcome["error"], outcome["words"] = type(error).__name__, str(error)
            causes = []
            while (error := error.__cause__) is not None:
                causes.append(f"{type(error).__name__}: {error}")
            outcome["causes"] = causes
        outcome["seconds"] = time.monotonic() - started
        others = [ordinary_app(number) for number in range(8)]
        for number, other in enumerate(others):
            try:
                value, surroundings = other.result(timeout=60)
                if value != number * number or list(surroundings) != GOOD:
                    outcome["harmed"] = [number, value, surroundings]
            except BaseException as error:
                outcome["harmed"] = [number, type(error).__name__, str(error)]
        return outcome

    ordinary_app = mpiflow.python_app(ordinary)
    is_given_app = mpiflow.python_app(is_given)
    for name in sys.argv[2:]:
        if name in UNPICKLABLE:
            outcome = judge(lambda: is_given_app(x=UNPICKLABLE[name]()))
        else:
            app = mpiflow.python_app(globals()[name])
            outcome = judge(lambda: app(*ARGUMENTS.get(name, [])))
        print(json.dumps({"name": name, **outcome}), flush=True)
"""


class Failure(NamedTuple):
    """What a task fails with: type, and a pattern that is found in its words."""

    kind: str
    words: str


def died(how: str) -> Failure:
    """WorkerLost, naming the task, the place and the way."""
    return Failure(
        "WorkerLost",
        rf"^task \d+ \(NAME\): the process that ran it \(pid \d+, rank [12] on \S+\) {how}; "
        r"its peak memory was \d+ MiB$",
    )


#: What each comes to: a failure, or a value. NAME stands for its own name.
IN_A_PROCESS: dict[str, object] = {
    "exits_at_once": died("ended with exit code 3"),
    "aborts": died("was killed by SIGABRT"),
    "segfaults": died("was killed by SIGSEGV"),
    "is_killed": died("was killed by SIGKILL"),
    "is_terminated": died("was killed by SIGTERM"),
    "ignores_terminations": None,
    "leaves_a_child": None,
    "leaves_a_fork": None,
    "returns_twice": "parent",
    "raises_in_a_fork": "parent",
    "exits_in_a_fork": 5,
    "uses_multiprocessing": [1, 2, 3],
    "runs_mpiexec": [0, 2, ""],
    "runs_mpi_below_it": [0, "33", ""],
    "imports_mpi4py_below_it": [0, "1", ""],
}
ANYWHERE: dict[str, object] = {
    "exits": Failure("TaskExited", r"^task \d+ \(NAME\).*sys\.exit\(7\)"),
    "exits_with_words": Failure("TaskExited", r"^task \d+ \(NAME\).*sys\.exit\('enough'\)"),
    "interrupts": Failure("KeyboardInterrupt", ""),
    "raises_deeply": Failure("RuntimeError", "^deep$"),
    "recurses": Failure("RecursionError", "maximum recursion depth"),
    "takes_all_memory": Failure("MemoryError", ""),
    "an_argument": Failure(
        "SerializationError", r"^task \d+ \(is_given\): argument 'x' of type lock cannot be pickled: TypeError: "
    ),
    "an_iterator": Failure(
        "SerializationError", r"^task \d+ \(is_given\): argument 'x' of type generator cannot be pickled: "
    ),
    "returns_a_lock": Failure(
        "SerializationError", r"^task \d+ \(NAME\): its result of type lock cannot be pickled: TypeError: "
    ),
    "returns_a_generator": Failure("SerializationError", r"its result of type generator cannot be pickled"),
    "raises_what_cannot_be_unpickled": Failure(
        "DeserializationError", r"^task \d+ \(NAME\) raised Picky: 1 and 2 \(.* cannot be rebuilt .*TypeError"
    ),
    "raises_what_cannot_be_pickled": Failure(
        "DeserializationError", r"^task \d+ \(NAME\) raised Holder: holds a lock \(.* cannot be rebuilt "
    ),
    "replaces_output": None,
    "closes_python_output": None,
    "changes_directory": "/",
    "changes_environment": None,
    "leaves_a_thread": 2,
    "sets_an_alarm": None,
}
#: In the rank it would take the job's own output.
WITH_DESCRIPTORS: dict[str, object] = {"closes_output": None}

OF_ISOLATION: dict[str, dict[str, object]] = {
    "runner": {**ANYWHERE, **IN_A_PROCESS, **WITH_DESCRIPTORS},
    "task": {**ANYWHERE, **IN_A_PROCESS, **WITH_DESCRIPTORS},
    "rank": ANYWHERE,
}
CASES = [(isolation, name) for isolation, tasks in OF_ISOLATION.items() for name in tasks]


class Outcomes(dict[str, dict[str, Any]]):
    """Outcome of each task, by isolation and name; a job is run when its first outcome is asked for."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def __missing__(self, isolation: str) -> dict[str, Any]:
        launcher = our_mpiexec()
        assert launcher is not None
        arguments = [json.dumps(launcher.line(2)), *OF_ISOLATION[isolation]]
        running = self._jobs.start(SCRIPT, *arguments, options=["--isolation", isolation, "--no-progress"])
        try:
            ended = running.wait(60)
        except AssertionError as hung:  # the outcomes it got to are looked at all the same
            ended = Ended(-1, running.out, str(hung), 60.0)
        rows = [json.loads(line) for line in ended.out.splitlines() if line.startswith("{")]
        self[isolation] = {row.pop("name"): row for row in rows}
        self[isolation]["(the job)"] = {"code": ended.code, "err": ended.err}
        return self[isolation]


@pytest.fixture(scope="module")
def outcomes(module_jobs: Jobs) -> Outcomes:
    """Outcomes of one job for each isolation."""
    return Outcomes(module_jobs)


@pytest.mark.parametrize(("isolation", "name"), CASES)
def test_task_that_misbehaves_fails_alone(outcomes: Outcomes, isolation: str, name: str) -> None:
    """It fails as expected, or not, and the tasks after it are right."""
    of_job = outcomes[isolation]
    assert name in of_job, f"the job did not come so far: {of_job['(the job)']}"
    outcome = of_job[name]
    expected = OF_ISOLATION[isolation][name]
    if isinstance(expected, Failure):
        assert outcome.get("error") == expected.kind, outcome
        assert re.search(expected.words.replace("NAME", name), str(outcome["words"])), outcome["words"]
    else:
        assert "error" not in outcome, outcome
        assert outcome["value"] == expected
    assert "harmed" not in outcome, f"a task after it: {outcome['harmed']}"
    assert outcome["seconds"] < 15


@pytest.mark.parametrize("isolation", OF_ISOLATION)
def test_job_ends_well_after_all_of_them(outcomes: Outcomes, isolation: str) -> None:
    """Exit code 0, every task answered."""
    assert outcomes[isolation]["(the job)"]["code"] == 0, outcomes[isolation]["(the job)"]
    assert set(outcomes[isolation]) == {*OF_ISOLATION[isolation], "(the job)"}


@pytest.mark.parametrize("isolation", OF_ISOLATION)
def test_causes_come_along(outcomes: Outcomes, isolation: str) -> None:
    """``raise … from …`` in a task: the chain, then the traceback of the task."""
    causes = outcomes[isolation]["raises_deeply"]["causes"]
    assert causes[0] == "KeyError: 'key'"
    assert causes[1].startswith("RemoteTraceback: ")
    assert "in raises_deeply" in causes[1]
