"""What batch systems answer, read: Slurm and Grid Engine as real ones have said it, others by their manuals."""

from __future__ import annotations

import pytest

from mpiflow.jobs.states import (
    CANCELLED,
    DONE,
    FAILED,
    PENDING,
    QUESTIONS,
    RUNNING,
    UNKNOWN,
    JobState,
    in_words,
    parse_bjobs,
    parse_cobalt,
    parse_condor_history,
    parse_condor_q,
    parse_flux,
    parse_grid_engine,
    parse_pbs,
    parse_qacct,
    parse_sacct,
    parse_squeue,
    parse_torque,
    together,
)
from mpiflow.jobs.systems import SYSTEMS

SQUEUE = """\
slurm_load_jobs: warning of the site
12                                      RUNNING                 0           None
13                                      PENDING                 0           Resources
14                                      COMPLETED               0           None
15                                      FAILED                  1792        NonZeroExitCode
16                                      CANCELLED               15          None
17                                      TIMEOUT                 15          TimeLimit
18_0                                    COMPLETED               0           None
18_1                                    FAILED                  768         NonZeroExitCode
19_0                                    COMPLETED               0           None
19_[1-4]                                PENDING                 0           JobArrayTaskLimit
20                                      PREEMPTED               0           Reason with several words
21                                      NEW_IN_THE_NEXT_VERSION 0           None
"""


@pytest.mark.parametrize(
    ("job", "state", "code"),
    [
        ("12", RUNNING, None),
        ("13", PENDING, None),
        ("14", DONE, 0),
        ("15", FAILED, 7),
        ("16", CANCELLED, 143),
        ("17", FAILED, 143),
        ("18", FAILED, 3),
        ("19", PENDING, None),
        ("20", FAILED, 0),
        ("21", UNKNOWN, None),
    ],
)
def test_squeue(job: str, state: str, code: int | None) -> None:
    assert parse_squeue(SQUEUE)[job][:2] == (state, code)


def test_squeue_says_why_a_job_waits() -> None:
    assert in_words(parse_squeue(SQUEUE)["13"]) == "pending (PENDING, Resources)"


def test_sacct() -> None:
    found = parse_sacct("12|CANCELLED by 1000|0:15\n13|FAILED|7:0\n14|OUT_OF_ME+|0:125\n15_1|COMPLETED|0:0\nnoise\n")
    assert {job: state[:2] for job, state in found.items()} == {
        "12": (CANCELLED, 143),
        "13": (FAILED, 7),
        "14": (UNKNOWN, None),
        "15": (DONE, 0),
    }


QSTAT = """\
<?xml version='1.0'?>
<job_info  xmlns:xsd="http://arc.liv.ac.uk/repos/darcs/sge/source/dist/util/resources/schemas/qstat/qstat.xsd">
  <queue_info>
    <job_list state="running"><JB_job_number>3</JB_job_number><JB_name>a &amp; b</JB_name><state>r</state></job_list>
    <job_list state="running"><JB_job_number>4</JB_job_number><state>Rr</state><tasks>1</tasks></job_list>
  </queue_info>
  <job_info>
    <job_list state="pending"><JB_job_number>4</JB_job_number><state>qw</state><tasks>2-9:1</tasks></job_list>
    <job_list state="pending"><JB_job_number>5</JB_job_number><state>hqw</state></job_list>
    <job_list state="pending"><JB_job_number>6</JB_job_number><state>Eqw</state></job_list>
    <job_list state="pending"><JB_job_number>7</JB_job_number><state>dr</state></job_list>
    <job_list state="pending"><JB_job_number>8</JB_job_number><state>Rq</state></job_list>
  </job_info>
</job_info>
"""


def test_qstat_of_grid_engine() -> None:
    found = parse_grid_engine(QSTAT)
    assert {job: state.state for job, state in found.items()} == {
        "3": RUNNING, "4": RUNNING, "5": PENDING, "6": PENDING, "7": RUNNING, "8": PENDING,
    }  # fmt: skip
    assert in_words(found["6"]) == "pending (Eqw: it cannot start; `qstat -j 6` says why)"


@pytest.mark.parametrize("text", ["", "error: unable to contact qmaster", "<?xml version='1.0'?><job_info>"])
def test_no_xml_is_no_state(text: str) -> None:
    assert parse_grid_engine(text) == {}


QACCT = """\
==============================================================
jobname      script
jobnumber    {job}
taskid       undefined
failed       {failed}
deleted_by   NONE
exit_status  {code}
"""


def test_qacct_of_a_job_that_ran_again_the_last_counts() -> None:
    text = QACCT.format(job=5, failed="25  : rescheduling", code=99) + QACCT.format(job=5, failed=0, code=0)
    assert parse_qacct(text) == {"5": JobState(DONE, 0)}


def test_qacct_of_failures() -> None:
    assert parse_qacct(QACCT.format(job=5, failed=0, code=3)) == {"5": JobState(FAILED, 3)}
    killed = parse_qacct(QACCT.format(job=5, failed="100 : assumedly after job", code=137))
    assert killed == {"5": JobState(FAILED, 137, "100 : assumedly after job")}
    deleted = QACCT.format(job=5, failed="100 : assumedly after job", code=137).replace("NONE", "anna@node1")
    assert parse_qacct(deleted)["5"].state == CANCELLED
    assert parse_qacct("error: job id 5 not found") == {}


PBS = """\
Warning of the site
{"timestamp": 1, "pbs_version": "23.06", "Jobs": {
  "1.n1": {"job_state": "R", "Job_Name": "a"},
  "2.n1": {"job_state": "F", "Exit_status": 0},
  "3.n1": {"job_state": "F", "Exit_status": 271},
  "4.n1": {"job_state": "F", "Exit_status": -29},
  "5.n1": {"job_state": "F"},
  "6.n1": {"job_state": "F", "Exit_status": 85},
  "7[].n1": {"job_state": "B"},
  "8.n1": {"job_state": "F", "Exit_status": 265}
}}
"""


def test_qstat_of_pbs() -> None:
    found = parse_pbs(PBS)
    assert {job: found[job][:2] for job in ("1", "2", "3.n1", "4", "5", "6", "7[]", "8")} == {
        "1": (RUNNING, None), "2": (DONE, 0), "3.n1": (CANCELLED, 143), "4": (FAILED, -29), "5": (CANCELLED, None),
        "6": (FAILED, 85), "7[]": (RUNNING, None), "8": (FAILED, 137),
    }  # fmt: skip
    assert in_words(found["4"]) == "failed with code -29 (over its walltime)"


def test_qstat_of_pbs_where_its_json_is_none() -> None:
    """Servers have quoted what users wrote into their jobs' names and arguments wrongly."""
    text = '{"Jobs":{\n "1.n1":{\n "Job_Name":"a "quoted" name",\n "job_state":"F",\n "Exit_status":3\n }}}'
    assert parse_pbs(text)["1"][:2] == (FAILED, 3)


def test_qstat_of_torque() -> None:
    text = "Job Id: 7.host\n    Job_Name = a\n    job_state = C\n    exit_status = 3\n\n"
    text += "Job Id: 8.host\n    job_state = Q\n"
    found = parse_torque(text)
    assert (found["7.host"][:2], found["8"][:2]) == ((FAILED, 3), (PENDING, None))


def test_qstat_of_cobalt() -> None:
    text = "JobID  State\n===============\n123    running\n124    queued\n125    user_hold\n"
    assert {job: state.state for job, state in parse_cobalt(text).items()} == {
        "123": RUNNING, "124": PENDING, "125": PENDING,
    }  # fmt: skip


def test_bjobs() -> None:
    text = (
        "1|RUN|-|-\n2|DONE|-|-\n3|EXIT|7|-\n4|EXIT|143|TERM_OWNER: job killed by owner\n5[1]|DONE|-|-\n5[2]|PEND|-|-\n"
    )
    assert {job: state[:2] for job, state in parse_bjobs(text).items()} == {
        "1": (RUNNING, None), "2": (DONE, 0), "3": (FAILED, 7), "4": (CANCELLED, 143), "5": (PENDING, None),
    }  # fmt: skip


def test_flux_jobs() -> None:
    text = "ƒ2|123|RUN||\nƒ3|124|INACTIVE|COMPLETED|0\nƒ4|125|INACTIVE|FAILED|7\n"
    text += "ƒ5|126|INACTIVE|CANCELED|-15\nƒ6|127|SCHED||\n"
    found = parse_flux(text)
    assert [found[job][:2] for job in ("ƒ2", "124", "ƒ4", "ƒ5", "127")] == [
        (RUNNING, None), (DONE, 0), (FAILED, 7), (CANCELLED, -15), (PENDING, None),
    ]  # fmt: skip


def test_condor_q() -> None:
    text = (
        "7 0 2 undefined undefined undefined undefined\n8 0 4 3 false undefined undefined\n"
        "9 0 4 undefined true 9 undefined\n10 0 5 undefined undefined undefined it has no file\n"
        "11 0 3 undefined undefined undefined undefined\n"
    )
    found = parse_condor_q(text)
    assert [found[job][:2] for job in ("7", "8", "9", "10", "11")] == [
        (RUNNING, None), (FAILED, 3), (FAILED, 137), (PENDING, None), (RUNNING, None),
    ]  # fmt: skip
    assert found["10"].words == "held: it has no file"
    assert found["11"].words == "being removed"
    assert found["8.0"] == found["8"], "as its own tools say it"
    gone = parse_condor_history(text)
    assert (gone["11"].state, gone["8"]) == (CANCELLED, found["8"])


def test_an_array_stands_as_its_least_advanced_task() -> None:
    done, failed = JobState(DONE, 0), JobState(FAILED, 3)
    assert together([done, failed, JobState(PENDING), JobState(RUNNING)]) == JobState(RUNNING, None, "1 of 4 tasks")
    assert together([done, failed, done]) == JobState(FAILED, 3, "1 of 3 tasks")
    assert together([done, done]) == JobState(DONE, 0, "2 of 2 tasks")
    drained = JobState(FAILED, 85)
    assert together([failed, drained]) == JobState(FAILED, 3, "2 of 2 tasks"), "not as one that goes on"


def test_there_is_a_question_for_every_batch_system() -> None:
    assert QUESTIONS.keys() | {"fork"} == SYSTEMS.keys()


def test_the_command_line_of_a_question() -> None:
    assert QUESTIONS["slurm"].queue.about(["1", "2"])[-1] == "--jobs=1,2"
    assert QUESTIONS["pbs"].queue.about(["1", "2"]) == ["qstat", "-f", "-F", "json", "1", "2"]


@pytest.mark.parametrize("system", sorted(QUESTIONS))
def test_what_is_no_answer_is_no_state(system: str) -> None:
    for question in (QUESTIONS[system].queue, QUESTIONS[system].history):
        if question is not None:
            assert question.parse("") == {}
            assert question.parse("Welcome!\n*** the file systems are down on Monday ***\n{[|\n") == {}
