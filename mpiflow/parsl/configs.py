"""Configurations that come with Parsl and that its tutorials load."""

from __future__ import annotations

from mpiflow.config import Config
from mpiflow.executors.threads import ThreadPoolExecutor
from mpiflow.parsl.executors import HighThroughputExecutor

#: ``from parsl.configs.local_threads import config``
local_threads = Config(executors=[ThreadPoolExecutor()])
#: ``from parsl.configs.htex_local import config``
htex_local = Config(executors=[HighThroughputExecutor(label="htex_local")])
