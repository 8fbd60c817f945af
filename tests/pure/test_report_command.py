"""``mpiflow report``: what is printed of a monitoring database, and what is said where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import LONG, Hand, call

from mpiflow.cli.main import main
from mpiflow.kernel.dataflow import DataFlowKernel
from mpiflow.monitor.hub import MonitoringHub


@pytest.fixture
def database(make: Callable[..., DataFlowKernel], tmp_path: Path) -> Path:
    """Of two runs: the first of one task, the latest of three that end well, one that fails and one that follows it."""

    def double(x: int) -> int:
        return 2 * x

    def fails(x: int) -> None:
        raise ValueError("no\nmore")

    path = tmp_path / "runinfo" / "monitoring.db"
    for number, name in enumerate(("first", "latest")):
        hub = MonitoringHub(workflow_name=name, logging_endpoint=f"sqlite:///{path}")
        run = make(Hand(by_itself=True), monitoring=hub, run_dir=tmp_path / "runs")
        futures = [call(run, double, n) for n in range(1 + 2 * number)]
        if number:
            futures.append(call(run, fails, 1))
            futures.append(call(run, double, futures[-1]))
        for future in futures:
            future.exception(LONG)
        run.cleanup()
    return path


def lines(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines()]


def test_the_latest_run_is_told_of(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(database)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    said = lines(out)
    assert said[0][:2] == ["latest,", "run"]
    assert out.splitlines()[1].endswith(f"s; runs in {database}: 2")
    assert ["exec_done", "3"] in said
    assert ["failed", "1"] in said
    assert ["dep_fail", "1"] in said
    assert ["double", "4", "1", "-", "-", "-"] in said  # nobody measured
    assert ["fails", "1", "1", "-", "-", "-"] in said
    assert ["3", "fails", "0", "-", "ValueError('no\\nmore')"] in said
    assert "node " not in out.replace("node  the first failures", "")  # this executor has none


def test_another_run_is_named_by_how_its_id_begins(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(database), "--run", "none"]) == 1
    err = capsys.readouterr().err
    first = err.rsplit(", ", 1)[1].strip()
    assert err.startswith(f"mpiflow report: {database}: no run 'none'; there are: ")
    assert main(["report", str(database.parent), "--run", first[:8]]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"first, run {first} in ")
    assert ["exec_done", "1"] in lines(out)


def test_what_cannot_be_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 1
    said = f"mpiflow report: {tmp_path}/monitoring.db: there is no such file; Config(monitoring=...) makes one\n"
    assert capsys.readouterr().err == said
    (tmp_path / "other").write_text("text, and long enough to be a database: " * 100)
    assert main(["report", str(tmp_path / "other")]) == 1
    assert "other: cannot be read as a monitoring database: file is not a database" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["report", "--runs"])
    assert ended.value.code == 2
    assert "mpiflow report: unrecognized arguments: --runs" in capsys.readouterr().err
