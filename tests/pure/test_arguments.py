"""The command line: options, the script, and what is the script's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mpiflow
from mpiflow.cli.arguments import Arguments, parse, script_arguments


def said(line: str) -> Arguments:
    return parse(line.split())


def test_without_options_a_script_runs_by_default_settings() -> None:
    parsed = said("script.py")
    assert (parsed.command, parsed.script, parsed.rest) == ("run", "script.py", [])
    assert (parsed.size, parsed.runners_per_rank, parsed.seed, parsed.run_dir) == (None,) * 4
    assert (parsed.isolation, parsed.progress, parsed.quick) == ("runner", True, False)


def test_every_option_is_taken() -> None:
    parsed = said(
        "-n 8 --runners-per-rank 4 --isolation task --seed 0 --run-dir here --no-progress --quick script.py"
    )
    assert (parsed.size, parsed.runners_per_rank, parsed.isolation, parsed.seed) == (8, 4, "task", 0)
    assert (parsed.run_dir, parsed.progress, parsed.quick, parsed.script) == (
        "here",
        False,
        True,
        "script.py",
    )


def test_options_about_what_the_script_finds() -> None:
    parsed = said("script.py")
    assert (parsed.config_file, parsed.as_parsl, parsed.trust) == (None, False, False)
    assert (parsed.fresh, parsed.checkpoint_all) == (False, False)
    parsed = said("--config here.toml --as-parsl --trust --fresh --checkpoint-all script.py --config its.own")
    assert (parsed.config_file, parsed.as_parsl, parsed.trust) == ("here.toml", True, True)
    assert (parsed.fresh, parsed.checkpoint_all, parsed.rest) == (True, True, ["--config", "its.own"])


@pytest.mark.parametrize("line", ["-n 8 s.py", "-n8 s.py", "--seed=3 -n 8 s.py", "--run-dir=x -n 8 s.py"])
def test_options_are_written_as_everywhere(line: str) -> None:
    parsed = said(line)
    assert (parsed.size, parsed.script) == (8, "s.py")


@pytest.mark.parametrize(
    ("line", "script", "rest"),
    [
        ("s.py -n 3 --seed 1", "s.py", "-n 3 --seed 1"),
        ("-n 2 s.py --help", "s.py", "--help"),
        ("s.py a b", "s.py", "a b"),
        ("s.py -- x", "s.py", "-- x"),
        ("s.py doctor", "s.py", "doctor"),
        ("s.py run", "s.py", "run"),
        ("run s.py a", "s.py", "a"),
        ("run -n 2 s.py -n 3", "s.py", "-n 3"),
        ("-n 2 run s.py", "s.py", ""),
        ("run run a", "run", "a"),
        ("run doctor", "doctor", ""),
        ("--seed 5 run --no-progress doctor x", "doctor", "x"),
    ],
)
def test_what_follows_the_script_is_its_own(line: str, script: str, rest: str) -> None:
    parsed = said(line)
    assert (parsed.command, parsed.script, parsed.rest) == ("run", script, rest.split())


@given(st.lists(st.text(min_size=1)))
def test_anything_may_follow_the_script(rest: list[str]) -> None:
    assert parse(["s.py", *rest]).rest == rest


@pytest.mark.parametrize(
    ("line", "size", "quick"),
    [
        ("doctor", None, False),
        ("doctor --quick", None, True),
        ("-n 3 doctor", 3, False),
        ("doctor -n 3", 3, False),
    ],
)
def test_the_doctor_takes_options_on_both_sides(line: str, size: int | None, quick: bool) -> None:
    parsed = said(line)
    assert (parsed.command, parsed.size, parsed.quick, parsed.script) == ("doctor", size, quick, None)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-n 0 s.py", "argument -n: is '0'; legal is a whole number from 1 up"),
        ("-n x s.py", "argument -n: is 'x'; legal is a whole number from 1 up"),
        ("-n -1 s.py", "argument -n"),
        ("-n", "argument -n: expected one argument"),
        ("--runners-per-rank 1.5 s.py", "--runners-per-rank: is '1.5'; legal is a whole number from 1 up"),
        ("--seed -3 s.py", "--seed"),
        ("--seed s.py", "--seed: is 's.py'; legal is a whole number from 0 up"),
        ("--isolation thread s.py", "invalid choice: 'thread'"),
        ("--init-timeout 0 s.py", "--init-timeout: is '0'; legal is a whole number from 1 up"),
        ("--unknown s.py", "--unknown"),
        ("--no-prog s.py", "--no-prog"),
        ("--config", "argument --config: expected one argument"),
        ("--as-parsl=yes s.py", "argument --as-parsl: ignored explicit argument 'yes'"),
    ],
)
def test_a_bad_option_ends_with_code_2_a_word_on_it_and_the_usage(
    line: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        said(line)
    assert leaving.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mpiflow: ")
    assert words in err.splitlines()[0]
    assert "usage: mpiflow" in err


@pytest.mark.parametrize(
    ("line", "words"),
    [("--version", f"mpiflow {mpiflow.__version__}"), ("--help", "doctor"), ("-h", "mpiexec -n 64")],
)
def test_version_and_help_are_printed_and_end_well(
    line: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        said(line)
    assert leaving.value.code == 0
    assert words in capsys.readouterr().out


def test_a_script_must_be_there(tmp_path: Path) -> None:
    assert "which script?" in script_arguments(said(""))
    assert "usage:" in script_arguments(said("-n 3"))
    assert script_arguments(said(f"{tmp_path}")) == f"{tmp_path} is a directory; a Python script is wanted"
    missing = tmp_path / "no.py"
    assert script_arguments(said(f"{missing}")).startswith(f"{missing}: there is no such file (looked in /")
    missing.touch()
    assert script_arguments(said(f"{missing}")) == ""


def test_a_config_file_must_be_there(tmp_path: Path) -> None:
    script, config = tmp_path / "s.py", tmp_path / "c.toml"
    script.touch()
    words = script_arguments(said(f"--config {config} {script}"))
    assert words.startswith(f"--config {config}: there is no such file (looked in /")
    assert "there is no such file" in script_arguments(said(f"--config {tmp_path} {script}"))
    config.touch()
    assert script_arguments(said(f"--config {config} {script}")) == ""
