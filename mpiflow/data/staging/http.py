"""Files from web servers, by the standard library's own client."""

from __future__ import annotations

from mpiflow.data.staging.fetching import PIECE, SILENCE, InTaskStaging, SeparateTaskStaging
from mpiflow.data.staging.places import arriving

TYPE_CHECKING = False
if TYPE_CHECKING:
    from http.client import HTTPResponse
    from typing import IO


class HTTPSeparateTaskStaging(SeparateTaskStaging):
    """Fetches ``http:`` and ``https:`` URLs, each in a task of its own. Needs a disk that all nodes see."""

    schemes = ("http", "https")

    def fetch(self, url: str, path: str) -> None:
        """Fetch one."""
        fetch_http(url, path)


class HTTPInTaskStaging(InTaskStaging):
    """Fetches ``http:`` and ``https:`` URLs inside the task that needs them."""

    schemes = ("http", "https")

    def fetch(self, url: str, path: str) -> None:
        """Fetch one."""
        fetch_http(url, path)


def fetch_http(url: str, path: str) -> None:
    """Fetch a URL to a path.

    Redirections are followed, and the proxies that the environment names are used.

    Parameters
    ----------
    url : str
        What to fetch.
    path : str
        Where to; nothing appears there before all of it has come.

    Raises
    ------
    OSError
        When the server cannot be reached, says no, or breaks off; naming the URL, and its answer or what came.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=SILENCE) as response, arriving(path) as file:
            _copy(response, file)
    except HTTPError as error:
        error.close()
        raise OSError(f"{url} cannot be fetched: the server answers {error.code} {error.reason}") from error
    except HTTPException as error:  # an answer that is no HTTP, a chunk that breaks off
        raise OSError(f"{url} cannot be fetched: {type(error).__name__}: {error}") from error
    except OSError as error:  # URLError is one, and so is a time-out
        raise OSError(f"{url} cannot be fetched to {path}: {getattr(error, 'reason', error)}") from error


def _copy(response: HTTPResponse, file: IO[bytes]) -> None:
    """Copy an answer's body; OSError if it is shorter than announced, which the client itself lets pass."""
    announced = response.getheader("Content-Length")
    came = 0
    while piece := response.read(PIECE):
        file.write(piece)
        came += len(piece)
    if announced is not None and came != int(announced):
        raise OSError(f"the connection ended after {came} of {announced} bytes")
