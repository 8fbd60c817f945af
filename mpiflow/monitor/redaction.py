"""Take what looks like a secret out of what is about to be logged.

A log is passed round: it is attached to tickets, and lies in a directory that colleagues read. Command lines,
settings and errors hold passwords all the same. What counts as one is decided by its name (a *token*, *password*,
*secret* or *key* in any case) and never by its value: a value that is hidden without need costs a question, one that
is shown costs a password. What has no name cannot be known; ``user:password@`` in an address is the one exception.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: What stands in the place of a secret.
HIDDEN = "***"

# Bounded, and begun at the beginning of a word only: a log line may be a megabyte of anything.
_NAME = r"[\w.-]{0,100}(?:token|password|secret|key)[\w.-]{0,100}"
#: ``NAME=``, ``'name':`` as mappings show it, ``--name`` and a blank: what follows is the value.
_NAMED = re.compile(
    rf"""(?<![\w.-]){_NAME}\s?=\s?|(?P<q>\\*['"]){_NAME}(?P=q)\s?:\s?|(?<!\S)--?{_NAME}\s+(?!-)""", re.IGNORECASE
)
#: A value in quotes, up to the end where it was cut off and has no second one.
_STRING = re.compile(
    r"""[bfru]{0,2}(?P<q>\\*(?:\'{3}|"{3}|['"]))(?:(?!(?P=q))(?:\\.|['"]|[^\\'"]+))*(?:(?P=q)|\\?\Z)""",
    re.I | re.DOTALL,
)
#: What ends a value without brackets, and what cannot end any.
_END, _DULL = re.compile(r"[\s;&]|,(?=\s|\Z)"), re.compile(r"""[^\s,;&'"\\()\[\]{}<>bfru]+""", re.I)
_ADDRESS = re.compile(
    r"""(?P<before>\b[a-z][a-z0-9+.-]{0,20}://[^\s/:@'"]{0,200}:)(?:[^\s/'"]{1,500}|[^\s@'"]{1,500})(?=@)""",
    re.IGNORECASE,
)
_OPTION = re.compile(rf"--?{_NAME}", re.IGNORECASE)
#: Without one of these there is nothing to do: most lines, at a fortieth of the price.
_WORTH_A_LOOK = re.compile(r"token|password|secret|key|://", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """A text with `HIDDEN` in the place of what looks like secrets.

    Parameters
    ----------
    text : str
        Any: a line for a log, a repr, a command line, an address.

    Examples
    --------
    >>> without_secrets("GITHUB_TOKEN=abc run.py --api-key 123 -n 4")
    'GITHUB_TOKEN=*** run.py --api-key *** -n 4'
    >>> without_secrets("{'user': 'me', 'db_password': 'x y'} ftp://me:xy@host/file")
    "{'user': 'me', 'db_password': ***} ftp://me:***@host/file"
    """
    if _WORTH_A_LOOK.search(text) is None:
        return text
    text = _without_named(text)
    return _ADDRESS.sub(lambda found: found["before"] + HIDDEN, text)


def _without_named(text: str) -> str:
    """A text with `HIDDEN` in the place of the values that have a secret's name."""
    parts: list[str] = []
    position = 0
    while found := _NAMED.search(text, position):
        parts += [text[position : found.end()], HIDDEN]
        position = _end_of_value(text, found.end())
    return "".join(parts) + text[position:]


def _end_of_value(text: str, position: int) -> int:
    """Where the value ends that begins here: a string, something in brackets, or a word, calls in it included."""
    if string := _STRING.match(text, position):
        return string.end()
    depth, first = 0, text[position : position + 1]
    while position < len(text):
        if skipped := _DULL.match(text, position) or (depth and _STRING.match(text, position)):
            position = skipped.end()
            continue
        character = text[position]
        if character in "([{" or (character == first == "<"):
            depth += 1
        elif depth and (character in ")]}" or (character == ">" and first == "<")):
            depth -= 1
            if not depth and first in "([{<":
                return position + 1
        elif not depth and _END.match(text, position):
            return position
        position += 1
    return position


def command_without_secrets(words: Sequence[str]) -> str:
    """A command line as one text; a value is hidden whole, whatever blanks and quotes are in it.

    Parameters
    ----------
    words : sequence of str
        The command and its arguments.

    Examples
    --------
    >>> command_without_secrets(["run.py", "--password", "two words", "DB_KEY=a b", "-v"])
    'run.py --password *** DB_KEY=*** -v'
    """
    shown: list[str] = []
    hide = False
    for word in words:
        name, is_set, _ = word.partition("=")
        if hide and not word.startswith("-"):
            shown.append(HIDDEN)
        elif is_set and re.fullmatch(_NAME, name, re.IGNORECASE):
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(without_secrets(word))
        hide = _OPTION.fullmatch(word) is not None
    return " ".join(shown)
