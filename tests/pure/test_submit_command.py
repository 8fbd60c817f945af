"""`mpiflow submit` and its sisters where a batch system does not do as it should: missing, hanging, noisy, refusing.

The batch system is a shell script for each of its commands, run for real.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from mpiflow.cli.main import main
from mpiflow.errors import BatchSystemError, ConfigurationError, SubmitException
from mpiflow.jobs import job as jobs
from mpiflow.jobs import record, submit
from mpiflow.jobs.job import Job, find
from mpiflow.jobs.spec import JobSpec
from mpiflow.jobs.states import CANCELLED, DONE, FAILED, PENDING, RUNNING, UNKNOWN
from mpiflow.jobs.status import Poller


class Cluster:
    """A Slurm of shell scripts, in a directory of its own, which is all of PATH: the machine may have a real one."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.programs = place / "bin"
        self.programs.mkdir()
        for name in ("sleep", "wc"):
            self.program(name, f'exec {shutil.which(name)} "$@"')
        self.sbatch("echo 17")
        self.squeue("echo '17 RUNNING 0 None'")
        self.program("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
        self.program("scancel", f'echo "$@" >>{place}/cancelled')

    def program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def sbatch(self, text: str) -> None:
        self.program("sbatch", f'printf "%s\\n" "$@" >{self.place}/submitted\n{text}')

    def squeue(self, text: str) -> None:
        self.program("squeue", text)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A user in front of a Slurm, with a script."""
    made = Cluster(tmp_path)
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SGE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(made.programs))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "POLLER", Poller())
    (tmp_path / "script.py").write_text("print('here')\n")
    return made


SPEC = JobSpec(script="script.py", system="slurm", time=600)
SUBMIT = ["submit", "--system", "slurm", "script.py"]


def job_of(spec: JobSpec = SPEC) -> Job:
    """A job with a poller of its own."""
    return Job(submit.submit(spec).record, Poller())


# --- submitting --------------------------------------------------------------------------------------------


def test_what_is_made_and_told(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SUBMIT, "--steps", "10"]) == 0
    out = capsys.readouterr().out
    output = cluster.place / "runinfo/jobs/script-000"
    assert out.splitlines()[0] == "submitted: job 17 (Slurm), 1 rank on 1 node"
    assert "mpiflow status 17" in out
    assert (cluster.place / "submitted").read_text().split() == ["--parsable", str(output / "job.sh")]
    assert os.access(output / "job.sh", os.X_OK)
    assert "--steps 10" in (output / "job.sh").read_text()
    assert json.loads((output / "job.json").read_text())["ids"] == ["17"]
    assert main(SUBMIT) == 0
    assert (cluster.place / "runinfo/jobs/script-001").is_dir(), "each job has its own"


def test_dry_run_makes_nothing(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--dry-run", *SUBMIT[1:]]) == 0
    assert capsys.readouterr().out.startswith("#!/bin/bash\n#SBATCH ")
    assert sorted(os.listdir(cluster.place)) == ["bin", "script.py"]


def test_files_of_the_nodes_own_need_not_be_here(cluster: Cluster) -> None:
    own = ("--setup", "/nodes/own.sh", "--venv", "/nodes/env")
    assert main(["submit", "--dry-run", "--system", "slurm", *own, "script.py"]) == 0


def test_a_cloud_has_a_document(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["submit", "--system", "kubernetes", "--container", "example.org/it:1", "--time", "90", "script.py"]
    assert main(["submit", "--dry-run", *words[1:]]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "MPIJob"
    assert main(words) == 2
    assert "Kubernetes: say --dry-run, keep what is printed in job.json" in capsys.readouterr().err


def test_the_batch_system_is_found(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "script.py"]) == 0
    assert "job 17 (Slurm)" in capsys.readouterr().out


def test_the_command_is_missing(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    (cluster.programs / "sbatch").unlink()
    assert main(SUBMIT) == 1
    words = "mpiflow submit: job script is not submitted: sbatch: there is no such program on PATH\n"
    assert capsys.readouterr().err == words


def test_the_command_hangs(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "SUBMIT_WITHIN", 1.0)
    cluster.sbatch("sleep 600")
    assert main(SUBMIT) == 1
    err = capsys.readouterr().err
    assert "has not answered within 1 s, and was killed" in err
    assert "it may have taken the job all the same: look for 'script' in the queue" in err


@pytest.mark.parametrize(
    "noise",
    [
        "echo Welcome to the machine; echo; echo '*** down on 24 December ***'; echo 17",
        "echo 17; echo 'Thank you, and see https://example.org/17'",
        "echo 'sbatch: warning 12' >&2; echo '17;cluster'",
        "printf '17\\r\\n'",
    ],
)
def test_the_command_prints_noise(cluster: Cluster, noise: str) -> None:
    cluster.sbatch(noise)
    assert submit.submit(SPEC).id == "17"


def test_the_command_names_no_job(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.sbatch("echo accepted, perhaps")
    assert main(SUBMIT) == 1
    err = capsys.readouterr().err
    assert "has named no job; it says:\naccepted, perhaps\n" in err


def test_the_job_is_rejected(cluster: Cluster) -> None:
    cluster.sbatch("echo 'sbatch: error: invalid account' >&2; echo 'sbatch: error: ask Anna' >&2; exit 3")
    with pytest.raises(SubmitException) as caught:
        submit.submit(SPEC)
    assert "Slurm refuses it" in str(caught.value)
    assert str(caught.value).endswith("code 3):\nsbatch: error: invalid account\nsbatch: error: ask Anna")
    assert (caught.value.job_name, caught.value.retcode) == ("script", 3)
    assert caught.value.stderr.startswith("sbatch: error: invalid account")
    assert record.all_records(pytest.fail) == []


def test_a_later_link_is_rejected_and_the_first_ones_are_named(cluster: Cluster) -> None:
    cluster.sbatch("case $* in *afterany*) echo too many >&2; exit 1 ;; *) echo 17 ;; esac")
    with pytest.raises(SubmitException, match=r"(?s)link 2 of 3: .*too many\nIn the queue are 17; `mpiflow cancel /"):
        submit.submit(JobSpec(script="script.py", system="slurm", time=600, chain=3))
    assert find("17").record.ids == ("17",), "and it can be ended"


def test_links_wait_for_each_other(cluster: Cluster) -> None:
    cluster.sbatch(f'echo "$*" >>{cluster.place}/all; wc -l <{cluster.place}/all')
    made = submit.submit(JobSpec(script="script.py", system="slurm", time=600, chain=3))
    assert made.record.ids == ("1", "2", "3")
    assert [line.split()[1] for line in (cluster.place / "all").read_text().splitlines()][1:] == [
        "--dependency=afterany:1",
        "--dependency=afterany:2",
    ]


def test_a_place_that_is_a_file(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    (cluster.place / "runinfo").write_text("")
    assert main(SUBMIT) == 2
    err = capsys.readouterr().err
    assert "cannot be made: " in err
    assert "name another place by --output" in err


def test_a_list_that_cannot_be_written_costs_no_job(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    (cluster.place / "state").write_text("")
    assert main(SUBMIT) == 0
    streams = capsys.readouterr()
    assert streams.out.startswith("submitted: job 17")
    assert "is submitted, but is not in the list of `mpiflow jobs`: " in streams.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which script? Say `mpiflow submit [options] script.py"),
        (["none.py"], "none.py: there is no such file (looked in "),
        (["."], ".: is a directory; a Python script is wanted"),
        (["--nodes", "0", "script.py"], "nodes is 0; legal is a whole number from 1 up"),
        (["--nodes", "-3", "script.py"], "nodes is -3; legal is a whole number from 1 up"),
        (["--nodes", "many", "script.py"], "argument --nodes/-N: is 'many'; legal is a whole number"),
        (["--time", "soon", "script.py"], "time is 'soon'; legal are 2:00:00"),
        (["--time", "0", "script.py"], "time is '0'; legal are"),
        (["--memory", "much", "script.py"], "memory is 'much'; legal is"),
        (["--system", "vms", "script.py"], "system is 'vms'; legal are slurm, pbs"),
        (["--launcher", "jsrun", "--system", "slurm", "script.py"], "sensible there are srun"),
        (["--fresh", "script.py"], "unrecognized arguments: --fresh"),
        (["--machine", "perlmuter", "script.py"], "did you mean perlmutter"),
        (["--isolation", "glass", "script.py"], "argument --isolation: invalid choice: 'glass'"),
        (["--template", "none.j2", "script.py"], "template none.j2"),
        (["--setup", "none.sh", "script.py"], "setup names none.sh: there is no such file (looked in "),
        (["--venv", "none", "script.py"], "venv names none/bin/activate: there is no such file"),
        (["--stage-env", "none.tar.gz", "script.py"], "stage_env names none.tar.gz: there is no such file"),
        (["--config", "none.toml", "script.py"], "config names none.toml: there is no such file"),
    ],
)
def test_command_lines_that_are_wrong(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    try:
        code = main(["submit", *words])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    assert code == 2
    assert said in capsys.readouterr().err
    assert not (cluster.place / "submitted").exists()
    assert not (cluster.place / "runinfo").exists()


# --- how it stands -----------------------------------------------------------------------------------------


def test_a_queue_that_forgets_finished_jobs(cluster: Cluster) -> None:
    """Then the script's own word counts; a queue that cannot be asked is no queue that has forgotten."""
    job = job_of()
    assert job.status().state == RUNNING
    cluster.squeue("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    forgotten = Job(job.record, Poller())
    assert forgotten.status()[:2] == (UNKNOWN, None)
    Path(job.output, "ended").write_text("17 1 85\n17 2 3\n")
    assert Job(job.record, Poller()).status()[:3] == (FAILED, 3, "as its script has left word")
    cluster.squeue("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    silent = Job(job.record, Poller()).status()
    assert silent == (UNKNOWN, None, "squeue: slurm_load_jobs error: Unable to contact slurm controller")


def test_a_member_of_an_array_that_failed_and_is_forgotten(cluster: Cluster) -> None:
    """Queues forget the members of an array one by one, each some minutes after its end."""
    job = job_of(JobSpec(script="script.py", system="slurm", time=600, array="1-2"))
    cluster.squeue("echo '17_2 COMPLETED 0 None'")
    Path(job.output, "ended").write_text("17_1 1 85\n17_1 2 3\n17_2 1 0\n")
    assert Job(job.record, Poller()).status() == (FAILED, 3, "as a script of it has left word")
    Path(job.output, "ended").write_text("17_1 1 85\n17_1 2 0\n17_2 1 0\n")
    assert Job(job.record, Poller()).status()[:2] == (DONE, 0)
    Path(job.output, "ended").write_text("17_1 1 3\n17_2 1 85\n")
    assert Job(job.record, Poller()).status()[:2] == (FAILED, 3), "85 is of one that goes on"
    cluster.squeue("echo '17_2 RUNNING 0 None'")
    assert Job(job.record, Poller()).status().state == RUNNING


def test_wait_for_a_job_that_everybody_has_forgotten(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "GONE_AFTER", 0.5)
    cluster.squeue("true")
    heard = []
    state = job_of().wait(tell=heard.append)
    assert state.state == UNKNOWN
    assert "it has left the queue; sacct: Slurm accounting storage is disabled" in state.words
    assert heard == [state], "each state is told once"


def test_wait_no_longer_than_told(cluster: Cluster) -> None:
    assert job_of().wait(timeout=0.2).state == RUNNING


def test_wait_shows_what_comes_while_it_waits(cluster: Cluster) -> None:
    """Every second, though the batch system is asked less and less often."""
    cluster.squeue(f"echo >>{cluster.place}/asked; echo 17 RUNNING 0 None")
    called: list[float] = []
    job_of().wait(timeout=5.5, between=lambda: called.append(0.0))
    asked = len((cluster.place / "asked").read_text())
    assert len(called) > asked


def test_wait_sees_every_state(cluster: Cluster) -> None:
    states = ["PENDING", "RUNNING", "COMPLETED"]
    counts = cluster.place / "count"
    cluster.squeue(f"echo >>{counts}; states=({' '.join(states)}); echo 17 ${{states[$(wc -l <{counts}) - 1]}} 0 None")
    heard: list[str] = []
    assert job_of().wait(tell=lambda state: heard.append(state.state)).exit_code == 0
    assert heard == [PENDING, RUNNING, DONE]


def test_a_job_that_goes_on_as_another_job_is_one(cluster: Cluster) -> None:
    """Where the script submits its own successor: the last one says how it has ended, and its id finds the first."""
    job = job_of()
    Path(job.output, "ended").write_text("17 1 85\n")
    Path(job.output, "successors").write_text("18\n")
    cluster.squeue("echo '17 FAILED 21760 None'; echo '18 RUNNING 0 None'")
    assert Job(job.record, Poller()).status().state == RUNNING
    cluster.squeue("echo '17 FAILED 21760 None'; echo '18 COMPLETED 0 None'")
    assert Job(job.record, Poller()).status()[:2] == (DONE, 0)
    cluster.squeue("echo '17 FAILED 21760 None'; echo '18 CANCELLED 0 None'")
    assert Job(job.record, Poller()).status().state == CANCELLED
    assert find("18").id == "17"


def test_commands_about_it(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SUBMIT) == 0
    output = cluster.place / "runinfo/jobs/script-000"
    (output / "script.17.1.out").write_text("one\ntwo\n")
    (output / "script.17.1.err").write_text("mpiflow: 4 of 10 tasks done\nnoise\n")
    capsys.readouterr()
    assert main(["status", "17"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "job 17 (Slurm): running"
    assert said[-1] == "  last word: mpiflow: 4 of 10 tasks done"
    assert main(["logs", str(output)]) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == ["mpiflow: 4 of 10 tasks done", "noise", "one", "two"]
    assert main(["jobs"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["17", "slurm"]
    assert main(["cancel", "17"]) == 0
    assert (cluster.place / "cancelled").read_text() == "17\n"


def test_cancel_is_refused(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.program("scancel", "echo 'scancel: error: Access/permission denied' >&2; exit 1")
    job = job_of()
    with pytest.raises(BatchSystemError, match="scancel: scancel: error: Access/permission denied"):
        job.cancel()
    assert main(["cancel", "17"]) == 1
    assert "job 17 is not ended: scancel: scancel: error: Access/permission denied" in capsys.readouterr().err


def test_links_are_ended_the_last_one_first(cluster: Cluster) -> None:
    cluster.sbatch(f"echo >>{cluster.place}/all; wc -l <{cluster.place}/all")
    cluster.squeue("echo '1 COMPLETED 0 None'; echo '2 RUNNING 0 None'; echo '3 PENDING 0 Dependency'")
    assert job_of(JobSpec(script="script.py", system="slurm", time=600, chain=3)).cancel() == 2
    assert (cluster.place / "cancelled").read_text().split() == ["3", "2"]


@pytest.mark.parametrize("text", ["", "no/where", "nothing", "-x"])
def test_what_names_no_job(cluster: Cluster, text: str) -> None:
    with pytest.raises(ConfigurationError, match="neither the id of a job nor the directory of one"):
        find(text, "slurm")


def test_no_job_at_all(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs"]) == 0
    assert main(["status"]) == 0
    assert main(["logs"]) == 2
    assert "which job? None was submitted from this account" in capsys.readouterr().err


#: What may be in a record, and what is said of it. A text of no JSON is the whole record, the others change its fields.
DAMAGES = [
    ("", "Expecting value: line 1 column 1 (char 0)"),
    ('{"system": "slu', "Unterminated string starting at: line 1 column 12 (char 11)"),
    ("[1, 2]", "it holds a list, and no object"),
    ("\x00\x00\x00\x00", "Expecting value: line 1 column 1 (char 0)"),
    ({"array": None}, "array is None"),
    ({"ids": "17"}, "ids is '17'"),
    ({"ids": []}, "ids is []"),
    ({"ids": [17]}, "ids is [17]"),
    ({"system": "vms"}, "system is 'vms'"),
    ({"output": 3}, "output is 3"),
    ({"submitted": "today"}, "submitted is 'today'"),
    ({"submitted": float("inf")}, "submitted is inf"),
    ({"name": ...}, "name is missing"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_a_damaged_record_is_one_line_and_the_others_are_shown(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], damage: str | dict[str, object], words: str
) -> None:
    assert main(SUBMIT) == 0
    cluster.sbatch("echo 18")
    assert main(SUBMIT) == 0
    path = cluster.place / "runinfo/jobs/script-001/job.json"
    if isinstance(damage, dict):
        changed = json.loads(path.read_text()) | damage
        damage = json.dumps({key: value for key, value in changed.items() if value is not ...})
    path.write_text(damage)
    said = f"{path} is damaged, or no record of a job: {words}; `mpiflow status --system NAME ID` asks about the job"
    capsys.readouterr()
    for command in ("jobs", "status"):
        assert main([command]) == 1
        streams = capsys.readouterr()
        assert streams.out.split()[:2] == ["17", "slurm"]
        assert (streams.err.count("\n"), said in streams.err) == (1, True), streams.err
    assert main(["status", str(path.parent), "17"]) == 2
    streams = capsys.readouterr()
    assert streams.out.startswith("job 17 (Slurm): running\n")
    assert f"mpiflow status: {said}" in streams.err
    assert main(["cancel", "17"]) == 0, "what is sound is not hindered"
    assert capsys.readouterr().err == ""
    assert main(["logs"]) == 0, "the last job that is known of"
    assert said in capsys.readouterr().err
    assert main(["status", "18"]) == 1, "it may be the damaged one"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("entry", [b"", b"\n", b"no\0where\n"])
def test_a_damaged_entry_of_the_list(cluster: Cluster, capsys: pytest.CaptureFixture[str], entry: bytes) -> None:
    assert main(SUBMIT) == 0
    shutil.copy(cluster.place / "runinfo/jobs/script-000/job.json", cluster.place)  # "" is no name of a directory
    (record.list_directory() / "99991231T000000-slurm-18").write_bytes(entry)
    (record.list_directory() / "99991231T000000-slurm-19").mkdir()
    capsys.readouterr()
    assert main(["jobs"]) == 1
    streams = capsys.readouterr()
    assert streams.out.count("\n") == 1
    assert streams.out.split()[:2] == ["17", "slurm"]
    assert "slurm-19 cannot be read: Is a directory; without this file the job is in no list" in streams.err
    assert streams.err.count("\n") == 1, "one that names no directory is one whose directory is gone"


def test_a_record_that_cannot_be_read(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SUBMIT) == 0
    path = cluster.place / "runinfo/jobs/script-000/job.json"
    path.unlink()
    path.mkdir()
    assert main(["jobs"]) == 1
    assert f"{path} cannot be read: Is a directory; " in capsys.readouterr().err


def test_a_record_of_a_later_version(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SUBMIT) == 0
    path = cluster.place / "runinfo/jobs/script-000/job.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "blue"}))
    assert main(["status", "17"]) == 0


def test_a_directory_whose_name_is_no_text(cluster: Cluster) -> None:
    place = os.fsdecode(os.fsencode(cluster.place) + b"/caf\xe9")
    os.mkdir(place)
    made = dataclasses.replace(job_of().record, output=place, ids=("18",))
    assert record.write(made) == ""
    assert record.find("18") == made


def test_no_test_writes_into_the_list_of_the_person_who_runs_it() -> None:
    assert not record.list_directory().is_relative_to(Path.home() / ".local")


def test_the_list_forgets_jobs_whose_directory_is_gone(cluster: Cluster) -> None:
    job = job_of()
    assert [one.ids for one in record.all_records(pytest.fail)] == [("17",)]
    os.rename(job.output, f"{job.output}.old")
    assert record.all_records(pytest.fail) == []


def test_a_run_directory(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    run = cluster.place / "runinfo/000"
    (run / "requests").mkdir(parents=True)
    (run / "mpiflow.log").write_text("first\nended after 3.0 s\n")
    assert main(["status", str(run)]) == 0
    assert "not running; the last line of its log: ended after 3.0 s" in capsys.readouterr().out
    (run / "requests/open").write_text("node1 4711\n")
    assert main(["status", str(run)]) == 0
    assert "running, rank 0 is " in capsys.readouterr().out
    assert main(["logs", "-n", "1", str(run)]) == 0
    assert capsys.readouterr().out == "ended after 3.0 s\n"


def test_python_of_the_nodes_is_this_one(cluster: Cluster) -> None:
    assert f"python={sys.executable}" in submit.dry_run(SPEC)
