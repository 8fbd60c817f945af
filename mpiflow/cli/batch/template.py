"""From a template and its inputs to shell commands, as GNU parallel makes them.

=========  =====================================  ===============  =====================================
``{}``     the input                              ``{#}``          the number of the job, from 1 up
``{.}``    without its last extension             ``{2}``          the input from the second source
``{/}``    without its directory                  ``{2.}``, ...    the same of that one
``{//}``   its directory                          ``:::  a b``     a source: words
``{/.}``   without directory and extension        ``:::: FILE``    a source: the lines of a file; ``-`` is stdin
=========  =====================================  ===============  =====================================

Several sources are combined, each word with each; one that is written ``:::+`` or ``::::+`` goes along with the one
before it instead, as far as both reach. What takes the place of ``{}`` is quoted for the shell, the template itself is
not: it may have pipes and variables. A template without any of these gets `` {}`` at its end.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mpiflow.errors import MpiflowError

#: Words that begin a source of inputs.
SEPARATORS = (b":::", b"::::", b":::+", b"::::+")

_REPLACED = re.compile(rb"\{(?:(\d*)(//|/\.|/|\.)?|(#))\}")
#: Those of GNU parallel that mean nothing here; left in place they would run a command that nobody meant.
_NOT_OURS = re.compile(rb"\{(?:%|-\d+(?://|/\.|/|\.)?|\+\S*?|=.*?=)\}")
_NEEDS_QUOTES = re.compile(rb"[^-_.+a-zA-Z0-9/]")
_EXTENSION = re.compile(rb"\.[^/.]*\Z")


class BatchError(MpiflowError):
    """A batch that cannot be run as it is; nothing has been started."""


class Source(NamedTuple):
    """Inputs, and whether they go along with those of the source before."""

    inputs: list[bytes]
    linked: bool


def has_replacement(template: bytes) -> bool:
    """Whether anything in it stands for an input or a number.

    Examples
    --------
    >>> has_replacement(b"gzip {}"), has_replacement(b"tasks.txt")
    (True, False)
    """
    return _REPLACED.search(template) is not None


def quoted(word: bytes) -> bytes:
    """A word as the shell has to be given it; like GNU parallel's, so that joblogs of both can be compared.

    Examples
    --------
    >>> quoted(b"a b"), quoted(b"a.b/c-d"), quoted(b"")
    (b"'a b'", b'a.b/c-d', b"''")
    """
    if not word:
        return b"''"
    if not _NEEDS_QUOTES.search(word):
        return word
    whole = b"'" + word.replace(b"'", b"'\"'\"'") + b"'"
    return whole.removeprefix(b"''").removesuffix(b"''")


def combined(sources: Sequence[Source]) -> Iterator[tuple[bytes, ...]]:
    """The inputs of each job: every combination, the last source changing fastest.

    Examples
    --------
    >>> list(combined([Source([b"a", b"b"], False), Source([b"1", b"2"], True)]))
    [(b'a', b'1'), (b'b', b'2')]
    """
    groups: list[list[tuple[bytes, ...]]] = []
    for source in sources:
        if source.linked and groups:
            pairs = zip(groups.pop(), source.inputs, strict=False)  # the shorter one ends it
            groups.append([(*row, one) for row, one in pairs])
        else:
            groups.append([(one,) for one in source.inputs])
    return (tuple(itertools.chain(*row)) for row in itertools.product(*groups))


def commands(template: bytes, sources: Sequence[Source]) -> Iterator[bytes]:
    """The commands of a template, in order.

    Parameters
    ----------
    template : bytes
        What is run for each input; empty when the inputs are commands themselves.
    sources : sequence of Source
        At least one.

    Raises
    ------
    BatchError
        The template speaks of a source that is not there, or in a way that is not known here.
    """
    if not template:
        return (b" ".join(row) for row in combined(sources))
    _check(template, len(sources))
    whole = template if has_replacement(template) else template + b" {}"
    return (_filled(whole, row, number) for number, row in enumerate(combined(sources), 1))


def _check(template: bytes, sources: int) -> None:
    if unknown := _NOT_OURS.search(template):
        raise BatchError(
            f"{os.fsdecode(unknown[0])} in the template is not known here; legal is {{}} {{.}} {{/}} {{//}} {{/.}} "
            "{#}, and {1} {1.} ... of one of several sources"
        )
    for found in _REPLACED.finditer(template):
        if found[1] and not 1 <= int(found[1]) <= sources:
            raise BatchError(f"{os.fsdecode(found[0])} in the template: there are {sources} sources of inputs")


def _filled(template: bytes, row: tuple[bytes, ...], number: int) -> bytes:
    def replacement(found: re.Match[bytes]) -> bytes:
        if found[3]:
            return b"%d" % number
        chosen = [row[int(found[1]) - 1]] if found[1] else row
        return b" ".join(quoted(_part(found[2] or b"", one)) for one in chosen)

    return _REPLACED.sub(replacement, template)


def _part(which: bytes, name: bytes) -> bytes:
    """The part of a path that a replacement asks for."""
    if which == b"//":
        parent = os.path.dirname(name.rstrip(b"/"))
        return parent or (b"/" if name.startswith(b"/") else b".")
    if which in (b"/", b"/."):
        name = name.rpartition(b"/")[2]
    return _EXTENSION.sub(b"", name) if which in (b".", b"/.") else name
