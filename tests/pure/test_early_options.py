"""What every rank reads of its command line before there is a rank 0: the options that concern the start itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpiflow.cli import arguments, boot
from mpiflow.cli.batch import words as batch

DEFAULT = (boot.INIT_TIMEOUT, True)
BOTH = (7.0, False)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("", DEFAULT),
        ("script.py", DEFAULT),
        ("--init-timeout 7 --no-guardian script.py", BOTH),
        ("--init-timeout=7 --seed 3 --no-guardian script.py", BOTH),
        ("run --init-timeout 7 --no-guardian script.py", BOTH),
        ("--no-progress run --init-timeout 7 --no-guardian batch", BOTH),
        ("batch --init-timeout 7 --no-guardian tasks.txt", BOTH),
        ("--no-guardian batch --retries 2 --joblog log --resume --init-timeout 7 tasks.txt", BOTH),
        ("doctor --quick --init-timeout 7 --no-guardian", BOTH),
        # those of the script
        ("script.py --init-timeout 7 --no-guardian", DEFAULT),
        ("--no-progress script.py --no-guardian", DEFAULT),
        ("--checkpoint-all script.py --init-timeout 7", DEFAULT),
        ("run run --no-guardian", DEFAULT),
        ("-n8 script.py --no-guardian", DEFAULT),
        ("-n8 --no-guardian --init-timeout 7 script.py", BOTH),
        ("run script.py --no-guardian", DEFAULT),
        ("--seed 3 script.py --no-guardian", DEFAULT),
        ("batch prog --no-guardian ::: a", DEFAULT),
        ("batch --retries 2 prog --init-timeout 7 ::: a", DEFAULT),
        ("batch --resume prog --no-guardian ::: a", DEFAULT),
        ("batch - --no-guardian", DEFAULT),
        # values of other options
        ("--run-dir --no-guardian script.py", DEFAULT),
        ("--init-timeout soon script.py", DEFAULT),
        ("--init-timeout", DEFAULT),
    ],
)
def test_what_is_seen(line: str, found: tuple[float, bool]) -> None:
    assert boot._early_options(line.split()) == found


def test_options_without_a_value_are_those_of_the_parser() -> None:
    flags = {flag for action in arguments.parser()._actions if action.nargs == 0 for flag in action.option_strings}
    assert set(boot._WITHOUT_VALUE) == flags | batch._FLAGS


#: What a command line may be made of, whole options with their values.
PARTS = st.lists(
    st.sampled_from(
        ["--no-guardian", "--init-timeout 7", "--init-timeout=7", "-n 3", "-n3", "--seed 3", "--trust", "--fresh",
         "--run-dir d", "--quarantine-after=3", "--no-progress"]
    ),
    max_size=5,
).map(lambda parts: " ".join(parts).split())  # fmt: skip


@given(PARTS, st.sampled_from([[], ["run"]]), PARTS, PARTS)
def test_it_agrees_with_rank_0(
    before: list[str], command: list[str], between: list[str], after: list[str]
) -> None:
    """The parser of rank 0 takes the same command line apart with all its options."""
    options = [*before, *command, *between]
    line = [*options, "script.py", *after]
    assert arguments.parse(line).rest == after
    guarded = "--no-guardian" not in options
    seconds = 7.0 if "7" in options or "--init-timeout=7" in options else boot.INIT_TIMEOUT
    assert boot._early_options(line) == (seconds, guarded)
