"""File: a place where data is, given as a path or URL."""

from __future__ import annotations

import os
from urllib.parse import urlparse


class File:
    """A file that a task reads or writes.

    Parameters
    ----------
    url : str or path
        A path, or a URL with a scheme.

    Raises
    ------
    TypeError
        For what is no str and no path of str.
    ValueError
        For a URL that is none, such as ``http://[::1``.

    Attributes
    ----------
    url, scheme, netloc, path, filename : str
        The parts; ``scheme`` is "file" for a plain path, ``filename`` the last part of the path.
    local_path : str or None
        Where a copy lies, if the file is not local itself.

    Examples
    --------
    >>> File("/data/in.txt").filename, str(File("file:///data/in.txt"))
    ('in.txt', '/data/in.txt')
    """

    #: How a command's standard output goes into it.
    open_mode = "w"

    def __init__(self, url: str | os.PathLike[str]) -> None:
        if not isinstance(url, str | os.PathLike):
            raise TypeError(f"File takes a str or a path, not {type(url).__name__}: {url!r}")
        self.url = os.fspath(url)
        if not isinstance(self.url, str):
            raise TypeError(f"File takes a path of str, not of {type(self.url).__name__}: {url!r}")
        self.scheme, self.netloc, self.path = _parts(self.url)
        self.filename = os.path.basename(self.path)
        self.local_path: str | None = None

    @property
    def filepath(self) -> str:
        """The path to open; ValueError for a file that is elsewhere and has no local copy."""
        if self.local_path is not None:
            return self.local_path
        if self.scheme == "file":
            return self.path
        raise ValueError(f"No local_path set for {self!r}")

    def cleancopy(self) -> File:
        """The same file without a local copy."""
        return File(self.url)

    def __str__(self) -> str:
        return self.filepath

    def __fspath__(self) -> str:
        return self.filepath

    def __repr__(self) -> str:
        parts = [f"url={self.url}", f"scheme={self.scheme}", f"netloc={self.netloc}", f"path={self.path}"]
        parts.append(f"filename={self.filename}")
        if self.local_path is not None:
            parts.append(f"local_path={self.local_path}")
        return f"<File at {id(self):#x} {' '.join(parts)}>"


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme, host and path. A plain path may hold what a URL may not: '#', '?', ';', '//['."""
    if not url[:1].isalpha():  # the scheme of a URL begins with a letter, which older Pythons do not look at
        return "file", "", url
    try:
        parts = urlparse(url)
    except ValueError as error:
        raise ValueError(f"File: {url!r} is no URL: {error}") from error
    return (parts.scheme, parts.netloc, parts.path) if parts.scheme else ("file", "", url)
