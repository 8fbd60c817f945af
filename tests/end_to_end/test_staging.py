"""Files that are brought to tasks and taken away from them, and a directory for each task: in real jobs."""

from __future__ import annotations

import shutil
import zipfile
from typing import TYPE_CHECKING

import pytest
from staging_servers import LARGE, ftp, web

if TYPE_CHECKING:
    from launching import Jobs

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("launcher")]

#: Executors that each script of this file can be run on, by its first argument.
EXECUTORS = ["ranks", "threads"]

HEAD = """
    import os, pathlib, sys, mpiflow
    from mpiflow import Config, File, MPIExecutor, ThreadPoolExecutor, bash_app, load, python_app
    from mpiflow.data.staging.base import Staging

    def executor(**fields):
        return MPIExecutor(**fields) if sys.argv[1] == "ranks" else ThreadPoolExecutor(**fields)

    @python_app
    def read(file, inputs=()):
        return [pathlib.Path(f).read_text() for f in (file, *inputs)]

    @python_app
    def write(text, outputs=()):
        for f in outputs:
            pathlib.Path(f).write_text(text)
"""


@pytest.mark.parametrize("executor", EXECUTORS)
def test_from_servers(jobs: Jobs, executor: str) -> None:
    """In tasks of their own and inside the task; what cannot be fetched says why."""
    script = HEAD + """
    from mpiflow.data.staging.http import HTTPInTaskStaging
    from mpiflow.data.staging.ftp import FTPInTaskStaging

    web, ftp = File(sys.argv[2] + "/whole.txt"), File(sys.argv[3] + "/data/in.txt")
    large, missing = File(sys.argv[2] + "/large"), File(sys.argv[3] + "/data/nothing")

    @python_app
    def size(file):
        return os.path.getsize(file)

    for providers, tasks in ((None, 2), ([HTTPInTaskStaging(), FTPInTaskStaging()], 1)):
        with load(Config(executors=[executor(working_dir=f"wd{tasks}", storage_access=providers)])) as dfk:
            assert read(web).result() == ["all of it\\n"]
            assert dfk.task_count == tasks, dfk.task_count
            assert read(ftp, inputs=[web, ftp]).result() == ["by ftp\\n", "all of it\\n", "by ftp\\n"]
            assert size(large).result() == int(sys.argv[4])
            error = size(missing).exception()
            error = error.__cause__ if tasks == 2 else error
            assert type(error) is OSError, repr(error)
            assert "/data/nothing cannot be fetched to " in str(error) and "550 no such file" in str(error), error
            assert web.local_path is None
            assert sorted(os.listdir(f"wd{tasks}")) == ["in.txt", "large", "whole.txt"]
    print("fine")
    """
    with web() as root, ftp({"/data/in.txt": b"by ftp\n"}) as (where, _):
        ended = jobs.run(script, executor, root, f"ftp://{where}", str(len(LARGE)), ranks=2)
    assert ended.well() == "fine\n"


@pytest.mark.parametrize("executor", EXECUTORS)
def test_zip_archives_and_streams(jobs: Jobs, executor: str) -> None:
    """From task to task by way of an archive; what a command prints goes into it as well."""
    script = HEAD + """
    @bash_app
    def hello(stdout=None, stderr=None, outputs=()):
        return f"echo hello; echo goodbye >&2; echo out > {outputs[0]}"

    def member(name):
        return File(f"zip:{os.getcwd()}/all.zip/in/{name}")

    @mpiflow.join_app
    def joined(file):
        return read(file)

    with load(Config(executors=[executor(working_dir="wd")])):
        first = [write(str(n), outputs=[member(n)]) for n in range(8)]
        assert [read(f.outputs[0]).result() for f in first] == [[str(n)] for n in range(8)]
        assert joined(member(3)).result() == ["3"]
        future = hello(stdout=member("out"), stderr=File("err.txt"), outputs=[File("plain.txt")])
        assert type(future.stdout) is type(future.stderr) is mpiflow.DataFuture
        assert future.stdout.result().url == member("out").url
        assert future.stderr.result().url == "err.txt"
        assert pathlib.Path("err.txt").read_text().splitlines()[-1] == "goodbye"
        assert pathlib.Path(future.outputs[0].result()).read_text() == "out\\n"
        error = read(member("nothing")).exception()
        assert str(error.__cause__) == f"{os.getcwd()}/all.zip has no member 'in/nothing'", error.__cause__
        try:
            write("x", outputs=[File("zip://host/all.zip/x")])
        except Exception as refused:
            assert type(refused).__name__ == "ZipAuthorityError", refused
        mpiflow.wait_for_current_tasks()
    print("fine")
    """
    assert jobs.run(script, executor, ranks=2).well() == "fine\n"
    with zipfile.ZipFile(jobs.directory / "all.zip") as archive:
        assert sorted(archive.namelist()) == sorted([*(f"in/{n}" for n in range(8)), "in/out"])
        assert archive.read("in/out") == b"hello\n"


@pytest.mark.skipif(shutil.which("rsync") is None, reason="there is no rsync on this machine")
@pytest.mark.parametrize("executor", EXECUTORS)
def test_by_rsync(jobs: Jobs, executor: str) -> None:
    """A real rsync on both ends, and in the place of ssh something that runs its command here."""
    script = HEAD + """
    from mpiflow.data.staging.rsync import RSyncStaging

    pathlib.Path("a file").write_text("there")
    with load(Config(executors=[executor(working_dir="wd", storage_access=[RSyncStaging("login1")])])):
        assert read(File("a file")).result() == ["there"]
        future = write("new", outputs=[File("b file")])
        assert pathlib.Path(future.outputs[0].result()).read_text() == "new"
        error = read(File("nothing")).exception()
        assert type(error) is RuntimeError and "login1:" in str(error), repr(error)
        assert sorted(os.listdir("wd")) == ["a file", "b file"]
    print("fine")
    """
    shell = jobs.write("shell", '#!/bin/sh\n[ "$1" = login1 ] || exit 3\nshift\nexec "$@"\n')
    shell.chmod(0o755)
    assert jobs.run(script, executor, ranks=2, env={"RSYNC_RSH": str(shell)}).well() == "fine\n"


@pytest.mark.parametrize("executor", EXECUTORS)
def test_providers_of_a_script(jobs: Jobs, executor: str) -> None:
    """One that starts tasks and one that replaces the function, defined in the script itself, as for Parsl."""
    script = HEAD + """
    class Copying(Staging):
        def can_stage_in(self, file):
            return file.scheme == "copy"
        can_stage_out = can_stage_in
        def stage_in(self, dm, executor, file, parent_fut):
            file.local_path = file.path + ".copy"
            app = python_app(executors=[executor], data_flow_kernel=dm.dfk)(copy_in)
            return app(outputs=[file], _parsl_staging_inhibit=True, parent_fut=parent_fut)._outputs[0]
        def stage_out(self, dm, executor, file, app_fu):
            file.local_path = file.path + ".made"
            app = python_app(executors=[executor], data_flow_kernel=dm.dfk)(copy_out)
            return app(app_fu, inputs=[file], _parsl_staging_inhibit=True)

    def copy_in(parent_fut=None, outputs=[], _parsl_staging_inhibit=True):
        import shutil
        shutil.copy(outputs[0].path, outputs[0].local_path)

    def copy_out(app_fu, inputs=[], _parsl_staging_inhibit=True):
        import shutil
        shutil.copy(inputs[0].local_path, inputs[0].path)

    class Wrapping(Staging):
        def can_stage_in(self, file):
            return file.scheme == "wrap"
        def stage_in(self, dm, executor, file, parent_fut):
            file.local_path = "wrapped." + file.path
        def replace_task(self, dm, executor, file, func):
            def wrapped(*args, **kwargs):
                with open(file.local_path, "w") as stream:
                    stream.write(f"made for {file.path}")
                return func(*args, **kwargs)
            return wrapped

    class Broken(Staging):
        def can_stage_in(self, file):
            return True
        def stage_in(self, dm, executor, file, parent_fut):
            raise LookupError("not today")

    with load(Config(executors=[executor(storage_access=[Copying(), Wrapping(), Broken()])])):
        out = File(f"copy:{os.getcwd()}/x")
        made = write("text", outputs=[out])
        assert read(made.outputs[0], inputs=[File("wrap:y")]).result() == ["text", "made for y"]
        assert sorted(n for n in os.listdir() if n[0] in "xyw") == ["wrapped.y", "x", "x.copy", "x.made"]
        try:
            read(File("any:thing"))
        except LookupError as error:
            assert str(error) == "not today"
        else:
            raise AssertionError("the provider's error is not the call's")
    print("fine")
    """
    assert jobs.run(script, executor, ranks=2).well() == "fine\n"


def test_a_directory_for_each_task(jobs: Jobs) -> None:
    """Tasks that write the same name do not meet; a function of the record may say where."""
    script = """
    import os, pathlib, mpiflow
    from mpiflow import Config, MPIExecutor, bash_app, load, python_app

    @python_app
    def write(n):
        pathlib.Path("out.txt").write_text(str(n))
        return os.getcwd()

    @bash_app
    def command(n):
        return f"echo {n} > out.txt"

    def directory(record):
        return f"named/{record['func_name']}-{record['args'][0]}"

    with load(Config(executors=[MPIExecutor()], task_dir="task")) as dfk:
        paths = [future.result() for future in [write(n) for n in range(6)]]
        assert paths == [f"{dfk.run_dir}/tasks/0000/{n}" for n in range(6)], paths
        assert command(6).result() == 0
        for n in range(7):
            assert pathlib.Path(dfk.run_dir, "tasks", "0000", str(n), "out.txt").read_text().strip() == str(n)
    with load(Config(executors=[MPIExecutor()], task_dir=directory)):
        assert write(3).result() == os.path.abspath("named/write-3")
    with load(Config(executors=[MPIExecutor()])):
        assert write(1).result() == os.getcwd(), "a runner is back where it came from"
    print("fine")
    """
    assert jobs.run(script, ranks=3).well() == "fine\n"
