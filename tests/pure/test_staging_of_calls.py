"""What happens to the files of a call: who is asked, what the function sees, and what its futures say."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from fakes import LONG, Hand, make_kernel
from staging_servers import web

import mpiflow
from mpiflow.data.files import File
from mpiflow.data.futures import DataFuture
from mpiflow.data.staging.base import Staging
from mpiflow.data.staging.defaults import default_staging
from mpiflow.data.staging.http import HTTPInTaskStaging, HTTPSeparateTaskStaging
from mpiflow.data.staging.noop import NoOpFileStaging
from mpiflow.data.staging.zip import ZipAuthorityError
from mpiflow.errors import DependencyError
from mpiflow.kernel.dataflow import DataFlowKernel
from mpiflow.kernel.staging import needs_staging


@pytest.fixture
def kernel_with() -> Iterator[Callable[..., DataFlowKernel]]:
    """Makes a kernel over one executor that runs everything by itself, with these providers."""
    made: list[DataFlowKernel] = []

    def make(*providers: Staging, working_dir: Path | None = None, **fields: Any) -> DataFlowKernel:
        hand = Hand(by_itself=True)
        hand.storage_access = list(providers)
        hand.working_dir = None if working_dir is None else str(working_dir)
        made.append(make_kernel(hand, **fields))
        return made[-1]

    yield make
    for kernel in made:
        kernel.cleanup()


def app(kernel: DataFlowKernel, func: Callable[..., Any]) -> Any:
    return mpiflow.python_app(func, data_flow_kernel=kernel)


def seen(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


class Lifted(Staging):
    """Knows where its files lie; starts nothing."""

    def __init__(self, scheme: str = "lift") -> None:
        self.scheme = scheme
        self.asked: list[tuple[str, str]] = []

    def can_stage_in(self, file: File) -> bool:
        return file.scheme == self.scheme

    can_stage_out = can_stage_in

    def stage_in(self, dm: Any, executor: str, file: File, parent_fut: Future[Any] | None) -> None:
        self.asked.append(("in", file.url))
        file.local_path = f"/in/{file.filename}"

    def stage_out(self, dm: Any, executor: str, file: File, app_fu: Future[Any]) -> None:
        self.asked.append(("out", file.url))
        file.local_path = f"/out/{file.filename}"


def _noted(file: File, **_: Any) -> str:
    return f"{file.filename} fetched"


class Launching(Staging):
    """Starts a task for each file, written as one for Parsl would be."""

    def __init__(self, work: Callable[..., Any] = _noted) -> None:
        self.work = work

    def can_stage_in(self, file: File) -> bool:
        return file.scheme == "launch"

    can_stage_out = can_stage_in

    def stage_in(self, dm: Any, executor: str, file: File, parent_fut: Future[Any] | None) -> DataFuture:
        file.local_path = f"/in/{file.filename}"
        fetch = mpiflow.python_app(executors=[executor], data_flow_kernel=dm.dfk)(self.work)
        future = fetch(file, outputs=[file], _parsl_staging_inhibit=True, parent_fut=parent_fut)
        return future._outputs[0]

    def stage_out(self, dm: Any, executor: str, file: File, app_fu: Future[Any]) -> Future[Any]:
        file.local_path = f"/out/{file.filename}"
        take = mpiflow.python_app(executors=[executor], data_flow_kernel=dm.dfk)(self.work)
        return take(file, app_fu=app_fu, _parsl_staging_inhibit=True)


class Wrapping(Staging):
    """Replaces the function of the task."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def can_stage_in(self, file: File) -> bool:
        return file.scheme == "wrap"

    can_stage_out = can_stage_in

    def replace_task(self, dm: Any, executor: str, file: File, func: Callable[..., Any]) -> Callable[..., Any]:
        return self._around(f"in {file.filename}", func)

    def replace_task_stage_out(
        self, dm: Any, executor: str, file: File, func: Callable[..., Any]
    ) -> Callable[..., Any]:
        return self._around(f"out {file.filename}", func)

    def _around(self, name: str, func: Callable[..., Any]) -> Callable[..., Any]:
        def around(*args: Any, **kwargs: Any) -> Any:
            self.told.append(f"{name} begins")
            result = func(*args, **kwargs)
            self.told.append(f"{name} ends")
            return result

        return around


# --- which calls are looked at ----------------------------------------------------------------------------

HERE = File("/x")
WRITTEN = DataFuture(Future(), HERE, 0)


@pytest.mark.parametrize(
    ("args", "kwargs", "needs"),
    [
        ((), {}, False),
        ((1, "x", [HERE]), {"a": {"b": HERE}, "inputs": [1, [HERE]], "outputs": []}, False),
        ((1, HERE), {}, True),
        ((WRITTEN,), {}, True),
        ((Future(),), {"inputs": [Future()]}, False),
        ((), {"x": HERE}, True),
        ((), {"inputs": [0, WRITTEN]}, True),
        ((), {"inputs": (HERE,)}, True),
        ((), {"outputs": [HERE]}, True),
        ((), {"stdout": HERE}, True),
        ((), {"stdout": ("x", "w"), "stderr": "y"}, False),
    ],
)
def test_files_of_a_call(args: Any, kwargs: Any, needs: bool) -> None:
    assert needs_staging(args, kwargs) is needs


# --- files that stay where they are -----------------------------------------------------------------------


def test_plain_paths_cost_no_task_and_no_copy(kernel_with: Any) -> None:
    kernel = kernel_with(NoOpFileStaging())
    read, written, stream = File("/r"), File("file:///w"), File("s")
    inputs, outputs = [read], [written]
    future = app(kernel, seen)(read, inputs=inputs, outputs=outputs, stdout=stream, deep=[read])
    args, kwargs = future.result(LONG)
    assert kernel.task_count == 1
    assert args[0] is read
    assert kwargs["inputs"][0] is kwargs["deep"][0] is read
    assert kwargs["outputs"][0] is written
    assert kwargs["stdout"] is stream
    assert (inputs, outputs) == ([read], [written])
    assert future.outputs[0].result(LONG) is written
    assert future.stdout.result(LONG) is stream
    assert future.stderr is None
    assert isinstance(future.stdout, DataFuture)


def test_a_file_that_a_task_writes_is_waited_for(kernel_with: Any) -> None:
    kernel = kernel_with(NoOpFileStaging())
    written = app(kernel, seen)(outputs=[File("/w")])
    args, kwargs = app(kernel, seen)(written.outputs[0], inputs=written.outputs).result(LONG)
    assert args[0] is kwargs["inputs"][0] is written.outputs[0].file_obj
    assert written.done()
    assert kernel.task_count == 2


def test_an_output_of_a_task_may_be_written_by_another(kernel_with: Any) -> None:
    kernel = kernel_with(NoOpFileStaging(), Lifted())
    for url, path in (("/w", "/w"), ("lift:/w", "/out/w")):
        file = File(url)
        first = app(kernel, seen)(outputs=[file])
        second = app(kernel, seen)(outputs=first.outputs)
        assert [str(f) for f in second.result(LONG)[1]["outputs"]] == [path]
        assert second.outputs[0].result(LONG) is file
        assert isinstance(first.outputs[0], DataFuture), "the list that was passed stays as it is"


def test_a_path_with_a_local_path_of_its_own_is_seen_as_given(kernel_with: Any) -> None:
    file = File("/x")
    file.local_path = "/left/from/another/task"
    args, _ = app(kernel_with(NoOpFileStaging()), seen)(file).result(LONG)
    assert (args[0].filepath, file.local_path) == ("/x", "/left/from/another/task")


# --- local paths ------------------------------------------------------------------------------------------


def test_a_provider_says_where_files_lie(kernel_with: Any) -> None:
    """The function sees a copy; neither the file nor the lists of the caller change."""
    provider = Lifted()
    kernel = kernel_with(NoOpFileStaging(), provider)
    file, out, err = File("lift://h/a"), File("lift:/o"), File("lift:/e")
    inputs, outputs = (file, File("/plain")), [out]
    call = app(kernel, seen)
    future = call(file, inputs=inputs, outputs=outputs, key=file, deep=[file], stderr=err)
    args, kwargs = future.result(LONG)
    assert [str(f) for f in (*args, kwargs["key"], *kwargs["inputs"])] == ["/in/a", "/in/a", "/in/a", "/plain"]
    assert [str(f) for f in (*kwargs["outputs"], kwargs["stderr"])] == ["/out/o", "/out/e"]
    assert kwargs["deep"][0] is file
    assert provider.asked == [("in", "lift://h/a")] * 3 + [("out", "lift:/o"), ("out", "lift:/e")]
    assert {f.local_path for f in (file, out, err)} == {None}
    assert inputs[0] is file
    assert outputs == [out]
    assert future.outputs[0].result(LONG) is out
    assert future.stderr.result(LONG) is err
    assert kernel.task_count == 1


def test_a_local_path_for_a_file_that_a_task_writes(kernel_with: Any) -> None:
    """Parsl's issue 1316: the copy that is staged in still waits for the task that writes the file."""
    hand = Hand()
    hand.storage_access = [Lifted()]
    kernel = make_kernel(hand, helped=False)
    file = File("lift:/x")
    writer = app(kernel, seen)(outputs=[file])
    reader = app(kernel, seen)(writer.outputs[0], inputs=[writer.outputs[0]])
    kernel.driver.nudge()
    assert list(hand.given) == [writer.tid]
    hand.finish(writer)
    kernel.driver.nudge()
    args, kwargs = hand.arguments(reader)
    assert str(args[0]) == str(kwargs["inputs"][0]) == "/in/x"
    assert file.local_path is None
    hand.finish(reader)
    assert reader.result(LONG) is None
    kernel.cleanup()


# --- tasks of their own -----------------------------------------------------------------------------------


def test_a_provider_that_starts_tasks(kernel_with: Any) -> None:
    kernel = kernel_with(Launching())
    file = File("launch:/a")
    future = app(kernel, seen)(file, outputs=[File("launch:/b")])
    args, kwargs = future.result(LONG)
    assert str(args[0]) == "/in/a"
    assert str(kwargs["outputs"][0]) == "/out/b"
    assert file.local_path is None
    assert future.outputs[0].result(LONG).url == "launch:/b"
    assert future.outputs[0].tid == future.tid
    assert kernel.task_count == 3


def test_a_file_is_fetched_after_it_has_been_written_and_taken_away(kernel_with: Any) -> None:
    order: list[str] = []

    def note(file: File, *, parent_fut: Any = None, app_fu: Any = None, **_: Any) -> None:
        order.append(f"{file.local_path}")

    def write(outputs: list[File]) -> None:
        order.append("written")

    def read(file: File) -> None:
        order.append("read")

    kernel = kernel_with(Launching(note))
    written = app(kernel, write)(outputs=[File("launch:/b")])
    app(kernel, read)(written.outputs[0]).result(LONG)
    assert order == ["written", "/out/b", "/in/b", "read"]


def test_a_task_that_stages_and_fails(kernel_with: Any) -> None:
    def fail(file: File, **_: Any) -> None:
        raise OSError(f"no {file.filename}")

    kernel = kernel_with(Launching(fail))
    with pytest.raises(DependencyError, match="via DataFuture from task 1") as failed:
        app(kernel, seen)(File("launch:/a")).result(LONG)
    assert str(failed.value.__cause__) == "no a"
    future = app(kernel, seen)(outputs=[File("launch:/b")], stdout=File("launch:/c"))
    assert future.exception(LONG) is None
    assert str(future.outputs[0].exception(LONG)) == "no b"
    assert str(future.stdout.exception(LONG)) == "no c"


def test_a_task_that_fails_takes_nothing_away(kernel_with: Any) -> None:
    taken: list[File] = []

    def divide(outputs: list[File]) -> float:
        return 1 / 0

    kernel = kernel_with(Launching(lambda file, **_: taken.append(file)))
    future = app(kernel, divide)(outputs=[File("launch:/b")])
    assert isinstance(future.exception(LONG), ZeroDivisionError)
    assert isinstance(future.outputs[0].exception(LONG).__cause__, ZeroDivisionError)
    assert taken == []


# --- around the task --------------------------------------------------------------------------------------


def test_a_provider_that_replaces_the_function(kernel_with: Any) -> None:
    provider = Wrapping()
    kernel = kernel_with(provider)
    call = app(kernel, seen)
    args, _ = call(File("wrap:/a"), 7, inputs=[File("wrap:/i")], outputs=[File("wrap:/o")]).result(LONG)
    assert args[1] == 7
    assert provider.told == [
        "out o begins", "in a begins", "in i begins", "in i ends", "in a ends", "out o ends",
    ]  # fmt: skip
    provider.told.clear()
    call(1).result(LONG)
    assert provider.told == [], "the app itself is left as it is"


def test_the_name_of_the_app_stays(kernel_with: Any) -> None:
    future = app(kernel_with(Wrapping()), seen)(File("wrap:/a"))
    assert future.task_record["func_name"] == "seen"
    assert future.task_record["func"] is seen


def test_each_try_is_staged(kernel_with: Any) -> None:
    provider = Wrapping()
    tries: list[int] = []

    def flaky(_: File) -> int:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("again")
        return len(tries)

    assert app(kernel_with(provider, retries=2), flaky)(File("wrap:/a")).result(LONG) == 3
    assert provider.told == ["in a begins"] * 3 + ["in a ends"]


# --- who is asked -----------------------------------------------------------------------------------------


def test_the_first_that_says_yes(kernel_with: Any) -> None:
    first, second = Lifted(), Lifted()
    app(kernel_with(Staging(), first, second), seen)(File("lift:/a")).result(LONG)
    assert (first.asked, second.asked) == ([("in", "lift:/a")], [])


def test_a_file_that_nobody_takes(kernel_with: Any) -> None:
    """An error of the call, before anything is begun for the other files; and the kernel goes on."""
    provider = Lifted()
    kernel = kernel_with(provider)
    call = app(kernel, seen)
    with pytest.raises(ValueError, match=r"Executor hand cannot stage file <File .*url=foo:/x"):
        call(File("lift:/a"), File("foo:/x"))
    with pytest.raises(ValueError, match=r"Executor hand cannot stage out file <File .*url=foo:/x"):
        call(File("lift:/a"), outputs=[File("lift:/a"), File("foo:/x")])
    with pytest.raises(ValueError, match=r"Executor hand cannot stage out file <File .*url=/plain"):
        call(stdout=File("/plain"))
    assert provider.asked == []
    kernel.wait_for_current_tasks()
    assert call(1).result(LONG) == ((1,), {})


def test_a_provider_that_raises(kernel_with: Any) -> None:
    """In the call; what has been made to wait for that task fails with it, so that nobody waits for ever."""

    class Refusing(Launching):
        def stage_out(self, dm: Any, executor: str, file: File, app_fu: Future[Any]) -> Future[Any]:
            if file.filename == "bad":
                raise LookupError("not today")
            first.append(super().stage_out(dm, executor, file, app_fu))
            return first[0]

    first: list[Future[Any]] = []
    kernel = kernel_with(Refusing())
    with pytest.raises(LookupError, match="not today"):
        app(kernel, seen)(outputs=[File("launch:/good"), File("launch:/bad")])
    assert isinstance(first[0].exception(LONG), DependencyError)
    assert isinstance(first[0].exception(LONG).__cause__, LookupError)
    kernel.wait_for_current_tasks()


def test_calls_that_wait_for_room_do_not_wait_for_their_own_staging(kernel_with: Any) -> None:
    kernel = kernel_with(Launching(), max_pending=1)
    for _ in range(3):
        future = app(kernel, seen)(File("launch:/a"), outputs=[File("launch:/b")])
    assert future.outputs[0].exception(LONG) is None


def test_a_dependency_resolver_that_raises_leaves_nobody_waiting(kernel_with: Any) -> None:
    def gather(value: object) -> list[Future[Any]]:
        if value == "bad":
            raise LookupError("what is this")
        return [value] if isinstance(value, Future) else []

    resolver = mpiflow.DependencyResolver(
        traverse_to_gather=gather, traverse_to_unwrap=lambda v: v.result() if isinstance(v, Future) else v
    )
    kernel = kernel_with(Launching(), dependency_resolver=resolver)
    with pytest.raises(LookupError, match="what is this"):
        app(kernel, seen)("bad", outputs=[File("launch:/b")])
    kernel.wait_for_current_tasks()


def test_none_is_the_default_and_an_empty_list_is_nobody() -> None:
    assert [type(provider).__name__ for provider in default_staging] == [
        "NoOpFileStaging", "FTPSeparateTaskStaging", "HTTPSeparateTaskStaging", "ZipFileStaging",
    ]  # fmt: skip
    hand = Hand(by_itself=True)
    kernel = make_kernel(hand)
    assert hand.storage_access is None
    assert app(kernel, len)([File("/x")]).result(LONG) == 1
    assert app(kernel, seen)(File("/x")).exception(LONG) is None
    hand.storage_access = []
    with pytest.raises(ValueError, match=r"Executor hand cannot stage file"):
        app(kernel, seen)(File("/x"))
    kernel.cleanup()


def test_a_staged_task_runs_where_its_files_are() -> None:
    here, there = Hand("here", by_itself=True), Hand("there", by_itself=True)
    here.storage_access = there.storage_access = [Lifted()]
    kernel = make_kernel(here, there)
    futures = [app(kernel, seen)(File("lift:/a")) for _ in range(6)]
    for future in futures:
        assert future.task_record["executor"] in ("here", "there")
        future.result(LONG)
    ran = {label: [tid for bulk in hand.bulks for tid in bulk] for label, hand in (("here", here), ("there", there))}
    for future in futures:
        assert future.tid in ran[future.task_record["executor"]]
    kernel.cleanup()


def test_staging_that_is_inhibited(kernel_with: Any) -> None:
    provider = Lifted()
    file = File("foo:/x")
    call = app(kernel_with(provider), seen)
    future = call(file, outputs=[file], stdout=file, _parsl_staging_inhibit=True)
    args, kwargs = future.result(LONG)
    assert args[0] is kwargs["outputs"][0] is kwargs["stdout"] is file
    assert kwargs["_parsl_staging_inhibit"] is True
    assert future.outputs[0].result(LONG) is file
    assert future.stdout.result(LONG) is file
    assert provider.asked == []


# --- mpiflow's own providers in a kernel ------------------------------------------------------------------


def first_line(file: File) -> tuple[str, str]:
    return str(file), Path(file).read_text().splitlines()[0]


@pytest.mark.parametrize("provider", [HTTPSeparateTaskStaging(), HTTPInTaskStaging()])
@pytest.mark.parametrize("subdirectory", ["wd", None])
def test_a_file_from_the_web(
    kernel_with: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: Staging, subdirectory: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    working_dir = None if subdirectory is None else Path(subdirectory)
    kernel = kernel_with(provider, working_dir=working_dir)
    with web() as root:
        path, line = app(kernel, first_line)(File(f"{root}/data/whole.txt")).result(LONG)
    assert line == "all of it"
    separate = isinstance(provider, HTTPSeparateTaskStaging)
    here = tmp_path if separate or subdirectory else Path()  # inside the task: where the task runs
    assert path == str(here / (subdirectory or "") / "whole.txt")
    assert kernel.task_count == (2 if separate else 1)


def test_a_file_the_web_does_not_have(kernel_with: Any, tmp_path: Path) -> None:
    with web() as root:
        separate = kernel_with(HTTPSeparateTaskStaging(), working_dir=tmp_path)
        with pytest.raises(DependencyError, match="via DataFuture from task 1") as failed:
            app(separate, first_line)(File(f"{root}/nothing")).result(LONG)
        assert f"{root}/nothing cannot be fetched: the server answers 404 Not Found" in str(failed.value.__cause__)
        inside = kernel_with(HTTPInTaskStaging(), working_dir=tmp_path)
        with pytest.raises(OSError, match="the server answers 404 Not Found"):
            app(inside, first_line)(File(f"{root}/nothing")).result(LONG)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["http://host", "http://host/a/", "http://host/a/..", "ftp://host/."])
def test_a_url_that_ends_in_no_name(kernel_with: Any, url: str) -> None:
    kernel = kernel_with(*default_staging)
    with pytest.raises(ValueError, match=f"{url} cannot be staged: its path '.*' ends in no file's name"):
        app(kernel, seen)(File(url))


def test_zip_archives(kernel_with: Any, tmp_path: Path) -> None:
    def write(outputs: list[File]) -> None:
        Path(outputs[0]).write_text("zipped\n")

    kernel = kernel_with(*default_staging, working_dir=tmp_path / "wd")
    member = File(f"zip:{tmp_path}/all.zip/in/x.txt")
    written = app(kernel, write)(outputs=[member])
    assert written.outputs[0].result(LONG) is member
    assert app(kernel, first_line)(member).result(LONG) == (f"{tmp_path}/wd/in/x.txt", "zipped")
    with pytest.raises(DependencyError) as failed:
        app(kernel, first_line)(File(f"zip:{tmp_path}/all.zip/in/y.txt")).result(LONG)
    assert str(failed.value.__cause__) == f"{tmp_path}/all.zip has no member 'in/y.txt'"


def test_zip_urls_that_cannot_be(kernel_with: Any, tmp_path: Path) -> None:
    kernel = kernel_with(*default_staging)
    call = app(kernel, seen)
    words = "zip file staging requires a working_dir to be specified: executor 'hand' has none, for zip:/a.zip/x"
    with pytest.raises(RuntimeError, match=words):
        call(outputs=[File("zip:/a.zip/x")])
    with pytest.raises(ZipAuthorityError, match=r"authority \(netloc\) section \(host\), for zip://host/a.zip/x"):
        call(File("zip://host/a.zip/x"))
    with pytest.raises(ValueError, match=r"zip:/a.zip/../../x cannot be staged: its member '../../x' leads out"):
        call(File("zip:/a.zip/../../x"))
    with pytest.raises(ValueError, match=r"'/a.tar/x' names no file in an archive"):
        call(File("zip:/a.tar/x"))


def test_a_thousand_local_files_leave_nothing_behind(kernel_with: Any) -> None:
    kernel = kernel_with(NoOpFileStaging())
    call = app(kernel, seen)
    for number in range(1000):
        call(File(f"/{number}"))
    kernel.wait_for_current_tasks()
    gc.collect()
    assert not [o for o in gc.get_objects() if isinstance(o, File) and o.path in ("/0", "/500")]
