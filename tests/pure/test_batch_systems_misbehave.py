"""Every batch system where it does not do as it should: missing, noisy, refusing, out of reach, forgetful.

Its commands are shell scripts that say what the real ones say, by their manuals and sources, and they are all of PATH.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from mpiflow.cli.main import main
from mpiflow.errors import BatchSystemError, SubmitException
from mpiflow.jobs import job as jobs
from mpiflow.jobs import status as looks
from mpiflow.jobs import submit
from mpiflow.jobs.job import Job, find
from mpiflow.jobs.spec import JobSpec
from mpiflow.jobs.states import DONE, RUNNING, UNKNOWN
from mpiflow.jobs.status import Poller


class Answer(NamedTuple):
    """What a command says: on standard output, on standard error, and its code."""

    out: str = ""
    err: str = ""
    code: int = 0


class Says(NamedTuple):
    """A batch system.

    Attributes
    ----------
    commands : tuple of str
        The one that submits, that shows the queue, that shows what has left it ("" where none does), that ends a job.
    accepts : str
        What is said of a job that was taken.
    refuses : Answer
        What is said of one that was not.
    job : str
        Its id.
    runs, unknown, down : Answer
        What is said of a job that runs, of one that is not known, and where the server does not answer.
    forgot : Answer
        What is said by the command for jobs that have left the queue.
    foreign : Answer
        What is said when the job of another user is to be ended.
    """

    commands: tuple[str, str, str, str]
    accepts: str
    refuses: Answer
    job: str
    runs: Answer
    unknown: Answer
    down: Answer
    foreign: Answer
    forgot: Answer = Answer()


def _qstat(state: str) -> str:
    return json.dumps({"pbs_server": "pbs01", "Jobs": {"17.pbs01": {"job_state": state}}})


_XML = "<?xml version='1.0'?>\n<job_info><queue_info>{}</queue_info></job_info>"
_JOB_LIST = "<job_list state='running'><JB_job_number>17</JB_job_number><state>r</state></job_list>"
SYSTEMS = {
    "slurm": Says(
        ("sbatch", "squeue", "sacct", "scancel"),
        "17",
        Answer("", "sbatch: error: Batch job submission failed: Invalid account or account/partition combination", 1),
        "17",
        Answer("17 RUNNING 0 None"),
        Answer("", "slurm_load_jobs error: Invalid job id specified", 1),
        Answer("", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)", 1),
        Answer("", "scancel: error: Kill job error on job id 17: Access/permission denied", 1),
    ),
    "pbs": Says(
        ("qsub", "qstat", "", "qdel"),
        "17.pbs01",
        Answer("", "qsub: Unknown queue", 170),
        "17.pbs01",
        Answer(_qstat("R")),
        Answer("", "qstat: Unknown Job Id 17.pbs01", 153),
        Answer("", "Connection refused\nqstat: cannot connect to server pbs01 (errno=111)", 111),
        Answer("", "qdel: Unauthorized Request 17.pbs01", 159),
    ),
    "torque": Says(
        ("qsub", "qstat", "", "qdel"),
        "17.srv",
        Answer("", "qsub: submit error (Unauthorized Request MSG=group ACL is not satisfied)", 178),
        "17.srv",
        Answer("Job Id: 17.srv\n    Job_Name = script\n    job_state = R\n"),
        Answer("", "qstat: Unknown Job Id Error 17.srv", 153),
        Answer("", "qstat: cannot connect to server srv (errno=15096) Error getting connection to socket", 138),
        Answer("", "qdel: Unauthorized Request  MSG=operation not permitted 17.srv", 159),
    ),
    "cobalt": Says(
        ("qsub", "qstat", "", "qdel"),
        "17",
        Answer("", "No Partition selected: project is not valid", 1),
        "17",
        Answer("JobID  State\n===============\n17     running\n"),
        Answer(),
        Answer("", "Failed to connect to component queue-manager", 1),
        Answer("", "qdel: you are not the owner of job 17", 1),
    ),
    "gridengine": Says(
        ("qsub", "qstat", "qacct", "qdel"),
        "17",
        Answer("", 'Unable to run job: job rejected: the requested parallel environment "mpi" does not exist.', 1),
        "17",
        Answer(_XML.format(_JOB_LIST)),
        Answer(_XML.format("")),
        Answer("", "error: commlib error: got select error (Connection refused)\nerror: unable to send message", 1),
        Answer('alice - you do not have the necessary privileges to delete the job "17"', "", 1),
        Answer("", "error: job id 17 not found", 1),
    ),
    "htcondor": Says(
        ("condor_submit", "condor_q", "condor_history", "condor_rm"),
        "17.0 - 17.0",
        Answer("", "ERROR: Failed to connect to local queue manager\nAUTHENTICATE:1003:Failed to authenticate", 1),
        "17",
        Answer("17 0 2 undefined undefined undefined undefined"),
        Answer(),
        Answer("", "\n-- Failed to fetch ads from: <10.0.0.1:9618> : submit.site.org\nSECMAN:2007:Failed to end", 1),
        Answer("", "Couldn't find/remove all jobs in cluster 17", 1),
    ),
    "lsf": Says(
        ("bsub", "bjobs", "", "bkill"),
        "Job <17> is submitted to default queue <normal>.",
        Answer("", "debug: User cannot use the queue. Job not submitted.", 255),
        "17",
        Answer("17|RUN|-|-"),
        Answer("", "Job <17> is not found", 255),
        Answer("", "Failed in an LSF library call: Host is not found in LSF. Job status is not known", 255),
        Answer("", "Job <17>: Operation not permitted", 255),
    ),
    "flux": Says(
        ("flux", "flux", "", "flux"),
        "ƒAbC",
        Answer("", "flux-batch: ERROR: [Errno 22] unsatisfiable request", 1),
        "ƒAbC",
        Answer("ƒAbC|4711|RUN||"),
        Answer("", "flux-jobs: ERROR: JobID ƒAbC unknown", 1),
        Answer("", "flux-jobs: ERROR: Unable to connect to Flux: broker socket /run/flux/local was not found", 1),
        Answer("", "flux-cancel: ERROR: ƒAbC: guests may only raise exceptions on their own jobs", 1),
    ),
}


class Machine:
    """A machine with one batch system, and a user with a script."""

    def __init__(self, place: Path, system: str) -> None:
        self.place, self.system, self.says = place, system, SYSTEMS[system]
        self.programs = place / "bin"
        self.programs.mkdir()
        for name in ("cat", "sleep"):
            (self.programs / name).symlink_to(str(shutil.which(name)))
        self.answers: dict[str, Answer] = {}
        submits, queue, history, cancel = self.says.commands
        self.answer(submits, Answer(self.says.accepts), "batch")
        self.answer(queue, self.says.runs, "jobs")
        self.answer(history, self.says.forgot, "")
        self.answer(cancel, Answer(), "cancel")

    def answer(self, name: str, says: Answer, verb: str) -> None:
        """What a command says from now on; flux has one for all, with verbs."""
        if not name:
            return
        text = f"printf '%s\\n' {shlex.quote(says.out)}\n" if says.out else ""
        text += f"printf '%s\\n' {shlex.quote(says.err)} >&2\n" if says.err else ""
        self.answers[f"{name} {verb}" if name == "flux" else name] = Answer(f"{text}exit {says.code}\n")
        if name == "flux":
            parts = [f"{one.split()[1]})\n{what.out};;\n" for one, what in self.answers.items()]
            self.program(name, f"case $1 in\n{''.join(parts)}esac\n")
        else:
            self.program(name, f"{text}exit {says.code}\n")

    def program(self, name: str, text: str) -> None:
        """A command, as a script of bash."""
        (self.programs / name).write_text(f"#!/bin/bash\n{text}")
        (self.programs / name).chmod(0o755)

    def submits(self, says: Answer) -> None:
        """What is said when a job is submitted."""
        self.answer(self.says.commands[0], says, "batch")

    def queue(self, says: Answer) -> None:
        """What is said of the jobs in the queue."""
        self.answer(self.says.commands[1], says, "jobs")

    def submitted(self) -> Job:
        """A job in its hands."""
        return Job(submit.submit(self.spec).record, Poller())

    @property
    def spec(self) -> JobSpec:
        """A small job."""
        return JobSpec(script="script.py", system=self.system, time=600)


@pytest.fixture(params=sorted(SYSTEMS))
def machine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """One machine for each batch system."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SGE_", "PBS_", "LSF_", "FLUX_"))]:
        monkeypatch.delenv(name)
    made = Machine(tmp_path, request.param)
    monkeypatch.setenv("PATH", str(made.programs))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "POLLER", Poller())
    (tmp_path / "script.py").write_text("print('here')\n")
    return made


def test_its_command_is_missing(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    (machine.programs / machine.says.commands[0]).unlink()
    assert main(["submit", "--system", machine.system, "--time", "10m", "script.py"]) == 1
    words = f"job script is not submitted: {machine.says.commands[0]}: there is no such program on PATH\n"
    assert capsys.readouterr().err == f"mpiflow submit: {words}"


def test_its_command_hangs(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "SUBMIT_WITHIN", 0.5)
    machine.program(machine.says.commands[0], "sleep 600\n")
    with pytest.raises(SubmitException, match=r"has not answered within 0.5 s, and was killed; it may have"):
        submit.submit(machine.spec)


def test_it_prints_noise(machine: Machine) -> None:
    noise = "Welcome!\n\n*** 2 file systems are down on 24 December ***\n"
    machine.submits(Answer(f"{noise}{machine.says.accepts}", "warning: module 3.1 is old"))
    assert submit.submit(machine.spec).id == machine.says.job
    machine.submits(Answer(f"{machine.says.accepts}\nThank you for 17 years, see https://site.org/17"))
    if machine.system != "flux":  # its ids are any word, so it must be the last one
        assert submit.submit(machine.spec).id == machine.says.job


def test_it_names_no_job(machine: Machine) -> None:
    machine.submits(Answer("your job has been accepted, perhaps"))
    with pytest.raises(SubmitException, match=r"has named no job; it says:\nyour job has been accepted, perhaps"):
        submit.submit(machine.spec)


def test_it_refuses_the_job(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.submits(machine.says.refuses)
    assert main(["submit", "--system", machine.system, "--time", "10m", "script.py"]) == 1
    err = capsys.readouterr().err
    assert f" refuses it (`{machine.says.commands[0]}" in err
    assert f"code {machine.says.refuses.code}):\n{machine.says.refuses.err}\n" in err
    assert main(["jobs"]) == 0
    assert "none was submitted" in capsys.readouterr().err


def test_a_job_that_runs(machine: Machine) -> None:
    assert machine.submitted().status().state == RUNNING
    assert find(machine.says.job).system == machine.system


def test_it_forgets_jobs_that_have_ended(machine: Machine) -> None:
    """It knows nothing of the job: its script has left word, or nobody knows."""
    job = machine.submitted()
    machine.queue(machine.says.unknown)
    state = Job(job.record, Poller()).status()
    assert state == (UNKNOWN, None, "the batch system does not know it (any more)")
    number = {"htcondor": "17.0", "flux": "ƒAbC"}.get(machine.system, "17")
    Path(job.output, "ended").write_text(f"{number} 1 85\n{number} 2 0\n")
    assert Job(job.record, Poller()).status() == (DONE, 0, "as its script has left word")


def test_it_cannot_be_asked(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """Then nothing follows from its silence: a job is not taken for one that has ended, and its words are shown."""
    job = machine.submitted()
    machine.queue(machine.says.down)
    Path(job.output, "ended").write_text("17 1 0\n")
    state = Job(job.record, Poller()).status()
    first = machine.says.down.err.strip().splitlines()[0]
    assert state == (UNKNOWN, None, f"{machine.says.commands[1]}: {first}")
    assert main(["status", machine.says.job]) == 1
    assert f"it is not known how it stands ({machine.says.commands[1]}: {first})" in capsys.readouterr().out


def test_its_queue_hangs(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    job = machine.submitted()
    monkeypatch.setattr(looks, "ANSWER_WITHIN", 0.5)
    machine.program(machine.says.commands[1], "sleep 600\n")
    state = Job(job.record, Poller()).status()
    assert state.state == UNKNOWN
    assert "has not answered within 0.5 s, and was killed" in state.words


def test_the_job_of_another_user(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """An id that was not submitted here: how it stands is known, and its end is refused in the batch system's words."""
    machine.answer(machine.says.commands[3], machine.says.foreign, "cancel")
    assert main(["status", "--system", machine.system, machine.says.job]) == 0
    assert ": running" in capsys.readouterr().out
    assert main(["cancel", "--system", machine.system, machine.says.job]) == 1
    foreign = machine.says.foreign
    assert f"job {machine.says.job} is not ended: {machine.says.commands[3]}: {foreign.err or foreign.out}" in (
        capsys.readouterr().err
    )


def test_its_cancel_hangs(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    job = machine.submitted()
    assert job.status().state == RUNNING
    monkeypatch.setattr(jobs, "CANCEL_WITHIN", 0.5)
    machine.program(machine.says.commands[3], "sleep 600\n")
    with pytest.raises(BatchSystemError, match=r"has not answered within 0.5 s, and was killed"):
        job.cancel()
