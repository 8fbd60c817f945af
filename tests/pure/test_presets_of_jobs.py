"""Presets where a user meets them: `mpiflow submit`, and a JobSpec."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpiflow.cli.submit import submit
from mpiflow.errors import ConfigurationError
from mpiflow.jobs.clouds import CLOUDS
from mpiflow.jobs.spec import JobSpec
from mpiflow.jobs.submit import dry_run
from mpiflow.jobs.systems import SYSTEMS

FRONTIER = ["--machine", "frontier", "--account", "x", "--time", "1:00:00"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory with a script, and no presets of one's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.py").write_text("")
    return tmp_path


def test_a_cloud_is_called_like_no_batch_system() -> None:
    assert not set(CLOUDS) & set(SYSTEMS)


def test_a_preset_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # no batch system is found, and none needs to be
    spec = JobSpec(script="a.py", machine="frontier", account="x", time=3600, ranks_per_node=8, directives=("--x",))
    for text in (spec.render(), dry_run(spec)):
        lines = text.splitlines()
        assert "#SBATCH --partition=batch" in lines
        assert "#SBATCH --cpus-per-task=7" in lines
        assert lines.count("#SBATCH --x") == 1


def test_a_preset_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert submit([*FRONTIER, "--ranks-per-node", "8", "--directive=--x", "--dry-run", "a.py"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "#SBATCH --cpus-per-task=7" in lines
    assert lines.count("#SBATCH --x") == 1


def test_more_ranks_than_the_node_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert submit([*FRONTIER, "--ranks-per-node", "57", "--dry-run", "a.py"]) == 2
    assert "ranks_per_node is 57 on Frontier, whose nodes have 56 cores for a job" in capsys.readouterr().err


def test_an_unknown_machine() -> None:
    with pytest.raises(ConfigurationError, match="did you mean frontier"):
        JobSpec(script="a.py", machine="frontire").render()


def test_submit_prints_the_document_of_a_cloud(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    words = ["--system", "kubernetes", "--container", "image:1", "--time", "90m", "--dry-run", "a.py", "--dry-run"]
    assert submit(words) == 0
    assert '"activeDeadlineSeconds": 59400' in capsys.readouterr().out
    assert sorted(path.name for path in here.iterdir()) == ["a.py"]


def test_submit_says_who_submits_to_a_cloud(capsys: pytest.CaptureFixture[str]) -> None:
    assert submit(["--system", "kubernetes", "--container", "image:1", "a.py"]) == 2
    assert "kubectl create -f job.json" in capsys.readouterr().err


def test_a_cloud_and_a_launcher_of_a_batch_system(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--system", "kubernetes", "--container", "image:1", "--launcher", "srun", "--dry-run", "a.py"]
    assert submit(words) == 2
    assert "sensible there are hydra and openmpi" in capsys.readouterr().err
