"""Presets of machines: those in the package, a user's own, what they fill in, and what they refuse."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from datetime import date
from pathlib import Path

import pytest

from mpiflow.cli.machines import machines as command
from mpiflow.errors import ConfigurationError
from mpiflow.jobs import presets
from mpiflow.jobs.machine_page import page
from mpiflow.jobs.presets import TOPICS, Machine, files, fill, find, read
from mpiflow.jobs.spec import JobSpec

PACKAGED = Path(presets.__file__).parent / "machines"
PAGES = Path(__file__).parents[2] / "docs" / "machines"
NAMES = sorted(path.stem for path in PACKAGED.glob("*.toml"))
#: Presets that fill in a job which says nothing but where, how long and for whom.
SUBMITTING = [name for name in NAMES if name != "fugaku"]


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a user's own presets, which is empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    directory = tmp_path / "config" / "mpiflow" / "machines"
    directory.mkdir(parents=True)
    return directory


TOLD: dict[str, object] = {"account": "m1", "filesystems": "home", "qos": "q", "time": 7200}


def job(machine: str, **fields: object) -> JobSpec:
    """A job that says what the site wants to be told."""
    requires = find(machine).requires if machine in NAMES else ()
    told = {name: TOLD[name] for name in requires}
    return JobSpec(**{"script": "a.py", "machine": machine, **told, **fields})  # type: ignore[arg-type]


def values(machine: Machine) -> set[str]:
    """The names of all values of a preset."""
    node = {"cores": machine.cores, "threads_per_core": machine.threads_per_core > 1,
            "counts_threads": machine.counts_threads}  # fmt: skip
    gpus = {"per_node": machine.gpus, "ranks_per_node": machine.gpu_ranks, "launcher_options": machine.gpu_options}
    return {
        *(f"job.{name}" for name in machine.job),
        *(f"node.{name}" for name, value in node.items() if value),
        *(f"gpus.{name}" for name, value in gpus.items() if value),
    }


# --- those in the package ---------------------------------------------------------------------------------


def test_the_machines_that_the_package_knows() -> None:
    assert {
        "frontier", "aurora", "polaris", "elcapitan", "tuolumne", "perlmutter", "perlmutter-gpu", "lumi", "lumi-g",
        "marenostrum5", "marenostrum5-acc", "fugaku", "slurm", "pbs",
    } == set(NAMES)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_each_value_of_a_preset_has_a_fact_that_says_where_it_is_from(name: str) -> None:
    machine = find(name)
    named = {value for fact in machine.facts for value in fact.about}
    assert named == values(machine)
    for fact in machine.facts:
        assert fact.text
        assert fact.source
        date.fromisoformat(fact.date)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_tells_what_a_first_job_needs_to_know(name: str) -> None:
    topics = {fact.topic for fact in find(name).facts}
    assert {"launcher", "inside", "environment", "continuation", "mpi4py"} <= topics
    if name not in ("slurm", "pbs"):
        assert {"cores", "filesystems", "container", "tmpdir"} <= topics
    assert topics <= set(TOPICS)


def test_only_what_was_tried_is_marked_as_checked() -> None:
    checked = {(name, fact.topic) for name in NAMES for fact in find(name).facts if fact.checked}
    assert {name for name, _ in checked} == {"slurm", "pbs"}
    for name, topic in checked:
        sources = [fact.source for fact in find(name).facts if fact.topic == topic]
        assert all("tried with" in source for source in sources)


@pytest.mark.parametrize("name", SUBMITTING)
def test_a_job_on_each_machine_can_be_made(name: str) -> None:
    machine = find(name)
    ranks = machine.gpu_ranks if machine.job.get("gpus_per_node") else 1
    spec = fill(job(name, ranks_per_node=ranks))
    assert spec.system == machine.job["system"]
    assert spec.completed().launcher
    assert spec.ranks_per_node * spec.cores_per_rank <= machine.cores * machine.threads_per_core


@pytest.mark.parametrize("name", SUBMITTING)
def test_a_script_for_each_machine_can_be_rendered(name: str) -> None:
    machine = find(name)
    ranks = machine.gpu_ranks or 1
    text = fill(job(name, ranks_per_node=ranks, gpus_per_node=machine.gpus)).render()
    for word in machine.gpu_options:
        assert shlex.quote(word) in text


@pytest.mark.parametrize(
    ("name", "variable", "devices"),
    [
        ("perlmutter-gpu", "SLURM_LOCALID", {"CUDA_VISIBLE_DEVICES": ["3", "2", "1", "0"]}),
        ("polaris", "PMI_LOCAL_RANK", {"CUDA_VISIBLE_DEVICES": ["3", "2", "1", "0"]}),
        ("lumi-g", "SLURM_LOCALID", {"ROCR_VISIBLE_DEVICES": [*"01234567"]}),
        ("marenostrum5-acc", "SLURM_LOCALID", {"CUDA_VISIBLE_DEVICES": ["0", "1", "2", "3"]}),
    ],
)
def test_the_line_of_shell_before_a_rank(name: str, variable: str, devices: dict[str, list[str]]) -> None:
    options = find(name).gpu_options
    line = options[options.index("bash") :]
    [(device, wanted)] = devices.items()
    for rank, value in enumerate(wanted):
        command_of_rank = [*line, "sh", "-c", f'echo "${device} $1"', "sh", "two words"]
        environ = {"PATH": os.environ["PATH"], variable: str(rank)}
        said = subprocess.run(command_of_rank, env=environ, capture_output=True, text=True, check=True, timeout=30)
        assert said.stdout == f"{value} two words\n"


@pytest.mark.parametrize("name", [name for name in SUBMITTING if find(name).gpu_options])
def test_with_gpus_each_rank_gets_its_own(name: str) -> None:
    machine = find(name)
    spec = fill(job(name, ranks_per_node=machine.gpu_ranks, gpus_per_node=machine.gpus))
    assert spec.launcher_options[-len(machine.gpu_options) :] == machine.gpu_options
    without = fill(job(name)) if not machine.job.get("gpus_per_node") else None
    assert without is None or not set(without.launcher_options) & set(machine.gpu_options)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_in_docs_is_that_of_the_preset(name: str) -> None:
    file = PAGES / f"{name}.md"
    assert file.read_text() == page(find(name)), f"run `mpiflow machines {name} > docs/machines/{name}.md`"


def test_there_is_no_page_without_a_preset() -> None:
    assert sorted(path.stem for path in PAGES.glob("*.md")) == NAMES


def test_pages_are_not_cut_inside_an_option() -> None:
    for name in NAMES:
        assert not re.search(r"--[\w-]*- ", page(find(name))), name


# --- what is filled in ------------------------------------------------------------------------------------


def test_a_job_without_a_machine_is_left_as_it_is() -> None:
    spec = JobSpec(script="a.py")
    assert fill(spec) is spec


def test_cores_that_the_system_keeps_are_not_given_out() -> None:
    assert fill(job("frontier", ranks_per_node=8)).cores_per_rank == 7
    assert fill(job("frontier", ranks_per_node=56)).cores_per_rank == 1


def test_where_slurm_counts_threads_a_rank_gets_threads() -> None:
    assert fill(job("perlmutter", ranks_per_node=64)).cores_per_rank == 4


def test_what_the_user_says_wins(own: Path) -> None:
    spec = fill(job("frontier", queue="debug", cores_per_rank=2))
    assert (spec.queue, spec.cores_per_rank) == ("debug", 2)


def test_directives_modules_and_setup_files_are_added(own: Path) -> None:
    (own / "ours.toml").write_text('[job]\nsystem = "slurm"\ndirectives = ["--x"]\nmodules = ["a"]\nsetup = ["s.sh"]\n')
    spec = fill(job("ours", directives=("--y",), modules=("b",), setup=("t.sh",)))
    assert (spec.directives, spec.modules, spec.setup) == (("--x", "--y"), ("a", "b"), ("s.sh", "t.sh"))
    assert fill(spec) == spec  # once more changes nothing


def test_options_of_the_presets_launcher_are_for_that_launcher_only() -> None:
    assert fill(job("perlmutter")).launcher_options == ("--cpu-bind=cores",)
    assert fill(job("perlmutter", launcher="hydra")).launcher_options == ()


def test_another_batch_system_takes_its_own_launcher() -> None:
    spec = fill(job("frontier", system="fork", account=""))
    assert (spec.system, spec.launcher, spec.completed().launcher) == ("fork", "", "fork")
    assert (spec.queue, spec.cores_per_rank) == ("", 56)
    assert spec.render()


def test_options_of_the_users_stand_in_for_the_binding_of_gpus() -> None:
    spec = fill(job("frontier", gpus_per_node=4, ranks_per_node=4, launcher_options=("--gpu-bind=none",)))
    assert spec.launcher_options == ("--gpu-bind=none",)


# --- bad input --------------------------------------------------------------------------------------------


def refusal(spec: JobSpec) -> str:
    with pytest.raises(ConfigurationError) as caught:
        fill(spec)
    return str(caught.value)


def test_more_ranks_than_the_node_has_cores() -> None:
    assert refusal(job("frontier", ranks_per_node=57)) == (
        "ranks_per_node is 57 on Frontier, whose nodes have 56 cores for a job; legal is a whole number from 1 to 56"
    )


def test_more_cores_than_the_node_has() -> None:
    words = refusal(job("frontier", ranks_per_node=8, cores_per_rank=15))
    assert "8 ranks of 15 cores each do not fit" in words
    assert words.endswith("legal for cores_per_rank is at most 14")


def test_more_gpus_than_the_node_has() -> None:
    assert refusal(job("polaris", gpus_per_node=5)).endswith("gpus_per_node is 5 on Polaris; legal is at most 4")
    assert refusal(job("lumi", gpus_per_node=1)).endswith("legal is 0")


def test_ranks_to_which_the_gpus_cannot_be_dealt_out() -> None:
    words = refusal(job("frontier", gpus_per_node=8, ranks_per_node=7))
    assert "gives GPUs to 8 ranks of a node" in words
    assert "--launcher-option" in words


def test_what_the_site_wants_to_be_told() -> None:
    words = refusal(job("aurora", account="", filesystems="", time=None))
    assert words == (
        "Aurora takes no job without account and filesystems and time: say --account, --filesystems, --time"
    )


def test_a_machine_without_a_template() -> None:
    assert refusal(job("fugaku")).startswith("Fugaku: its batch system is PJM")


@pytest.mark.parametrize(("name", "meant"), [("frontire", "frontier"), ("Perlmuter", "perlmutter"), ("LUMI", "lumi")])
def test_an_unknown_machine_names_close_ones(name: str, meant: str) -> None:
    words = refusal(job(name))
    assert f"machine is {name!r}, which is not known; did you mean" in words
    assert meant in words


def test_a_machine_like_no_other_names_all(own: Path) -> None:
    words = refusal(job("zzz"))
    assert "known are aurora, elcapitan," in words
    assert str(own) in words


def test_a_preset_that_does_not_go_with_the_job_is_named(own: Path) -> None:
    (own / "ours.toml").write_text('[job]\nsystem = "slurm"\nlauncher = "jsrun"\n')
    words = refusal(job("ours"))
    assert words.startswith(f"with the preset {own / 'ours.toml'}: launcher is 'jsrun'")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[job", "is not TOML"),
        ("[jobs]\nsystem = 'slurm'\n", "jobs: there is no such key; legal are title,"),
        ("[job]\nsytem = 'slurm'\n", "job.sytem: there is no such key; legal are account,"),
        ("[job]\nscript = 'a.py'\n", "job.script: there is no such key"),
        ("[node]\ncores = '56'\n", "node.cores is '56'; legal is a whole number"),
        ("[node]\ncores = 0\n", "node.cores is 0; legal is a whole number from 1 up"),
        ("[node]\ncores = true\n", "node.cores is True; legal is a whole number"),
        ("[gpus]\nper_core = 1\n", "gpus.per_core: there is no such key"),
        ("requires = ['acount']\n", "requires: acount: there is no such key"),
        ("job = 3\n", "job is 3; legal is a table"),
        ("[[facts]]\ntopic = 'cores'\n", "fact 1: has topic, text, source, date and checked"),
        (
            "[[facts]]\ntopic = 'weather'\ntext = 'x'\nsource = 'y'\ndate = 2026-01-01\nchecked = false\n",
            "fact 1: topic is 'weather'; legal are launcher,",
        ),
    ],
)
def test_a_wrong_preset_names_file_key_and_what_is_legal(own: Path, text: str, words: str) -> None:
    file = own / "ours.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert words in str(caught.value)


def test_a_value_of_the_wrong_type(own: Path) -> None:
    (own / "ours.toml").write_text("[job]\nsystem = 'slurm'\nexclusive = 'yes'\n")
    assert "exclusive is 'yes'; legal is True or False" in refusal(job("ours"))


def test_a_preset_that_is_no_text(own: Path) -> None:
    (own / "ours.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="is not TOML"):
        find("ours")


def test_a_preset_that_cannot_be_read(own: Path) -> None:
    (own / "ours.toml").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        find("ours")


# --- a user's own, and the command ------------------------------------------------------------------------


def test_a_users_own_preset_wins_over_that_of_the_package(own: Path) -> None:
    (own / "frontier.toml").write_text('title = "Ours"\n[job]\nsystem = "slurm"\naccount = "mine"\n')
    assert files()["frontier"].parent == own
    assert fill(job("frontier", account="")).account == "mine"


def test_without_xdg_it_is_in_the_home_directory(tmp_path: Path) -> None:
    assert presets.users_directory({"HOME": "/h"}) == Path("/h/.config/mpiflow/machines")
    assert presets.users_directory({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}) == Path("/x/mpiflow/machines")


def test_the_list(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "ours.toml").write_text('title = "Our cluster"\n[job]\nsystem = "gridengine"\n')
    (own / "broken.toml").write_text("[")
    assert command([]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert {*NAMES, "ours", "broken"} == set(lines)
    assert lines["ours"].endswith("Our cluster, gridengine (your own)")
    assert "wrong: " in lines["broken"]
    assert lines["fugaku"].endswith("by hand")


def test_one_machine_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["frontier"]) == 0
    assert capsys.readouterr().out == page(find("frontier"))


def test_its_file_is_shown_to_begin_with(capsys: pytest.CaptureFixture[str], own: Path) -> None:
    assert command(["--toml", "frontier"]) == 0
    (own / "copy.toml").write_text(capsys.readouterr().out)
    assert find("copy").job == find("frontier").job


def test_a_machine_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["frontire"]) == 2
    assert "did you mean frontier?" in capsys.readouterr().err


def test_toml_of_no_machine(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command(["--toml"])
    assert caught.value.code == 2
    assert "--toml wants the NAME of a machine" in capsys.readouterr().err
