"""What looks like a secret is not logged."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

import pytest

from mpiflow.config import Config
from mpiflow.monitor.logs import FileLogging, JSONLogging, LogConfig, set_file_logger
from mpiflow.monitor.redaction import command_without_secrets, without_secrets
from mpiflow.monitor.rundir import RunDirectory

PLANTED = "hunter2"
WITH_SECRETS = [
    "API_TOKEN=hunter2",
    "export db_password=hunter2;",
    "Secret = hunter2",
    "aws.key='hunter2 and more hunter2'",
    'key="hunter2 \\" hunter2"',
    "keys=['hunter2', 'hunter2']",
    "key=('hunter2',)",
    "token=b'hunter2'",
    "{'MY_KEY': 'hunter2', 'n': 3}",
    '{"password": "hunter2"}',
    "--token hunter2",
    "--token=hunter2",
    "-password hunter2 -n 4",
    "run --api-key hunter2 x",
    "https://me:hunter2@host/path",
    "ftp://me:hunter2@host",
    "ftp://me:with@hunter2@host/a@b",
    "ftp://me:with/hunter2@host",
    "ValueError('no access with password=hunter2')",
    "TOKEN=hunter2'hunter2",
    "GITHUB_TOKEN=hunter2)hunter2",
    "secret=hunter2 key=hunter2 https://a:hunter2@b",
    "{'db_password': 'cut off hunter2",
    "keys={'a': {'b': 1}, 'c': 'hunter2'}",
    "{'tokens': [['a'], 'hunter2']}",
    "password=('a', ('b', ')'), 'hunter2')",
    "f(password=Secret(value='a hunter2'), n=1)",
    "secret=<Secret of me, hunter2>",
    "password='''two hunter2'''",
    "PASSWORD=hun,hunter2",
    'f(b"it\'s {\\"password\\": \\"two hunter2\\"}")',
]
WITHOUT = [
    "task 7 (simulate) failed: KeyError('x')",
    "KeyError: 'x'",
    "the key is under the mat",
    "https://host:8080/path",
    "https://host/path?x=1@y",
    "MPIExecutor(label='mpi', ranks=None)",
    "--monkey",
    "--keep-going 3",
    "keyboard interrupted",
    "",
]


@pytest.mark.parametrize("text", WITH_SECRETS)
def test_a_secret_is_hidden_and_what_is_round_it_is_not(text: str) -> None:
    shown = without_secrets(text)
    assert PLANTED not in shown
    assert "***" in shown
    assert without_secrets(shown).count("***") == shown.count("***"), "what is hidden stays hidden"


@pytest.mark.parametrize("text", WITHOUT)
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    assert without_secrets(text) == text


def test_what_follows_a_secret_is_still_there() -> None:
    assert without_secrets("a=1 token=x b=2, key='y z', c=3") == "a=1 token=*** b=2, key=***, c=3"
    assert without_secrets("f(key=[1, (2, ']')], n=3)") == "f(key=***, n=3)"
    assert without_secrets("f(key=Secret('a b'), n=3)") == "f(key=***, n=3)"
    assert without_secrets("{'key': 'x', 'n': {'secret': {}}, 'm': 3}") == "{'key': ***, 'n': {'secret': ***}, 'm': 3}"
    assert without_secrets("GET /?token=x&n=3") == "GET /?token=***&n=3"


@pytest.mark.parametrize("name", ["TOKEN", "My-Password", "secret_of_mine", "x.KEY"])
@pytest.mark.parametrize("value", [PLANTED, f"{PLANTED} with blanks and 'quotes {PLANTED}"])
def test_a_command_line_hides_the_whole_value_in_each_form(name: str, value: str) -> None:
    for words in ([f"{name}={value}"], [f"--{name}", value], [f"--{name}={value}"], [f"-{name}", value]):
        shown = command_without_secrets(["script.py", *words, "after"])
        assert PLANTED not in shown
        assert shown.startswith("script.py ")
        assert shown.endswith(" after")


def test_a_command_line_without_secrets_is_the_command_line() -> None:
    words = ["script.py", "--steps", "3", "-x", "a b", "--key-less", "-v"]
    assert command_without_secrets(words) == "script.py --steps 3 -x a b --key-less -v"


@pytest.mark.parametrize(
    "text",
    [
        "a.b-c" * 100_000 + " key",
        "x=(key" * 50_000,
        "https://" * 20_000 + "key",
        "key." * 90_000,
        "key=(" * 90_000,
        "key='" * 90_000,
    ],
)
def test_a_long_line_is_no_burden(text: str) -> None:
    began = time.process_time()
    without_secrets(text)
    assert time.process_time() - began < 10.0


@pytest.mark.parametrize("form", [FileLogging(), JSONLogging(), True])
def test_nothing_in_a_log_shows_a_secret(
    form: LogConfig | bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whichever way it comes: the command line, a value, a field, a traceback, another logger."""
    monkeypatch.setattr(sys, "argv", ["script.py", "--password", f"a {PLANTED}", f"API_KEY={PLANTED}"])
    run = RunDirectory(tmp_path, form)
    end = set_file_logger(str(tmp_path / "beside.log"))
    run.log("%s failed: %r", "task 7", ValueError(f"token={PLANTED}"))
    run.log(f"https://me:{PLANTED}@host", fields={"mpiflow.x": f"secret={PLANTED}"})
    try:
        raise ValueError(f"no access with password={PLANTED}")
    except ValueError:
        logging.getLogger("mpiflow.kernel").exception("callback")
    run.close()
    end()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2
    for path in files:
        text = path.read_text()
        assert PLANTED not in text
        assert "no access with password=***" in text
    if isinstance(form, JSONLogging):
        (lines,) = [path.read_text().splitlines() for path in files if path.suffix == ".jsonlog"]
        assert all(json.loads(line) for line in lines)


def test_the_scripts_own_handlers_get_a_command_line_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", "--password", PLANTED])
    RunDirectory(tmp_path, enabled=True).close()
    assert "script.py --password ***" in caplog.text
    assert PLANTED not in caplog.text


def test_a_config_shows_itself_as_it_is() -> None:
    """Nothing in an ordinary Config looks like a secret: the log's head can be pasted into a script."""
    assert without_secrets(repr(Config())) == repr(Config())
