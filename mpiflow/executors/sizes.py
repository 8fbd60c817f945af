"""Amounts of memory as people write and read them."""

from __future__ import annotations

import re

#: What an amount may look like, for errors.
LEGAL = "a whole number of bytes above 0, or a text like '4GB' (powers of 1000), '512MiB' or '4G' (powers of 1024)"

_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?)(i?b)?\s*", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def bytes_of(amount: object) -> int:
    """An amount of memory as a number of bytes.

    Parameters
    ----------
    amount : int or str
        Bytes; or a text with a unit, large or small letters: "4GB" and "4kB" count by 1000, "4GiB" and "4G" by 1024, as
        batch systems do.

    Raises
    ------
    ValueError
        For anything else; what is legal says `LEGAL`.

    Examples
    --------
    >>> bytes_of("1.5G"), bytes_of("4GB"), bytes_of("512MiB"), bytes_of(100)
    (1610612736, 4000000000, 536870912, 100)
    """
    found = amount
    if isinstance(amount, str):
        match = _AMOUNT.fullmatch(amount)
        if match is None:
            raise ValueError(amount)
        number, prefix, unit = match.groups(default="")
        if unit.lower() == "ib" and not prefix:
            raise ValueError(amount)
        base = 1000 if unit.lower() == "b" else 1024
        found = int(float(number) * base ** _POWERS[prefix.lower()])
    if isinstance(found, bool) or not isinstance(found, int) or not 0 < found < 1 << 63:
        raise ValueError(amount)
    return found


def in_words(size: int) -> str:
    """A number of bytes for a person to read.

    Examples
    --------
    >>> in_words(1610612736), in_words(100)
    ('1.5 GiB', '100 bytes')
    """
    power = min(max(size.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    return f"{size / 1024**power:.4g} {_UNITS[power]}"
