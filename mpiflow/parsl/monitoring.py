"""Parsl's radios, by which processes of its workers speak to the one that keeps its database: accepted.

Here what is known of a task comes over MPI, with its result. `MonitoringHub` itself takes effect: `monitor.hub`.
"""

from __future__ import annotations

from typing import ClassVar

from mpiflow.parsl.accepted import Accepted


class RadioConfig(Accepted):
    """Base of what ``remote_monitoring_radio`` of an executor takes."""


class HTEXRadio(RadioConfig):
    """Beside the results of tasks."""


class FilesystemRadio(RadioConfig):
    """Over files."""


class MultiprocessingQueueRadio(RadioConfig):
    """Over a queue of the same process."""


class UDPRadio(RadioConfig):
    """Over UDP."""

    required = ("address",)
    optional: ClassVar = {"port": None, "atexit_timeout": 3, "debug": False, "hmac_digest": "sha512"}
    by_name = True
