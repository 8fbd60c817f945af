"""How a text is written into a batch script so that it is read back as it was.

There are three languages in one file. In the shell's part every text can be said, as one quoted word. A comment can
say anything on one line. The lines for the batch system, its *directives*, are read by a parser of its own, and most
know no way to say a line end, many none to say a space. What one of them cannot say is refused here, by name: a
directive that means something else is worse than no job.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from mpiflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable


def word(text: str) -> str:
    """Write a text as one word of the shell.

    Examples
    --------
    >>> print(word("it's $(here)"))
    'it'"'"'s $(here)'
    """
    return shlex.quote(text)


def words(texts: Iterable[str]) -> str:
    """Write texts as words of the shell, each with a space before it: to be put behind another word."""
    return "".join(f" {word(text)}" for text in texts)


def comment(text: str) -> str:
    """Write a text into a comment: whatever is not printable, line ends above all, is escaped.

    Examples
    --------
    >>> print(comment("a\\nrm -rf b"))
    a\\nrm -rf b
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def file_name(text: str) -> str:
    """Make the name of a file of a job's name; one that needs no quotes anywhere.

    Examples
    --------
    >>> file_name("my job/2"), file_name("-x"), file_name("")
    ('my_job_2', '_x', 'job')
    """
    safe = re.sub(r"[^A-Za-z0-9_.+-]", "_", text)[:120]
    return re.sub(r"^[-.]", "_", safe) or "job"


def line(text: str, field: str) -> str:
    """Give a text that the user meant for one line, as it is.

    Raises
    ------
    ConfigurationError
        It has line ends, or other characters that cannot be seen.
    """
    if not text.isprintable():
        raise _unsayable(text, field, "a line for the batch system holds no line ends and no control characters")
    return text


def plain(text: str, field: str, forbidden: str = "") -> str:
    """Write a text into a directive whose parser has no quotes: as it is.

    Parameters
    ----------
    text : str
        The text.
    field : str
        What it is, for the message.
    forbidden : str
        More characters that mean something there.

    Raises
    ------
    ConfigurationError
        It has spaces, quotes, a backslash, a ``#``, or begins with a dash.
    """
    line(text, field)
    bad = sorted({letter for letter in text if letter.isspace() or letter in "\"'\\#" + forbidden})
    if bad or text.startswith("-"):
        found = f"the characters {' '.join(map(repr, bad))}" if bad else "a dash at its beginning"
        raise _unsayable(text, field, f"a directive of this batch system cannot say {found}")
    return text


def quoted(text: str, field: str) -> str:
    """Write a text into a directive whose parser reads double quotes and backslashes, as Slurm's does.

    Raises
    ------
    ConfigurationError
        It has line ends, or other characters that cannot be seen.

    Examples
    --------
    >>> print(quoted("plain", "name"), quoted('a "b" c', "name"))
    plain "a \\"b\\" c"
    """
    line(text, field)
    if re.fullmatch(r"[\w@%+=:,./*\[\]&|()<>!~^?{}-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def without(text: str, forbidden: str, field: str) -> str:
    """Give a text as it is, where something in it would be replaced.

    Parameters
    ----------
    text : str
        The text.
    forbidden : str
        What must not be in it.
    field : str
        What it is, for the message.

    Raises
    ------
    ConfigurationError
        It has that.
    """
    if forbidden in text:
        raise _unsayable(text, field, f"{forbidden!r} means something else to this batch system")
    return text


def _unsayable(text: str, field: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"{field} is {text!r}: {why}")
