"""Fixtures of the pure tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakes import make_kernel

from mpiflow.kernel.dataflow import DataFlowKernel


@pytest.fixture
def make() -> Iterator[Callable[..., DataFlowKernel]]:
    """Makes kernels, and cleans them up; none has failed, and each leaves nothing behind."""
    made: list[DataFlowKernel] = []

    def one(*executors: Any, **fields: Any) -> DataFlowKernel:
        made.append(make_kernel(*executors, **fields))
        return made[-1]

    yield one
    for kernel in made:
        failure = kernel.driver.failure
        if not kernel.cleanup_called:
            kernel.cleanup()
        assert failure is None
        helper = kernel.driver._helper
        assert helper is None or not helper.is_alive()
        assert not kernel.unended
