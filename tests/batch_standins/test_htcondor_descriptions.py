"""Submit descriptions, read by HTCondor's own parser (PyPI ``htcondor``): it makes of each the job that a pool gets.

The parser takes a misspelt command for a macro of the user's and says nothing, so the tests look at the job itself.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from mpiflow.errors import ConfigurationError
from mpiflow.jobs.launchers import SENSIBLE
from mpiflow.jobs.render import render, render_description
from mpiflow.jobs.spec import JobSpec


@pytest.fixture(scope="module")
def htcondor() -> Any:
    """The parser; none of a site's settings."""
    os.environ.setdefault("CONDOR_CONFIG", "/dev/null")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("htcondor", reason="PyPI htcondor (23.10) is not installed")
    if int(module.version().split()[1].split(".")[0]) >= 25:
        pytest.skip("htcondor 25 splits descriptions into lines and does not read them")
    return module


def job(htcondor: Any, place: Path, **fields: Any) -> dict[str, Any]:
    """The job that comes of a description."""
    spec = JobSpec(script="script.py", system="htcondor", **{"directory": str(place), **fields}).completed()
    script = place / "job.sh"
    script.write_text(render(spec))
    script.chmod(0o755)
    jobs = list(htcondor.Submit(render_description(spec, str(script))).jobs(clusterid=7))
    assert len(jobs) == 1
    return {
        name.lower(): jobs[0].lookup(name) if name.lower() == "requirements" else jobs[0].eval(name) for name in jobs[0]
    }


def test_one_machine(htcondor: Any, tmp_path: Path) -> None:
    ad = job(htcondor, tmp_path, ranks_per_node=4, cores_per_rank=2)
    assert (ad["jobuniverse"], ad["requestcpus"], ad["cmd"]) == (5, 8, f"{tmp_path}/job.sh")
    assert (ad["successcheckpointexitcode"], ad["transferexecutable"], ad["iwd"]) == (85, False, str(tmp_path))
    assert (ad["environment"], ad["jobnotification"]) == ("MPIFLOW_JOB=7.0", 0)
    assert ad["out"] == ad["err"] == f"{tmp_path}/runinfo/jobs/script.7.log"
    assert "allowedexecuteduration" not in ad


def test_several_machines(htcondor: Any, tmp_path: Path) -> None:
    ad = job(htcondor, tmp_path, nodes=3, ranks_per_node=4, launcher="hydra")
    assert (ad["jobuniverse"], ad["minhosts"], ad["maxhosts"], ad["requestcpus"]) == (11, 3, 3, 4)
    assert ad["out"].endswith("script.7.#pArAlLeLnOdE#.log")
    assert "successcheckpointexitcode" not in ad  # of the vanilla universe only


@pytest.mark.parametrize(("code", "removed"), [(0, True), (85, False), (86, True), (1, True)])
def test_several_machines_leave_the_queue_but_for_85(htcondor: Any, tmp_path: Path, code: int, removed: bool) -> None:
    import classad

    spec = JobSpec(
        script="script.py", system="htcondor", nodes=2, launcher="hydra", directory=str(tmp_path)
    ).completed()
    (tmp_path / "job.sh").write_text("#!/bin/bash\n")
    (tmp_path / "job.sh").chmod(0o755)
    (ad,) = htcondor.Submit(render_description(spec, str(tmp_path / "job.sh"))).jobs(clusterid=7)
    ended = classad.ClassAd({"ExitCode": code, "ExitBySignal": False, "OnExitRemove": ad["OnExitRemove"]})
    assert ended.eval("OnExitRemove") is removed


def test_everything(htcondor: Any, tmp_path: Path) -> None:
    ad = job(
        htcondor,
        tmp_path,
        ranks_per_node=4,
        time=7200,
        warn_before=300,
        account="group_physics",
        constraint="Memory > 4000",
        licenses="matlab:2",
        gpus_per_node=2,
        memory=2**34,
        mail="user@site.org",
        mail_events="end",
        directives=('+ProjectName = "x y"',),
    )
    assert (ad["allowedexecuteduration"], ad["jobmaxvacatetime"]) == (7200, 300)
    assert (ad["requestmemory"], ad["requestgpus"]) == (16384, 2)
    assert (ad["acctgroup"], ad["concurrencylimits"]) == ("group_physics", "matlab:2")
    assert (ad["notifyuser"], ad["jobnotification"]) == ("user@site.org", 2)
    assert (ad["killsig"], ad["removekillsig"], ad["projectname"]) == ("SIGUSR1", "SIGTERM", "x y")
    assert "Memory > 4000" in str(ad["requirements"])


def test_paths_are_kept(htcondor: Any, tmp_path: Path) -> None:
    place = tmp_path / """it's "a\\ $(HOME)" $b é"""
    place.mkdir()
    ad = job(htcondor, place)
    assert (ad["cmd"], ad["iwd"]) == (f"{place}/job.sh", str(place))


@pytest.mark.parametrize("launcher", SENSIBLE["htcondor"])
def test_every_launcher(htcondor: Any, tmp_path: Path, launcher: str) -> None:
    assert (
        job(htcondor, tmp_path, launcher=launcher, wrapper="run" if launcher == "wrapped" else "")["jobuniverse"] == 5
    )


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"nodes": 2, "launcher": "fork"}, "nodes is 2"),
        ({"queue": "long"}, "queue is 'long': HTCondor has none"),
        ({"exclusive": True}, "exclusive is True"),
        ({"array": "1-3"}, "array is '1-3'"),
        ({"place": "scatter"}, "say it as the constraint"),
        ({"account": "a b"}, "account is 'a b'"),
        ({"constraint": "a\nqueue 9"}, "constraint is 'a\\nqueue 9'"),
        ({"directives": ("queue 9\nqueue",)}, "directive"),
    ],
)
def test_what_it_has_no_word_for(tmp_path: Path, fields: dict[str, Any], complaint: str) -> None:
    def described() -> str:
        spec = JobSpec(script="script.py", system="htcondor", directory=str(tmp_path), **fields).completed()
        return render(spec) + render_description(spec, "job.sh")

    with pytest.raises(ConfigurationError) as refused:
        described()
    assert complaint in str(refused.value)
