"""The stand-ins take what the manuals say, and refuse what the real ones would refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from standins import cobalt, flux, htcondor, launchers, lsf, pbs
from standins.request import Refused, Request


def read(system: str, directives: str, tmp_path: Path, *arguments: str) -> Request:
    """The request that a script with these lines makes."""
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/bash\n{directives}\n")
    script.chmod(0o755)
    words = [*arguments, str(script)]
    if system in ("pbs", "torque"):
        return pbs.submit(words, None, pbs.PBS if system == "pbs" else pbs.TORQUE)
    return {"cobalt": cobalt, "lsf": lsf, "flux": flux}[system].submit(words, None)  # type: ignore[attr-defined,no-any-return]


def test_pbs_reads_comments_and_blank_lines_but_stops_at_code(tmp_path: Path) -> None:
    lines = "#PBS -N one\n\n# why\n#PBS -l select=2:ncpus=8:mpiprocs=4 -l walltime=1:00:00\nset -u\n#PBS -N two"
    request = read("pbs", lines, tmp_path)
    assert (request.name, request.nodes, request.ranks_per_node, request.seconds) == ("one", 2, 4, 3600)


@pytest.mark.parametrize(("system", "name"), [("pbs", "with blank"), ("torque", '"with blank"')])
def test_only_a_backslash_quotes_alike_in_pbs_and_torque(tmp_path: Path, system: str, name: str) -> None:
    assert read(system, '#PBS -o "with blank"', tmp_path).output == name
    assert read(system, r"#PBS -o with\ blank", tmp_path).output == "with blank"


@pytest.mark.parametrize(
    ("system", "lines", "complaint"),
    [
        ("pbs", "#PBS -l walltime=soon", "walltime"),
        ("pbs", "#PBS -l walltime=0", "walltime"),
        ("pbs", "#PBS -l select=2:ncpus", "select"),
        ("pbs", "#PBS -l select=2:ncpus=2:mpiprocs=3", "select"),
        ("pbs", "#PBS -l place=everywhere", "place"),
        ("pbs", "#PBS -l select=1 -l nodes=2", "old form"),
        ("pbs", f"#PBS -N {'x' * 231}", "illegal -N value"),
        ("pbs", r"#PBS -N two\ words", "illegal -N value"),
        ("pbs", "#PBS -W depend=perhaps:3", "illegal -W value"),
        ("pbs", "#PBS -J 5-5", "illegal -J value"),
        ("pbs", "#PBS -Z", "invalid option -- 'Z'"),
        ("pbs", "#PBS -N 'open", "unmatched '"),
        ("pbs", "#PBS -N name word", "directive error"),
        ("torque", "#PBS -N sixteen_characte", "illegal -N value"),
        ("torque", "#PBS -l nodes=0:ppn=2", "illegal nodes"),
        ("torque", "#PBS -l nodes=1:cores=2", "Unknown node-attribute"),
        ("torque", "#PBS -J 1-3", "invalid option -- 'J'"),
        ("cobalt", "#COBALT -n 2", "'time' not provided"),
        ("cobalt", "\n#COBALT -n 2 -t 10", "'time' not provided"),
        ("cobalt", "#COBALT -n 2 -t 10\n#COBALT --attrs a b", "is no option"),
        ("cobalt", "#COBALT -n 0 -t 10", "illegal node count"),
        ("cobalt", "#COBALT -n 2 -t 1:00:00:00:00", "Bad time"),
        ("cobalt", "#COBALT -n 2 -t 10 --env A", "env"),
        ("lsf", "#BSUB -W 1:99", "RUNLIMIT"),
        ("lsf", "#BSUB -W 1:00:00", "RUNLIMIT"),
        ("lsf", "#BSUB -n 4 -R span[tiles=2]", "resource requirement"),
        ("lsf", "#BSUB -n 4 -nnodes 2", "exclude each other"),
        ("lsf", "#BSUB -Q eightyfive", "requeue exit values"),
        ("lsf", "#BSUB --name x", "Illegal option"),
        ("lsf", "#BSUB -J 'open", "No closing quotation"),
        ("lsf", "#BSUB -wa USR9", "warning action"),
        ("flux", "# flux: --nodes=2\necho\n# flux: --queue=q", "orphan 'flux:'"),
        ("flux", "# flux: --nodes=2\n#flux: --queue=q", "sentinel changed"),
        ("flux", "# flux: nodes=2", "Unknown directive"),
        ("flux", "# flux: --nodes=0", "illegal --nodes"),
        ("flux", "# flux: --queue=q", "Number of slots"),
        ("flux", "# flux: --nodes=1 --time-limit=1:00:00", "--time-limit"),
        ("flux", "# flux: --nodes=1 --exklusive", "unrecognized option"),
    ],
)
def test_what_is_refused(tmp_path: Path, system: str, lines: str, complaint: str) -> None:
    with pytest.raises(Refused) as refused:
        read(system, lines, tmp_path)
    assert complaint in refused.value.words


def test_the_command_line_wins(tmp_path: Path) -> None:
    assert read("pbs", "#PBS -N one", tmp_path, "-N", "two").name == "two"
    assert read("cobalt", "#COBALT -n 2 -t 10", tmp_path, "-n", "3").nodes == 3
    assert read("lsf", "#BSUB -J one", tmp_path, "-J", "two").name == "two"
    assert read("flux", "#flux: --nodes=2", tmp_path, "-N", "3").nodes == 3


@pytest.mark.parametrize(("text", "seconds"), [("90", 5400), ("1:30", 5400), ("1:30:00", 5400), ("1:00:00:00", 86_400)])
def test_cobalt_counts_two_parts_as_hours(tmp_path: Path, text: str, seconds: int) -> None:
    assert read("cobalt", f"#COBALT -n 1 -t {text}", tmp_path).seconds == seconds


def test_cobalt_wants_an_executable_script(tmp_path: Path) -> None:
    script = tmp_path / "plain.sh"
    script.write_text("#!/bin/sh\n#COBALT -n 1 -t 5\n")
    with pytest.raises(Refused, match="is not executable"):
        cobalt.submit([str(script)], None)


def test_lsf_requeue_and_warning(tmp_path: Path) -> None:
    request = read("lsf", '#BSUB -n 8 -R "span[ptile=4]" -W 2:00 -Q "85 86" -wa USR1 -wt 5', tmp_path)
    assert (request.nodes, request.ranks_per_node, request.seconds) == (2, 4, 7200)
    assert (request.requeue_on, request.signal, request.signal_before) == ([85, 86], "USR1", 300)


def test_flux_signal_and_time(tmp_path: Path) -> None:
    request = read("flux", "# flux: -N2 --exclusive --time-limit=90s\n# flux: --signal=SIGUSR1@20s", tmp_path)
    assert (request.nodes, request.seconds, request.signal, request.signal_before) == (2, 90, "USR1", 20)


@pytest.mark.parametrize(
    ("launcher", "told", "line", "complaint"),
    [
        (launchers.aprun, {}, "-n 4 prog", "No reservation"),
        (launchers.aprun, {"COBALT_JOBID": "1", "COBALT_PARTSIZE": "1"}, "-n 4 -N 2 prog", "node-count"),
        (launchers.aprun, {"COBALT_JOBID": "1"}, "-n four prog", "illegal -n"),
        (launchers.aprun, {"COBALT_JOBID": "1"}, "--ranks 4 prog", "unrecognized option"),
        (launchers.aprun, {"COBALT_JOBID": "1"}, "-n 4", "no program"),
        (launchers.jsrun, {}, "-n 4 prog", "job allocation"),
        (launchers.jsrun, {"LSB_JOBID": "1"}, "-n none prog", "illegal --nrs"),
        (launchers.jsrun, {"LSB_JOBID": "1"}, "-n 4 -b sockets prog", "--bind"),
        (launchers.flux_run, {}, "-n 4 prog", "broker socket"),
        (launchers.flux_run, {"STANDIN_FLUX": "1 4"}, "-N 2 prog", "unsatisfiable"),
        (launchers.flux_run, {"STANDIN_FLUX": "1 4"}, "-N 1 --tasks-per-node=2 -c 2 prog", "Per-resource"),
        (launchers.pals, {}, "-n 4 prog", "no PBS job"),
    ],
)
def test_what_launchers_refuse(
    monkeypatch: pytest.MonkeyPatch, launcher: object, told: dict[str, str], line: str, complaint: str
) -> None:
    for name in ("COBALT_JOBID", "PBS_JOBID", "LSB_JOBID", "STANDIN_FLUX", "COBALT_PARTSIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Refused) as refused:
        launcher(line.split())  # type: ignore[operator]
    assert complaint in refused.value.words


@pytest.mark.parametrize(
    ("arguments", "lines", "complaint"),
    [
        (["-terse", "none.sub"], "", "Failed to open command file (none.sub)"),
        (["-tense", "job.sub"], "", "unrecognized option"),
        (["job.sub"], "executable = none.sh", "Executable file {here}/none.sh does not exist"),
        (["job.sub"], "initialdir = /none\nexecutable = {here}/job.sh", "No such directory: /none"),
        (["job.sub"], "executable = job.sh\noutput = /none/out", 'Can\'t open "/none/out"'),
        (["job.sub"], "executable = job.sh\nchekpoint_exit_code = 85", "unused by condor_submit. Is it a typo?"),
        (["job.sub"], "executable = job.sh\nuniverse = parallel\nmachine_count = 2", "no dedicated scheduler"),
        (["job.sub"], "executable = job.sh\nqueue 2", "2 jobs; our descriptions are of one"),
    ],
)
def test_what_condor_submit_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], lines: str, complaint: str
) -> None:
    pytest.importorskip("classad", reason="PyPI htcondor (23.10) is not installed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.sh").write_text("#!/bin/sh\n")
    (tmp_path / "job.sub").write_text(lines.replace("{here}", str(tmp_path)) + "\nqueue\n")
    with pytest.raises(Refused) as refused:
        htcondor.submit(arguments, 7)
    assert complaint.replace("{here}", str(tmp_path)) in refused.value.words


def test_condor_submit_reads_what_a_job_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("classad", reason="PyPI htcondor (23.10) is not installed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.sh").write_text("#!/bin/sh\n")
    (tmp_path / "job.sub").write_text(
        "executable = job.sh\nrequest_cpus = 4\noutput = out.$(Cluster)\nerror = out.$(Cluster)\n"
        'environment = "A=$(Cluster).$(Process)"\ncheckpoint_exit_code = 85\nallowed_execute_duration = 60\nqueue\n'
    )
    request = htcondor.submit(["-terse", "job.sub"], 7)
    assert (request.ranks_per_node, request.output, request.seconds) == (4, "out.7", 60)
    assert (request.environment, request.requeue_on) == ({"A": "7.0"}, [85])
    assert htcondor.job_id(request, 7) == "7.0 - 7.0"


def test_pals_takes_long_options_with_one_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PBS_JOBID", "1.x")
    line = launchers.pals(["-n", "4", "-ppn", "2", "--cpu-bind", "depth", "-envall", "prog", "-ppn", "3"])
    assert line[-4:] == ["4", "prog", "-ppn", "3"]
