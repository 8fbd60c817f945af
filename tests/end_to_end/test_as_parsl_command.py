"""Programs written for Parsl, unmodified; and a Config from a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Ended, Form, Jobs

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("launcher")]

PROGRAM = """
    import os
    import parsl
    from parsl.addresses import address_by_hostname
    from parsl.app.app import bash_app, join_app, python_app
    from parsl.app.errors import BashExitFailure
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.executors.threads import ThreadPoolExecutor
    from parsl.launchers import SrunLauncher
    from parsl.providers import SlurmProvider

    @python_app(executors=["htex"])
    def add(a, b):
        import parsl.app.errors
        return a + b, parsl.app.errors.AppTimeout.__module__, os.getpid()

    @python_app(executors=["htex"])
    def of_a_global():
        return parsl.File("/x").filename

    @bash_app
    def ends_with(code):
        return f"exit {code}"

    @join_app
    def both(x):
        return [add(x, 1), add(x, 2)]

    config = Config(
        executors=[
            HighThroughputExecutor(
                label="htex",
                address=address_by_hostname(),
                max_workers_per_node=2,
                provider=SlurmProvider("debug", launcher=SrunLauncher()),
            ),
            ThreadPoolExecutor(label="threads"),
        ],
    )
    if __name__ == "__main__":
        with parsl.load(config):
            value, home, pid = add(1, 2).result()
            assert (value, home) == (3, "mpiflow.errors") and pid != os.getpid()
            assert [value for value, _, _ in both(4).result()] == [5, 6]
            assert of_a_global().result() == "x"
            try:
                ends_with(3).result()
            except BashExitFailure as error:
                print(error)
"""


@pytest.mark.parametrize("form", ["mpiexec", "own", "lone"])
def test_a_parsl_program_runs_as_it_is(jobs: Jobs, form: Form) -> None:
    ended: Ended = jobs.run(PROGRAM, form=form, options=["--as-parsl"])
    assert (ended.code, ended.out) == (0, "bash_app ends_with failed with unix exit code 3\n"), str(ended)
    line = "mpiflow: HighThroughputExecutor: ignored, for it means nothing in one MPI job: address, provider"
    assert ended.err == f"{line} (SlurmProvider)\n"


@pytest.mark.parametrize(("form", "most", "slots"), [("mpiexec", 5, 4), ("mpiexec", 1, 2), ("lone", 3, 3)])
def test_the_workers_of_a_node_are_shared_out_among_its_ranks(jobs: Jobs, form: Form, most: int, slots: int) -> None:
    script = f"""
        import mpiflow
        config = mpiflow.Config(executors=[mpiflow.HighThroughputExecutor()])
        config.executors[0].max_workers_per_node = {most}
        with mpiflow.load(config) as dfk:
            print(mpiflow.python_app(abs)(-1).result(), dfk.executors["HighThroughputExecutor"].slots)
    """
    assert jobs.run(script, form=form, ranks=3).well() == f"1 {slots}\n"


def test_what_is_left_out_ends_the_program_with_the_reason(jobs: Jobs) -> None:
    ended = jobs.run("\nfrom parsl.executors import WorkQueueExecutor\n", options=["--as-parsl"])
    assert "left out of mpiflow: it drives another task system" in ended.failed(1)


def test_without_the_option_nothing_is_changed(jobs: Jobs) -> None:
    jobs.write("parsl.py", "here = 'the real one'")
    script = """
        import mpiflow, parsl

        @mpiflow.python_app
        def which():
            import parsl
            return parsl.here

        print(parsl.here, which().result())
    """
    assert jobs.run(script).well() == "the real one the real one\n"


@pytest.mark.parametrize("loads", ["", "mpiflow.load()", "mpiflow.load(mpiflow.Config(retries=1))"])
def test_a_config_file_is_the_config_of_a_script_that_makes_none(jobs: Jobs, loads: str) -> None:
    jobs.write("costs.py", "def of(error, record):\n    return 0.5\n")
    config = jobs.write("mpiflow.toml", 'retries = 2\nretry_handler = "costs:of"\n[executors.mpi]\nlabel = "farm"\n')
    script = f"""
        import mpiflow

        @mpiflow.python_app
        def one():
            return 1

        {loads}
        one().result()
        config = mpiflow.dfk().config
        print(config.retries, config.places()[0].label, getattr(config.retry_handler, "__module__", None))
    """
    expected = "1 mpi None\n" if "Config" in loads else "2 farm costs\n"
    assert jobs.run(script, options=["--config", str(config)]).well() == expected


def test_a_bad_config_file_is_named_with_line_and_key(jobs: Jobs) -> None:
    config = jobs.write("mpiflow.toml", "\nretires = 2\n")
    ended = jobs.run("\nimport mpiflow\nmpiflow.load()\n", options=["--config", str(config)])
    assert f"{config}, line 2: retires: there is no such key; legal are app_cache" in ended.failed(1)
    ended = jobs.run("\nprint('not run')\n", options=["--config", "nothing.toml"])
    assert ended.failed(2).startswith("mpiflow: --config nothing.toml: there is no such file (looked in ")
    assert ended.out == ""
