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
_VALUE = r"""(?:[bru]?'(?:\\.|[^'\\])*'|[bru]?"(?:\\.|[^"\\])*"|\[[^\]]*\]|\([^)]*\)|\{[^}]*\}|[^\s,;&]+)"""
#: ``NAME=value``, ``'name': value`` as mappings show it, ``--name value``.
_NAMED = re.compile(
    rf"""(?P<name>(?<![\w.-]){_NAME}\s?=\s?|(?P<q>['"]){_NAME}(?P=q)\s?:\s?|(?<!\S)--?{_NAME}\s+(?!-))(?P<value>{_VALUE})""",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]{0,20}://[^\s/:@'\"]{0,200}:)[^\s@'\"]{1,500}(?=@)", re.IGNORECASE)
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
    text = _NAMED.sub(lambda found: found["name"] + HIDDEN, text)
    return _ADDRESS.sub(lambda found: found["before"] + HIDDEN, text)


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
