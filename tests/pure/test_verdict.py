"""The file in which rank 0 says how the job goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpiflow.cli.verdict import Verdict, read


def said(path: str) -> tuple[bool, list[str], int | None]:
    found = read(path)
    return found.began, found.lost, found.ended


def test_what_is_said_can_be_read(tmp_path: Path) -> None:
    path = str(tmp_path / "verdict")
    telling = Verdict(path)
    telling.began()
    assert said(path) == (True, [], None)
    telling.lost("n3")
    telling.lost("n1.site.edu")
    assert said(path) == (True, ["n3", "n1.site.edu"], None)
    telling.ended(86)
    assert said(path) == (True, ["n3", "n1.site.edu"], 86)


def test_a_host_that_loses_several_ranks_is_named_once(tmp_path: Path) -> None:
    path = str(tmp_path / "verdict")
    for _ in range(3):
        Verdict(path).lost("n3")
    assert said(path) == (True, ["n3"], None)


def test_a_drain_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "verdict")
    assert not read(path).draining
    Verdict(path).draining()
    assert read(path).draining
    assert said(path) == (True, [], None)


def test_the_first_end_counts(tmp_path: Path) -> None:
    """A guardian that sees rank 0 hang in MPI_Finalize does not take back what the script ended with."""
    path = str(tmp_path / "verdict")
    Verdict(path).ended(0)
    Verdict(path).ended(86)
    assert said(path) == (True, [], 0)


def test_nobody_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Verdict("").lost("n3")
    Verdict("").ended(0)
    assert list(tmp_path.iterdir()) == []
    assert said("") == (False, [], None)


def test_no_file_says_nothing(tmp_path: Path) -> None:
    assert said(str(tmp_path / "none")) == (False, [], None)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("", (False, [], None)),
        ("bega", (False, [], None)),
        ("began\nended 8", (True, [], None)),  # torn: 85 is on its way
        ("lost n1\nended 0\nlost n", (True, ["n1"], 0)),
        ("ended x\nended -1\nended\n", (True, [], None)),
        ("something else\n\nlost \nended 3\n", (True, [], 3)),
    ],
)
def test_torn_and_unknown_lines_say_nothing(
    tmp_path: Path, text: str, meaning: tuple[bool, list[str], int | None]
) -> None:
    path = tmp_path / "verdict"
    path.write_text(text)
    assert said(str(path)) == meaning


def test_a_file_that_cannot_be_written_is_told_and_costs_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "no" / "verdict")
    Verdict(path).ended(0)
    err = capfd.readouterr().err
    assert err == f"mpiflow: cannot tell who started the launcher 'ended 0': {path}: No such file or directory\n"
