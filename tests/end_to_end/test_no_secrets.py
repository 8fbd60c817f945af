"""Nothing that a run writes of itself holds what looks like a secret: the run directory's files, and the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Form, Jobs, Mpiexec

pytestmark = [pytest.mark.timeout(120)]

PLANTED = "hunter2"
SCRIPT = """
    import logging, os
    import mpiflow
    from mpiflow import AUTO_LOGNAME

    class Store:
        def __repr__(self):
            return "Store(password='hunter2', url='https://me:hunter2@host/x')"

    def autopath(record, stream):
        return "out.txt"

    autopath.__qualname__ = "autopath(token=hunter2)"
    mpiflow.load(mpiflow.Config(executors=[mpiflow.MPIExecutor(storage_access=[Store()])], std_autopath=autopath))

    @mpiflow.python_app
    def fails(store, token):
        raise ValueError(f"no access: {store!r}, TOKEN={token}")

    @mpiflow.bash_app
    def command(stdout=AUTO_LOGNAME):
        return "true"

    future = fails({"api_key": "hunter2"}, token="hunter2")
    assert future.exception() is not None
    assert command().result() == 0
    future = command()
    future.add_done_callback(lambda _: 1 / 0 if {"secret": "hunter2"} else None)
    future.result()
    print("done")
    """


@pytest.mark.parametrize("form", ["mpiexec", "lone"])
def test_a_run_writes_no_secret(jobs: Jobs, launcher: Mpiexec, form: Form) -> None:
    """From the command line, the environment, the Config, arguments and errors."""
    jobs.write("script.py", SCRIPT)
    ended = jobs.start(
        "script.py",
        *("--password", PLANTED, f"--api-key={PLANTED}", f"ACCESS_TOKEN={PLANTED}"),
        form=form,
        options=["--run-dir", "run", "--stall-warning", "0.5"],
        env={"AWS_SECRET_ACCESS_KEY": PLANTED},
    ).wait()
    assert (ended.code, ended.out) == (0, "done\n"), str(ended)
    assert PLANTED not in ended.err
    files = [path for path in (jobs.directory / "run").rglob("*") if path.is_file()]
    assert [path.name for path in files if path.name == "mpiflow.log"]
    assert [path for path in files if PLANTED.encode() in path.read_bytes()] == []
    log = (jobs.directory / "run" / "mpiflow.log").read_text()
    assert "script.py --password *** --api-key=*** ACCESS_TOKEN=***\n" in log
    assert "task 0 (fails) failed: ValueError(" in log


def test_the_log_says_what_support_staff_ask_for(jobs: Jobs, launcher: Mpiexec) -> None:
    """Versions, host, command, MPI, launcher, ranks, and what happens when a rank dies."""
    jobs.run("import mpiflow\nmpiflow.load()\n", options=["--run-dir", "run"]).well()
    head = (jobs.directory / "run" / "mpiflow.log").read_text().splitlines()[:4]
    library = {"hydra": "MPICH", "openmpi": "Open MPI"}[launcher.flavour]
    assert "INFO: mpiflow " in head[0]
    assert " on " in head[0]
    assert "command: " in head[1]
    assert f"INFO: {library}" in head[2]
    assert "3 ranks; when a rank dies, the job goes on without it" in head[2]
