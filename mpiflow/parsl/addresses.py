"""Where Parsl's workers would call back, as configurations of clusters say: accepted. Nothing of a farm listens."""

from __future__ import annotations

import socket


def address_by_hostname() -> str:
    """This machine's name."""
    return socket.gethostname()


def address_by_route() -> str:
    """This machine's name."""
    return socket.gethostname()


def address_by_query(timeout: float = 30) -> str:
    """This machine's name; nobody outside is asked."""
    return socket.gethostname()


def address_by_interface(ifname: str) -> str:
    """This machine's name."""
    return socket.gethostname()


def get_any_address() -> str:
    """This machine's name."""
    return socket.gethostname()


def get_all_addresses() -> set[str]:
    """This machine's name alone."""
    return {socket.gethostname()}
