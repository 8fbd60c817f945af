"""The commands of a user, against the stand-ins of batch systems: into the queue, how it stands, its end."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from standins.standin import Standin

pytestmark = pytest.mark.timeout(240)

#: What each batch system wants to be told.
OPTIONS = {
    "pbs": ("--launcher", "mpiexec"),
    "torque": ("--launcher", "mpiexec"),
    "cobalt": ("--time", "5m", "--launcher", "mpiexec"),
    "lsf": ("--launcher", "mpiexec"),
    "flux": (),
}
QUICK = "import sys; print('got', sys.argv[1:], flush=True); sys.exit(3)"
FOREVER = "import time; print('here', flush=True); time.sleep(600)"


def types(standin: Standin, place: Path, *words: str, limit: float = 150.0) -> subprocess.CompletedProcess[str]:
    """Type a command of mpiflow."""
    return subprocess.run(
        [sys.executable, "-m", "mpiflow", *words],
        env=standin.environment | {"XDG_STATE_HOME": str(place / "state")},
        cwd=place, capture_output=True, text=True, timeout=limit, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("system", sorted(OPTIONS))
def test_wait(standin: Callable[[str], Standin], system: str, tmp_path: Path) -> None:
    one = standin(system)
    (tmp_path / "script.py").write_text(QUICK)
    options = ("--system", system, "--ranks-per-node", "2", *OPTIONS[system], "--wait")
    ran = types(one, tmp_path, "submit", *options, "script.py", "--wait", "a  b")
    assert ran.returncode == 3, ran
    assert "got ['--wait', 'a  b']" in ran.stdout
    assert "mpiflow: failed with code 3" in ran.stderr
    found = re.match(r"submitted: job (\S+) ", ran.stdout)
    assert found
    assert "failed with code 3" in types(one, tmp_path, "status", found[1]).stdout


@pytest.mark.parametrize("system", sorted(OPTIONS))
def test_cancel(standin: Callable[[str], Standin], system: str, tmp_path: Path) -> None:
    one = standin(system)
    (tmp_path / "script.py").write_text(FOREVER)
    ran = types(one, tmp_path, "submit", "--system", system, "--ranks-per-node", "2", *OPTIONS[system], "script.py")
    found = re.match(r"submitted: job (\S+) ", ran.stdout)
    assert found, ran
    end = time.monotonic() + 60
    while not any("here" in path.read_text() for path in tmp_path.glob("runinfo/jobs/*/*.out")):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert ": running" in types(one, tmp_path, "status", found[1]).stdout
    cancelled = types(one, tmp_path, "cancel", found[1])
    assert cancelled.returncode == 0, cancelled
    while ": running" in (said := types(one, tmp_path, "status", found[1]).stdout):
        assert time.monotonic() < end
    assert re.search(": (cancelled|failed)", said), said
