"""From templates and inputs to commands, by hand and against GNU parallel itself."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpiflow.cli.batch.template import BatchError, Source, combined, commands, quoted

#: Inputs on which a careless template breaks.
NASTY = [
    *(b"plain", b"/a/b.tar.gz", b"c d.txt", b"", b"e'f", b"''", b"'", b"g\th", b"\xc3\xa9", b"*", b"x=1", b"a,b"),
    *(b"-r", b"~", b"dir/", b"/", b"//", b"a//b", b"/x", b".bashrc", b"a.b/c", b"x@y", b"$(touch no)", b"`no`", b"a;b"),
    *(b'"', b"\\", b"a\\nb", b"!", b"#", b"a|b", b"a&b", b"{}", b"{.}", b"{#}", b"x.", b"..", b"a/..", b"../x.y/"),
    *(b" lead", b"trail ", b"\xff\xfe", b"%", b"a:b", b"[x]", b"a.b.c", b"/a/.b", b"'a'b'c''"),
]
EVERYTHING = b"x {} {.} {/} {//} {/.} {#} y"


def source(*inputs: bytes, linked: bool = False) -> Source:
    return Source(list(inputs), linked)


@pytest.fixture(scope="module")
def parallel() -> str:
    """GNU parallel; other programs have that name."""
    path = shutil.which("parallel")
    said = subprocess.run([path, "--version"], capture_output=True, check=False).stdout if path else b""
    if not said.startswith(b"GNU parallel"):
        pytest.skip("GNU parallel is not installed")
    assert path is not None
    return path


def of_parallel(parallel: str, *words: bytes, home: Path) -> list[bytes]:
    """The commands that it would run."""
    ended = subprocess.run(
        [os.fsencode(parallel), b"--will-cite", b"-k", b"--dry-run", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "HOME": str(home), "LC_ALL": "C.UTF-8"},
        timeout=60,
        check=True,
    )
    return ended.stdout.split(b"\n")[:-1]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (b"echo {}", b"echo /a/b.tar.gz"),
        (b"echo {.}", b"echo /a/b.tar"),
        (b"echo {/}", b"echo b.tar.gz"),
        (b"echo {//}", b"echo /a"),
        (b"echo {/.}", b"echo b.tar"),
        (b"echo {#}", b"echo 1"),
        (b"echo", b"echo /a/b.tar.gz"),
        (b"mv {} {.}.old && ls {//}", b"mv /a/b.tar.gz /a/b.tar.old && ls /a"),
        (b"echo {1/.} {x} {}{}", b"echo b.tar {x} /a/b.tar.gz/a/b.tar.gz"),
    ],
)
def test_a_template_is_filled(template: bytes, expected: bytes) -> None:
    assert list(commands(template, [source(b"/a/b.tar.gz")])) == [expected]


def test_inputs_without_a_template_are_commands() -> None:
    assert list(commands(b"", [source(b"echo a b", b"ls | wc")])) == [b"echo a b", b"ls | wc"]


def test_several_sources_are_combined_and_linked_ones_go_along() -> None:
    rows = [(b"a", b"1"), (b"a", b"2"), (b"b", b"1"), (b"b", b"2")]
    assert list(combined([source(b"a", b"b"), source(b"1", b"2")])) == rows
    linked = [(b"a", b"1"), (b"b", b"2")]
    assert list(combined([source(b"a", b"b", b"c"), source(b"1", b"2", linked=True)])) == linked
    assert list(combined([source(b"a", b"b"), source(b"1", b"2", b"3", linked=True)])) == linked
    assert list(combined([source(b"a"), source()])) == []


@pytest.mark.parametrize("template", [b"echo {%}", b"echo {-1}", b"echo {-1.}", b"echo {= s/a/b/ =}"])
def test_what_only_gnu_parallel_knows_is_refused(template: bytes) -> None:
    with pytest.raises(BatchError, match="is not known here; legal is"):
        commands(template, [source(b"a")])


def test_a_source_that_is_not_there_is_refused() -> None:
    with pytest.raises(BatchError, match=r"\{2\} in the template: there are 1 sources"):
        commands(b"echo {2}", [source(b"a")])


@settings(max_examples=300)
@given(st.binary(max_size=30).filter(lambda text: b"\0" not in text))
def test_a_quoted_word_is_one_word_and_the_same(word: bytes) -> None:
    text = word.decode("latin-1")
    assert shlex.split(quoted(word).decode("latin-1")) == [text]


def test_bash_sees_every_input_as_it_is() -> None:
    line = b"; ".join(commands(b"printf '%s\\0' {}", [source(*NASTY)]))
    ended = subprocess.run([b"/bin/bash", b"-c", line], capture_output=True, check=True, timeout=30)
    assert ended.stdout.split(b"\0")[:-1] == NASTY


def test_it_is_what_gnu_parallel_makes_of_nasty_inputs(parallel: str, tmp_path: Path) -> None:
    (tmp_path / "inputs").write_bytes(b"\n".join(NASTY) + b"\n")
    theirs = of_parallel(parallel, EVERYTHING, b"::::", os.fsencode(tmp_path / "inputs"), home=tmp_path)
    assert list(commands(EVERYTHING, [source(*NASTY)])) == theirs


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (b"echo {1} {2} {}", b"::: a b.c ::: 1 2 3"),
        (b"echo {2/.} {1//} {#}", b"::: a/b b.c ::: x/1.y 2"),
        (b"echo {1} {2}", b"::: a b c :::+ 1 2"),
        (b"echo {1} {2} {3}", b"::: a b :::+ 1 2 ::: X Y"),
        (b"echo {1} {2} {3}", b"::: X Y ::: a b c :::+ 1 2 3"),
        (b"echo {.}", b"::: a.b ::: c.d"),
        (b"echo", b"::: a ::: b"),
    ],
)
def test_it_is_what_gnu_parallel_makes_of_several_sources(
    parallel: str, tmp_path: Path, template: bytes, words: bytes
) -> None:
    sources: list[Source] = []
    for word in words.split():
        if word.startswith(b":::"):
            sources.append(Source([], word == b":::+"))
        else:
            sources[-1].inputs.append(word)
    assert list(commands(template, sources)) == of_parallel(parallel, template, *words.split(), home=tmp_path)
