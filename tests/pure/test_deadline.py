"""When the job's time is over: what each batch system says, and what ``--deadline`` may be."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

import pytest

from mpiflow.errors import ConfigurationError
from mpiflow.jobs import deadline
from mpiflow.jobs.deadline import Deadline, find_deadline, parse_deadline

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("0.5", 0.5), ("0:01:30", 90), ("48:00:00", 172_800), ("2-00:00:01", 172_801)],
)
def test_time_from_now(text: str, seconds: float) -> None:
    assert parse_deadline(text, NOW) == NOW + seconds


@pytest.mark.parametrize("text", ["2099-01-31T18:00", "2099-01-31 18:00:00", "2099-01-31T18:00:00+02:00"])
def test_moment(text: str) -> None:
    assert parse_deadline(text, NOW) == datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize("text", ["", "soon", "-5", "18:00", "1:60:00", "2099-01-31", "nan", "inf", "1e3"])
def test_no_time(text: str) -> None:
    with pytest.raises(ConfigurationError, match="legal are seconds from now, HH:MM:SS or D-HH:MM:SS from now"):
        parse_deadline(text, NOW)


@pytest.mark.parametrize("text", ["0", "0:00:00", "2001-01-01T00:00"])
def test_time_that_is_over(text: str) -> None:
    with pytest.raises(ConfigurationError, match="which is over already"):
        parse_deadline(text, NOW)


QSTAT_PBS = """\
Job Id: 17.server
    Job_Name = job
    resources_used.walltime = 00:00:20
    Resource_List.walltime = 01:30:00
    stime = Fri Jan 15 08:00:00 2027
"""
QSTAT_SGE = f"""\
<JB_hard_resource_list><qstat_l_requests>
  <CE_name>s_rt</CE_name><CE_doubleval>3.000000</CE_doubleval></qstat_l_requests><qstat_l_requests>
  <CE_name>h_rt</CE_name><CE_stringval>60</CE_stringval><CE_doubleval>60.000000</CE_doubleval>
</qstat_l_requests></JB_hard_resource_list>
<JB_ja_tasks>
  <ulong_sublist><JAT_status>128</JAT_status><JAT_task_number>1</JAT_task_number>
    <JAT_scaled_usage_list><UA_value>0.8</UA_value></JAT_scaled_usage_list>
    <JAT_start_time>{int(NOW) - 10}</JAT_start_time>
  </ulong_sublist>
  <ulong_sublist><JAT_task_number>2</JAT_task_number><JAT_start_time>{int(NOW) - 5}</JAT_start_time></ulong_sublist>
</JB_ja_tasks>
"""


@pytest.mark.parametrize(
    ("environ", "command", "answer", "moment"),
    [
        ({"SLURM_JOB_ID": "5"}, "squeue -h -j 5 -o %L", "3:00\n", NOW + 180),
        ({"SLURM_JOB_ID": "5"}, "squeue -h -j 5 -o %L", "1-02:03:04\n", NOW + 93_784),
        ({"SLURM_JOB_ID": "5"}, "squeue -h -j 5 -o %L", "UNLIMITED\n", None),
        ({"SLURM_JOB_ID": "5"}, "squeue -h -j 5 -o %L", "", None),
        ({"PBS_JOBID": "17.server"}, "qstat -f 17.server", QSTAT_PBS, time.mktime((2027, 1, 15, 9, 30, 0, 0, 0, -1))),
        ({"PBS_JOBID": "17.server"}, "qstat -f 17.server", QSTAT_PBS.replace("Resource_List", "X"), None),
        ({"LSB_JOBID": "9"}, "bjobs -noheader -o time_left 9", "1:30 L\n", NOW + 5400),
        ({"LSB_JOBID": "9"}, "bjobs -noheader -o time_left 9", "1:30 E\n", None),
        ({"JOB_ID": "3", "SGE_TASK_ID": "undefined"}, "qstat -j 3 -xml", QSTAT_SGE, NOW + 50),
        ({"JOB_ID": "3", "SGE_TASK_ID": "2"}, "qstat -j 3 -xml", QSTAT_SGE, NOW + 55),
        ({"JOB_ID": "3", "SGE_TASK_ID": "7"}, "qstat -j 3 -xml", QSTAT_SGE, None),
        ({"JOB_ID": "3"}, "qstat -j 3 -xml", QSTAT_SGE.replace("h_rt", "h_vmem"), None),
        ({"FLUX_JOB_ID": "f1"}, "flux job timeleft", "71.5\n", NOW + 71.5),
        ({"FLUX_JOB_ID": "f1"}, "flux job timeleft", "infinity\n", None),
    ],
)
def test_answers_of_batch_systems(environ: dict[str, str], command: str, answer: str, moment: float | None) -> None:
    def ask(line: Sequence[str]) -> str:
        assert " ".join(line) == command
        return answer

    found = find_deadline(environ, NOW, ask)
    assert found.moment == moment
    assert ("names no limit" in found.source) == (moment is None)


@pytest.mark.parametrize("name", ["SLURM_JOB_END_TIME", "COBALT_ENDTIME"])
def test_environment_is_believed_without_a_question(name: str) -> None:
    def never(line: Sequence[str]) -> str:
        raise AssertionError(line)

    environ = {name: "1800000060", "SLURM_JOB_ID": "5"}
    assert find_deadline(environ, NOW, never) == Deadline(1_800_000_060.0, name)


def test_no_batch_system() -> None:
    assert find_deadline({"HOME": "/"}, NOW) == Deadline(None, "no batch system that is known here")


def test_command_that_is_not_there() -> None:
    found = find_deadline({"LSB_JOBID": "9"}, NOW)
    assert found.moment is None
    assert found.source.startswith("LSF: `bjobs -noheader -o time_left 9`: [Errno 2] No such file")


def test_command_that_fails_or_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    def on(command: Sequence[str]) -> str:
        monkeypatch.setattr(deadline, "_COMMANDS", (("X", "Some", command, deadline._flux),))
        return find_deadline({"X": "1"}, NOW).source

    assert "returned non-zero exit status 3" in on(("sh", "-c", "exit 3"))
    monkeypatch.setattr(deadline, "ANSWER_WITHIN", 0.1)
    assert "timed out after 0.1 seconds" in on(("sleep", "60"))
