"""The mpiexec that goes with an interpreter, and a clean environment: what the end-to-end tests start jobs with."""

from __future__ import annotations

import sys
from pathlib import Path

# Those tests find their own modules by this directory on the path, and so do we: it belongs to no package.
sys.path.insert(0, str(Path(__file__).parents[1] / "end_to_end"))
from launching import Mpiexec, inherited, our_mpiexec

__all__ = ["Mpiexec", "inherited", "our_mpiexec"]
