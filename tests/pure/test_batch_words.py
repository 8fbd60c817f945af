"""The command line of `mpiflow batch`, and the files it names."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from mpiflow.cli import arguments
from mpiflow.cli.batch.template import BatchError
from mpiflow.cli.batch.words import commands_of, lines_of, parse


def commands(*words: str, stdin: bytes = b"") -> list[bytes]:
    """The commands, with nothing to complain of."""
    said: list[str] = []
    found = commands_of(words, io.BytesIO(stdin), said.append)
    assert said == []
    return found


def test_a_file_has_a_command_a_line(tmp_path: Path) -> None:
    (tmp_path / "tasks").write_bytes(b"echo a\n\necho 'b\tc' # {}\n  x\nlast \xff")
    expected = [b"echo a", b"", b"echo 'b\tc' # {}", b"  x", b"last \xff"]
    assert commands(str(tmp_path / "tasks")) == expected


@pytest.mark.parametrize("words", [(), ("-",)])
def test_standard_input_has_commands(words: tuple[str, ...]) -> None:
    assert commands(*words, stdin=b"echo a\necho b\n") == [b"echo a", b"echo b"]


@pytest.mark.parametrize("words", [("gzip", "{}"), ("gzip {}",), ("gzip {}", "::::", "-"), ("gzip", "::::", "-")])
def test_standard_input_fills_a_template(words: tuple[str, ...]) -> None:
    assert commands(*words, stdin=b"a\nb c\n") == [b"gzip a", b"gzip 'b c'"]


def test_inputs_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("1\n2\n")
    assert commands("echo", "{2}{1}", ":::", "a", "::::", str(tmp_path / "list")) == [b"echo 1a", b"echo 2a"]
    assert commands(":::", "echo a", "echo b") == [b"echo a", b"echo b"]


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
def test_a_file_of_windows_is_read_and_said(tmp_path: Path, line_end: bytes) -> None:
    path = tmp_path / "tasks"
    path.write_bytes(b"\xef\xbb\xbfecho a" + line_end + b"echo b\r\n")
    said: list[str] = []
    assert lines_of(str(path), io.BytesIO(), said.append) == [b"echo a", b"echo b"]
    assert said == [f"{path}: lines end in CR LF, as Windows writes them; the CR is left out"]


@pytest.mark.parametrize("text", [b"echo a\necho\0b\n", "echo a\necho b\n".encode("utf-16")])
def test_a_nul_is_refused_with_its_line(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "tasks"
    path.write_bytes(text)
    with pytest.raises(BatchError, match=rf"tasks, line {2 if text[:1] == b'e' else 1}: there is a NUL byte in it"):
        commands(str(path))


def test_a_newline_in_an_input_is_refused() -> None:
    with pytest.raises(BatchError, match="command 2 has a newline in it"):
        commands("echo", ":::", "a", "b\nc")


def test_an_empty_file_has_nothing_to_run(tmp_path: Path) -> None:
    (tmp_path / "tasks").touch()
    said: list[str] = []
    assert commands_of([str(tmp_path / "tasks")], io.BytesIO(), said.append) == []
    assert said == ["there are no commands: nothing to run"]


@pytest.mark.parametrize(("name", "words"), [("none", "there is no such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, name: str, words: str) -> None:
    for line in ([str(tmp_path / name)], ["echo", "::::", str(tmp_path / name)]):
        with pytest.raises(BatchError, match=words):
            commands(*line)


# --- options ------------------------------------------------------------------------------------------------


def test_options_of_the_farm_may_stand_on_both_sides() -> None:
    for line in (["-n", "4", "batch", "--retries", "3", "t"], ["batch", "-n", "4", "--retries=3", "t"]):
        parsed = arguments.parse(line)
        assert (parsed.command, parsed.size) == ("batch", 4)
        assert Path(parsed.script or "").name == "batch.py"
        batch = parse(parsed.rest)
        assert (batch.retries, batch.words) == (3, ["t"])


@pytest.mark.parametrize("behind", [["--retries", "2"], ["--joblog=log", "--resume"]])
def test_a_file_with_nothing_but_options_behind_it(behind: list[str]) -> None:
    parsed = parse(["tasks.txt", *behind])
    assert parsed.words == ["tasks.txt"]
    assert (parsed.retries, parsed.resume) == ((2, False) if len(behind[0]) == 9 else (1, True))
    assert parse(["gzip", "-9", "--retries", "2"]).words == ["gzip", "-9", "--retries", "2"], "a template's own"


def test_options_of_the_template_are_its_own() -> None:
    parsed = arguments.parse(["batch", "--joblog", "log", "gzip", "-9", "--retries", "{}", ":::", "-n"])
    batch = parse(parsed.rest)
    assert (batch.joblog, batch.retries) == ("log", 1)
    assert batch.words == ["gzip", "-9", "--retries", "{}", ":::", "-n"]
    assert parse(["--", "-x", "a"]).words == ["-x", "a"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--resume", "t"], "--resume needs --joblog FILE"),
        (["--resume-failed", "t"], "--resume needs --joblog FILE"),
        (["--retries", "many", "t"], "is 'many'; legal is a whole number from 0 up"),
        (["--retries", "-1", "t"], "legal is a whole number|expected one argument"),
        (["--joblog"], "expected one argument"),
        (["--colour", "t"], "unrecognized arguments: --colour"),
        (["-n", "0", "t"], "legal is a whole number from 1 up"),
    ],
)
def test_a_wrong_command_line_ends_with_255(capsys: pytest.CaptureFixture[str], line: list[str], words: str) -> None:
    """Any smaller code would be a number of failed jobs."""
    with pytest.raises(SystemExit) as leaving:
        arguments.parse(["batch", *line])
    assert leaving.value.code == 255
    assert re.search(words, capsys.readouterr().err)


def test_help_says_what_the_templates_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        arguments.parse(["batch", "--help"])
    assert leaving.value.code == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("--retries", "--joblog", "--resume-failed", "{//}", "::::"))
