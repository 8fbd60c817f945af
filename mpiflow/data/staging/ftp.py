"""Files from FTP servers."""

from __future__ import annotations

from mpiflow.data.staging.fetching import PIECE, SILENCE, InTaskStaging, SeparateTaskStaging
from mpiflow.data.staging.places import arriving

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ftplib import FTP


class FTPSeparateTaskStaging(SeparateTaskStaging):
    """Fetches ``ftp:`` URLs, each in a task of its own. Needs a disk that all nodes see."""

    schemes = ("ftp",)

    def fetch(self, url: str, path: str) -> None:
        """Fetch one."""
        fetch_ftp(url, path)


class FTPInTaskStaging(InTaskStaging):
    """Fetches ``ftp:`` URLs inside the task that needs them."""

    schemes = ("ftp",)

    def fetch(self, url: str, path: str) -> None:
        """Fetch one."""
        fetch_ftp(url, path)


def fetch_ftp(url: str, path: str) -> None:
    """Fetch a URL to a path, as the user that it names, else as "anonymous".

    Parameters
    ----------
    url : str
        ``ftp://[user[:password]@]host[:port]/directory/name``.
    path : str
        Where to; nothing appears there before all of it has come.

    Raises
    ------
    OSError
        When the server cannot be reached, says no, or breaks off; naming the URL and its answer.
    """
    from ftplib import FTP, FTP_PORT, Error
    from posixpath import split
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url)
    directory, name = split(unquote(parts.path))
    try:
        with FTP(timeout=SILENCE) as ftp:
            ftp.connect(parts.hostname or "", parts.port or FTP_PORT)
            ftp.login(unquote(parts.username or ""), unquote(parts.password or ""))
            if directory:
                ftp.cwd(directory)
            _retrieve(ftp, name, path)
    except (Error, OSError, EOFError, ValueError) as error:  # ValueError: a port or a name that cannot be one
        # without the password that may be in it
        shown = url.replace(f":{parts.password}@", ":***@", 1) if parts.password else url
        raise OSError(f"{shown} cannot be fetched to {path}: {str(error) or type(error).__name__}") from error


def _retrieve(ftp: FTP, name: str, path: str) -> None:
    """Copy a file; OSError if it is shorter than the server says it is."""
    from ftplib import Error

    ftp.voidcmd("TYPE I")  # servers say no size of a text, whose line ends they would change
    try:
        announced = ftp.size(name)
    except Error:  # a server need not know; then its last answer is all there is to go by
        announced = None
    with arriving(path) as file:
        ftp.retrbinary(f"RETR {name}", file.write, PIECE)
        came = file.tell()
        if announced is not None and came != announced:
            raise OSError(f"the transfer ended after {came} of {announced} bytes")
