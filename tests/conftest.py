"""What all tests share: how hypothesis looks for counter-examples."""

from __future__ import annotations

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
