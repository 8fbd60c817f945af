"""What all tests share: how hypothesis looks for counter-examples, and that the user's own files are left alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# No deadline and no database: the machines that run these tests are shared, and a run leaves nothing behind.
settings.register_profile(
    "mpiflow",
    deadline=None,
    database=None,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("mpiflow")


@pytest.fixture(scope="session", autouse=True)
def list_of_jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A list of submitted jobs for these tests: no job of a test may turn up in that of the person who runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
