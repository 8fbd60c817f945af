"""Parsl's launchers: accepted. What starts the ranks is known before a script runs; see ``mpiflow doctor``."""

from __future__ import annotations

from typing import ClassVar

from mpiflow.parsl.accepted import Accepted


class Launcher(Accepted):
    """Base of all launchers."""

    optional: ClassVar = {"debug": True}


class SimpleLauncher(Launcher):
    """The command as it is."""


class WrappedLauncher(Launcher):
    """The command behind another."""

    required = ("prepend",)


class SingleNodeLauncher(Launcher):
    """The command several times on one node."""

    optional: ClassVar = {"debug": True, "fail_on_any": False}


class GnuParallelLauncher(Launcher):
    """By GNU parallel."""


class MpiExecLauncher(Launcher):
    """By mpiexec."""

    optional: ClassVar = {"debug": True, "bind_cmd": "--bind-to", "overrides": ""}


class MpiRunLauncher(Launcher):
    """By mpirun."""

    optional: ClassVar = {"debug": True, "bash_location": "/bin/bash", "overrides": ""}


class SrunLauncher(Launcher):
    """By srun."""

    optional: ClassVar = {"debug": True, "overrides": ""}


class SrunMPILauncher(SrunLauncher):
    """By one srun for each worker."""


class AprunLauncher(SrunLauncher):
    """By aprun."""


class JsrunLauncher(SrunLauncher):
    """By jsrun."""
