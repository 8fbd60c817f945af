"""The loop in docs/draining.md by which a batch script waits for the farm: its code is the farm's."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
#: A farm that ends with 85 when it is told, and shells that are slow: `kill` comes back when the farm has ended.
SURROUNDINGS = r"""
mpiexec() { exec bash -c 'trap "exit 85" USR1; echo "$$" >began; while :; do sleep 0.05; done'; }
kill() {
    builtin kill "$@"
    local code=$?
    while { read -r stat <"/proc/$child/stat"; } 2>/dev/null && [[ $stat != *') Z '* ]]; do :; done
    return "$code"
}
"""


def test_a_farm_that_ends_while_the_trap_runs(tmp_path: Path) -> None:
    text = (DOCS / "draining.md").read_text()
    (loop,) = re.findall(r"```sh\n(mpiexec python -m mpiflow script.py & child.*?)```", text, re.S)
    tell = f"( while [ ! -s began ]; do sleep 0.05; done; builtin kill -USR1 $$ ) &\n{loop}"
    ran = subprocess.run(
        ["bash", "-c", SURROUNDINGS + tell], cwd=tmp_path, timeout=60, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (85, ""), ran
