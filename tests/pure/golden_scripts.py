"""The batch scripts that the tests compare with: one for each batch system, sensible launcher and amount of options.

After a change of a template that is meant, write them again and read the difference::

    python tests/pure/golden_scripts.py
    git diff tests/pure/golden
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from mpiflow.jobs.launchers import SENSIBLE
from mpiflow.jobs.render import has_description, render, render_description
from mpiflow.jobs.spec import JobSpec

GOLDEN = Path(__file__).parent / "golden"

_WHERE = {"script": "sweep.py", "directory": "/lus/project", "python": "/lus/env/bin/python", "name": "sweep"}
_FULL = {
    "script": "my sweep.py",
    "arguments": ("--steps", "10", "two words", "$(no command)", 'it\'s "quoted"'),
    "nodes": 4,
    "ranks_per_node": 8,
    "cores_per_rank": 4,
    "runners_per_rank": 2,
    "time": 7200,
    "name": "sweep-42",
    "warn_before": 300,
    "setup": ("/lus/set up.sh",),
    "modules": ("cray-mpich/8.1", "craype"),
    "venv": "/lus/env",
    "python": "",
    "farm_options": ("--checkpoint-all",),
    "launcher_options": ("--verbose",),
    "relaunches": 5,
    "max_restarts": 20,
}
_SITE = {
    "account": "m1234",
    "queue": "regular",
    "gpus_per_node": 8,
    "memory": 64 * 2**30,
    "exclusive": True,
    "mail": "somebody@example.org",
    "mail_events": "begin,end,fail",
}
#: What else each batch system can be told.
_MORE: dict[str, dict[str, object]] = {
    "slurm": {
        **_SITE, "qos": "debug", "reservation": "maintenance", "constraint": "gpu&hbm80g", "licenses": "cfs,scratch",
        "place": "block:cyclic", "directives": ("--comment=\"two words\"", "--gpu-bind=none"),
    },
    "pbs": {
        **_SITE, "constraint": "system=polaris", "licenses": "matlab=2", "place": "scatter",
        "filesystems": "home:eagle", "directives": ("-l ngpus=4",),
    },
    "torque": {
        **_SITE, "qos": "debug", "reservation": "R123", "constraint": "bigmem",
        "directives": ("-l prologue=/lus/p.sh",),
    },
    "cobalt": {
        "account": "m1234", "queue": "default", "constraint": "mcdram=cache:numa=quad", "filesystems": "home,eagle",
        "mail": "somebody@example.org", "directives": ("--debuglog /lus/debug",),
    },
    "gridengine": {
        **_SITE, "gpus_per_node": 32, "pe": "rr", "reservation": "12", "constraint": "arch=lx-amd64",
        "licenses": "matlab=2", "directives": ("-l scratch=10G",),
    },
    "htcondor": {"account": "group.physics", "memory": 64 * 2**30, "gpus_per_node": 8, "mail": "somebody@example.org"},
    "lsf": {
        **_SITE, "qos": "gold", "reservation": "user1#0", "constraint": "select[hname!='n7']", "licenses": "matlab",
        "directives": ("-alloc_flags smt4",),
    },
    "flux": {
        "account": "guests", "queue": "pbatch", "constraint": "-host:n7", "gpus_per_node": 8,
        "directives": ("--setattr=gpumode=CPX",),
    },
    "fork": {},
}  # fmt: skip


def cases() -> Iterator[tuple[str, str, str]]:
    """Every system, launcher and amount."""
    for system, launchers in SENSIBLE.items():
        for launcher in launchers:
            yield from ((system, launcher, amount) for amount in ("minimal", "full"))


def spec(system: str, launcher: str, amount: str) -> JobSpec:
    """The job of a case."""
    fields: dict[str, object] = {**_WHERE, "system": system, "launcher": launcher, "nodes": 2, "ranks_per_node": 4}
    if system in ("cobalt", "pbs"):  # there the time is not optional
        fields["time"] = 3600
    if amount == "full":
        fields |= {**_FULL, **_MORE[system]}
    if launcher == "wrapped":
        fields["wrapper"] = "run-on 'all nodes' --"
    if "fork" in (system, launcher):
        fields["nodes"] = 1
    return JobSpec(**fields).completed()  # type: ignore[arg-type]


def texts(system: str, launcher: str, amount: str) -> dict[str, str]:
    """The files of a case, by name."""
    job, stem = spec(system, launcher, amount), f"{system}-{launcher}-{amount}"
    made = {f"{stem}.sh": render(job)}
    if has_description(system):
        made[f"{stem}.sub"] = render_description(job, "/lus/project/runinfo/jobs/job.sh")
    return made


def write() -> None:
    """Write all of them; what no case makes any more is removed."""
    GOLDEN.mkdir(exist_ok=True)
    made = {name: text for case in cases() for name, text in texts(*case).items()}
    for name, text in made.items():
        (GOLDEN / name).write_text(text)
    for path in GOLDEN.iterdir():
        if path.name not in made:
            path.unlink()


if __name__ == "__main__":
    write()
