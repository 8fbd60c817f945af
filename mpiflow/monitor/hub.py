"""What ``Config(monitoring=...)`` takes: whether, and where, a run keeps a database of its tasks."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

from mpiflow.errors import ConfigurationError
from mpiflow.representation import RepresentationMixin

_SCHEME = "sqlite:///"
#: Parameters of Parsl's for processes that listen on a network, and what Parsl says of them.
_DEPRECATED = {
    "hub_address": "UDPRadio(address=...)",
    "hub_port": "UDPRadio(port=...)",
    "hub_port_range": "HighThroughputExecutor.interchange_port_range",
}


class MonitoringHub(RepresentationMixin):
    """Has rank 0 write an SQLite database of the run: its tasks, their tries and states, what they use, the nodes.

    Parameters
    ----------
    hub_address, hub_port_range, hub_port
        Of an older Parsl, and without effect: nothing listens.
    workflow_name : str, optional
        Name of the run; default: that of the script's file.
    workflow_version : str, optional
        Its version; default: when it began.
    logging_endpoint : str, optional
        ``sqlite:///PATH``; default: ``monitoring.db`` in the directory of all runs, which a further run adds to.
    monitoring_debug : bool
        Whether the log tells of every batch that is written.
    resource_monitoring_enabled : bool
        Whether workers say when and where each try ran, and what it used.
    resource_monitoring_interval : float
        Seconds between two looks at what a running task uses; 0: only when it began and ended is told.

    Raises
    ------
    ConfigurationError
        Naming the parameter, its value and what is legal.

    Examples
    --------
    >>> MonitoringHub(resource_monitoring_interval=10).resource_monitoring_interval
    10
    """

    def __init__(
        self,
        hub_address: Any = None,
        hub_port_range: Any = None,
        hub_port: Any = None,
        workflow_name: str | None = None,
        workflow_version: str | None = None,
        logging_endpoint: str | None = None,
        monitoring_debug: bool = False,
        resource_monitoring_enabled: bool = True,
        resource_monitoring_interval: float = 30,
    ) -> None:
        self.hub_address = hub_address
        self.hub_port_range = hub_port_range
        self.hub_port = hub_port
        for name, instead in _DEPRECATED.items():
            if getattr(self, name) is not None:
                words = f"MonitoringHub.{name} has no effect; Parsl says: specify {instead}"
                warnings.warn(words, DeprecationWarning, stacklevel=2)
        self.workflow_name = workflow_name
        self.workflow_version = workflow_version
        self.logging_endpoint = logging_endpoint
        self.monitoring_debug = monitoring_debug
        self.resource_monitoring_enabled = resource_monitoring_enabled
        self.resource_monitoring_interval = resource_monitoring_interval
        self.check()

    def check(self) -> None:
        """ConfigurationError for a parameter that is not legal; a program may have changed one since it was made."""
        for name in ("workflow_name", "workflow_version"):
            self._legal(name, lambda value: value is None or isinstance(value, str), "None or a text")
        for name in ("monitoring_debug", "resource_monitoring_enabled"):
            self._legal(name, lambda value: isinstance(value, bool), "True or False")
        self._legal("resource_monitoring_interval", _is_interval, "a number of seconds above 0, or 0 for none")
        words = "None or 'sqlite:///PATH', a file: rank 0 writes it by itself, and no other database is spoken to"
        self._legal("logging_endpoint", _is_endpoint, words)

    def _legal(self, name: str, legal: Any, what: str) -> None:
        value = getattr(self, name)
        if not legal(value):
            raise ConfigurationError(f"MonitoringHub: {name} is {value!r}; legal is {what}")

    def path(self, parent: str) -> str:
        """The file of the database, absolute.

        Parameters
        ----------
        parent : str
            Where it is when nobody has said: the directory of all runs.
        """
        if self.logging_endpoint is None:
            return os.path.join(os.path.abspath(parent), "monitoring.db")
        return os.path.abspath(self.logging_endpoint[len(_SCHEME) :])


def _is_interval(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and math.isfinite(value)


def _is_endpoint(value: object) -> bool:
    if value is None:
        return True
    if not isinstance(value, str) or not value.startswith(_SCHEME) or "?" in value:
        return False
    return value[len(_SCHEME) :] not in ("", ":memory:") and not value.endswith("/")
