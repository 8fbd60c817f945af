"""Parsl's monitoring, which keeps a database by processes that listen: accepted."""

from __future__ import annotations

from typing import ClassVar

from mpiflow.parsl.accepted import Accepted


class MonitoringHub(Accepted):
    """What ``Config(monitoring=...)`` takes."""

    optional: ClassVar = {
        "hub_address": None, "hub_port_range": None, "hub_port": None, "workflow_name": None,
        "workflow_version": None, "logging_endpoint": None, "monitoring_debug": False,
        "resource_monitoring_enabled": True, "resource_monitoring_interval": 30,
    }  # fmt: skip


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
