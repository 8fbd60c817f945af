"""What a user gave reaches the launcher as it was, byte for byte.

Scripts are run, with stand-ins for launchers and interpreter that write down what they were called with.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpiflow.errors import ConfigurationError
from mpiflow.jobs.launchers import LAUNCHERS, SENSIBLE
from mpiflow.jobs.render import render
from mpiflow.jobs.spec import JobSpec

#: A launcher that writes down its words and where it is.
LAUNCHER = r"""#!/bin/bash
case $1 in
    --version) echo "$SAYS"; exit ;;
    getattr) echo f17; exit ;;
esac
name=run
[ "${!#}" != --quick ] || name=doctor
printf '%s\0' "${0##*/}" "$@" >"$RECORD/$name"
printf '%s\0' "$PWD" "$SET_UP" "$ACTIVATED" >"$RECORD/around"
"""
#: An interpreter: it supervises by running what it is given, and says which MPI is loaded.
PYTHON = r"""#!/bin/bash
if [ "$1" = -c ]; then
    echo "$LOADED"
elif [ "$3" = supervise ]; then
    while [ "$1" != -- ]; do shift; done
    shift
    exec "$@"
else
    exec "$RECORD/bin/proxies" "$@"
fi
"""
NASTY = (
    "", " ", "two words", "$(touch harm)", "`touch harm`", "${HOME}", "a;touch harm", "'", '"', "it's", "\\", "\n",
    "line\nend\n", "-", "--", "--help", "-n", "*", "?", "[a-z]", "~", "!!", "#no comment", "a&b", "a|b", "<a", ">harm",
    "\t", "{{ spec }}", "{% if %}", "ünïcödé", "日本語", "\u202e", "🚀", "\x1b[31m", "\udcff", "%j", "a=b", "{a,b}",
)  # fmt: skip


class Called(NamedTuple):
    """What the launcher was called with, and what was around it."""

    words: list[str]
    directory: str
    set_up: str
    activated: str
    output: list[str]


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.fsencode(text))
    path.chmod(0o755)
    return str(path)


class Place:
    """A directory with stand-ins for every launcher."""

    def __init__(self, base: Path) -> None:
        self.base = base
        for name in (*LAUNCHERS, "proxies", "parallel", "apptainer", "flux"):
            write(base / "bin" / name, LAUNCHER)
        write(base / "bin" / "condor_config_val", "#!/bin/bash\necho /nowhere\n")
        write(base / "hosts", "n1 4 all.q UNDEFINED\n")

    def run(self, job: JobSpec, says: str = "HYDRA", loaded: str = "MPICH") -> Called:
        """Render a job's script, run it, and read what was written down."""
        for name in ("run", "doctor", "around"):
            (self.base / name).unlink(missing_ok=True)
        script = write(self.base / "job.sh", render(job))
        hosts = str(self.base / "hosts")
        environment = {
            "PATH": f"{self.base / 'bin'}:/usr/bin:/bin", "RECORD": str(self.base), "SAYS": says, "LOADED": loaded,
            "SLURM_JOB_ID": "17", "PBS_JOBID": "17.host", "COBALT_JOBID": "17", "JOB_ID": "17", "LSB_JOBID": "17",
            "PBS_NODEFILE": hosts, "COBALT_NODEFILE": hosts, "PE_HOSTFILE": hosts, "LSB_DJOB_HOSTFILE": hosts,
        }  # fmt: skip
        ended = subprocess.run(
            ["bash", script], env=environment, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, check=False,
            timeout=60,
        )  # fmt: skip
        errors = [path.read_bytes() for path in Path(job.output).glob("*.err")]
        assert (ended.returncode, ended.stdout, ended.stderr, [e for e in errors if e]) == (0, b"", b"", [])
        directory, set_up, activated = read(self.base / "around")
        assert read(self.base / "doctor")[-2:] == ["doctor", "--quick"]
        return Called(read(self.base / "run"), directory, set_up, activated, sorted(os.listdir(job.output)))


def read(path: Path) -> list[str]:
    return os.fsdecode(path.read_bytes()).split("\0")[:-1]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as base:
        yield Place(Path(base))


def farm(job: JobSpec) -> list[str]:
    """The words that every launcher must get last."""
    return [job.python, "-m", "mpiflow", *job.farm_options, job.script, *job.arguments]


@pytest.mark.parametrize(
    ("system", "launcher"), [(system, launcher) for system in SENSIBLE for launcher in SENSIBLE[system]]
)
def test_every_launcher_gets_the_words_of_the_user(place: Place, system: str, launcher: str, tmp_path: Path) -> None:
    python = write(tmp_path / "an env" / "python", PYTHON)
    job = JobSpec(
        script="./$(touch harm) 'sweep'.py", arguments=NASTY, system=system, launcher=launcher, python=python,
        directory=str(tmp_path), farm_options=("--run-dir", "a b"), launcher_options=("--opt", "$x 'y'"), name="sweep",
        wrapper="wrapped 'of two'" if launcher == "wrapped" else "", warn_before=0,
        time=600 if system == "cobalt" else None,
    ).completed()  # fmt: skip
    called = place.run(job)
    words = farm(job)
    assert called.words[-len(words) - 2 :] == ["--opt", "$x 'y'", *words]
    assert called.directory == str(tmp_path)
    assert not list(tmp_path.rglob("harm"))


@pytest.mark.parametrize(
    "says", ["HYDRA build", "mpiexec (Open MPI) 5.0.11", "mpiexec (Open MPI) 4.1.6", "Intel(R) MPI"]
)
@pytest.mark.parametrize("launcher", ["mpiexec", "mpirun", "fork"])
def test_any_mpiexec_gets_the_words_of_the_user(place: Place, launcher: str, says: str, tmp_path: Path) -> None:
    python = write(tmp_path / "python", PYTHON)
    job = JobSpec(
        script="s.py", arguments=NASTY, system="fork", launcher=launcher, python=python, directory=str(tmp_path),
        ranks_per_node=3,
    ).completed()  # fmt: skip
    called = place.run(job, says)
    words = farm(job)
    assert called.words[-len(words) :] == words
    assert called.words[called.words.index("-n") + 1] == "3"
    assert ("--with-ft" in called.words) == ("MPI) 5" in says)


@pytest.mark.parametrize(
    ("loaded", "option"),
    [
        ("MPICH Version: 4.2", "--mpi=pmi2"),
        ("Open MPI v5.0.11", "--mpi=pmix"),
        ("MPI VERSION : CRAY MPICH version 8.1", ""),
        ("Intel(R) MPI Library 2021.10", "--mpi=pmi2"),
        ("", ""),
    ],
)
def test_srun_is_told_how_the_ranks_of_the_loaded_mpi_meet(
    place: Place, loaded: str, option: str, tmp_path: Path
) -> None:
    python = write(tmp_path / "python", PYTHON)
    job = JobSpec(script="s.py", system="slurm", python=python, directory=str(tmp_path), cores_per_rank=4, nodes=2)
    words = place.run(job.completed(), loaded=loaded).words
    begin = shlex.split("srun -K --export=ALL --input=0 -N 2 -n 2 --ntasks-per-node=1 -c 4")
    assert words[: words.index(python)] == [*begin, *([option] if option else [])]


def test_a_warning_during_the_check_is_not_lost(place: Place, tmp_path: Path) -> None:
    """There is no farm yet that could be told: the job goes on, without having begun."""
    write(tmp_path / "bin" / "mpiexec", '#!/bin/bash\nkill -USR1 "$PPID"\n' + LAUNCHER.split("\n", 1)[1])
    job = JobSpec(
        script="s.py", system="gridengine", launcher="hydra", python=write(tmp_path / "python", PYTHON),
        setup=(write(tmp_path / "setup", f"PATH={tmp_path / 'bin'}:$PATH\n"),), directory=str(tmp_path),
    ).completed()  # fmt: skip
    (place.base / "run").unlink(missing_ok=True)
    environment = {"PATH": "/usr/bin:/bin", "RECORD": str(place.base), "JOB_ID": "17"}
    ended = subprocess.run(["bash", write(tmp_path / "job.sh", render(job))], env=environment, check=False, timeout=60)
    assert ended.returncode == 99
    assert not (place.base / "run").exists()


def test_a_warning_that_the_farm_dies_of_is_a_warning(place: Place, tmp_path: Path) -> None:
    """It comes when the farm's process is there, and does not heed signals yet."""
    dies = '#!/bin/bash\n[ "${!#}" = --quick ] || { kill -USR1 "$PPID"; exec sleep 30; }\n'
    write(tmp_path / "bin" / "mpiexec", dies)
    job = JobSpec(
        script="s.py", system="gridengine", launcher="hydra", python=write(tmp_path / "python", PYTHON),
        setup=(write(tmp_path / "setup", f"PATH={tmp_path / 'bin'}:$PATH\n"),), directory=str(tmp_path),
    ).completed()  # fmt: skip
    environment = {"PATH": "/usr/bin:/bin", "RECORD": str(place.base), "JOB_ID": "17"}
    ended = subprocess.run(["bash", write(tmp_path / "job.sh", render(job))], env=environment, check=False, timeout=60)
    assert ended.returncode == 99


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"container": "/my $(x).sif"},
            ["apptainer", "exec", "--bind", "{}", "--pwd", "{}", "/my $(x).sif", "python3"],
        ),
        (
            {"container": "docker:a b", "container_runtime": "shifter"},
            ["shifter", "--image=docker:a b", "--workdir={}", "python3"],
        ),
        (
            {"container": "a/b:1", "container_runtime": "podman-hpc"},
            [
                "podman-hpc",
                "run",
                "--rm",
                "--mpi",
                "--env",
                "MPIFLOW_*",
                "--volume",
                "{}:{}",
                "--workdir",
                "{}",
                "a/b:1",
                "python3",
            ],
        ),
    ],
    ids=["apptainer", "shifter", "podman-hpc"],
)
def test_ranks_in_a_container(place: Place, fields: dict[str, str], words: list[str], tmp_path: Path) -> None:
    for name in ("apptainer", "shifter", "podman-hpc"):
        write(place.base / "bin" / name, '#!/bin/bash\necho "$LOADED"\n')
    where = tmp_path / "a place"
    where.mkdir()
    job = JobSpec(
        script="s.py", system="slurm", python=write(tmp_path / "python", PYTHON), directory=str(where), **fields
    ).completed()  # type: ignore[arg-type]
    called = place.run(job, loaded="Open MPI")
    expected = [word.replace("{}", str(where)) for word in words]
    begin = called.words.index("--mpi=pmix") + 1
    assert called.words[begin:] == [*expected, "-m", "mpiflow", "s.py"]


_WILD = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)) | st.sampled_from("\udc80\udcff"))
_NAMES = st.text(
    st.characters(exclude_characters="\0/", exclude_categories=("Cs",)) | st.sampled_from(" '\"$`\n\\-\udcff"),
    min_size=1,
    max_size=40,
).filter(lambda name: name not in (".", "..") and len(os.fsencode(name)) < 200)


@settings(max_examples=60, deadline=None)
@given(
    arguments=st.lists(_WILD | st.sampled_from(NASTY), max_size=6),
    options=st.lists(_WILD, max_size=3),
    names=st.lists(_NAMES, min_size=5, max_size=5),
    launcher=st.sampled_from(SENSIBLE["fork"]),
    name=_WILD,
)
def test_whatever_the_words_and_the_paths_are(
    arguments: list[str], options: list[str], names: list[str], launcher: str, name: str
) -> None:
    where, venv, setup, script, output = names
    with tempfile.TemporaryDirectory() as base:
        place = Place(Path(base))
        directory = Path(base, "w" + where)
        write(Path(base, venv + "-env", "bin", "activate"), "export ACTIVATED=yes\n")
        write(directory / setup, "export SET_UP=yes\n")
        job = JobSpec(
            script=script, arguments=tuple(arguments), system="fork", launcher=launcher, name=name,
            directory=str(directory), output="o" + output, setup=(setup,), venv=str(Path(base, venv + "-env")),
            python=write(Path(base, where + "-python"), PYTHON), farm_options=tuple(options),
            launcher_options=tuple(options), wrapper=f"wrapped {shlex.join(options)}" if launcher == "wrapped" else "",
        ).completed()  # fmt: skip
        called = place.run(job)
    ours = script if script.endswith(".py") and not script.startswith("-") else f"./{script}"
    words = [*options, job.python, "-m", "mpiflow", *options, ours, *arguments]
    assert called.words[-len(words) :] == words
    if launcher == "wrapped":
        assert called.words == ["wrapped", *options, *words]
    assert (called.directory, called.set_up, called.activated) == (str(directory), "yes", "yes")
    assert len([file for file in called.output if file.endswith(".1.out")]) == 1


# --- directives: what they cannot say is refused --------------------------------------------------------------

_FIELDS = ("name", "account", "queue", "constraint")


@pytest.mark.parametrize("system", [system for system in SENSIBLE if system != "fork"])
@given(field=st.sampled_from(_FIELDS), value=_WILD.filter(bool))
@settings(max_examples=60, deadline=None)
def test_no_value_makes_a_line_of_its_own(system: str, field: str, value: str) -> None:
    """A value is said in its one directive or refused: never does it add a line, or change another."""
    plain = JobSpec(script="s.py", python="p", directory="/d", time=600, **{field: "X"})
    try:
        wild = render(dataclasses.replace(plain, **{field: value}).completed(system))
        usual = render(plain.completed(system))
    except ConfigurationError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert f"{field} is " in refused
        return
    changed = [(one, other) for one, other in zip(wild.splitlines(), usual.splitlines(), strict=True) if one != other]
    assert all(_skeleton(one) == _skeleton(other) for one, other in changed), changed


def _skeleton(line: str) -> str:
    return line.split("=")[0].split()[0]


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\x00b", "a\x1b[0m", "\u2028"])
@pytest.mark.parametrize("field", ["account", "queue", "qos", "directives"])
def test_a_line_end_in_a_directive_is_refused_by_name(field: str, value: str) -> None:
    said = (value,) if field == "directives" else value
    with pytest.raises(ConfigurationError, match=rf"^{field.rstrip('s')}\w* is "):
        render(JobSpec(script="s.py", **{field: said}).completed("slurm"))


@pytest.mark.parametrize(
    ("system", "value", "words"),
    [
        ("gridengine", "a b", "'a b': a directive of this batch system cannot say the characters ' '"),
        ("gridengine", "-x", "'-x': a directive of this batch system cannot say a dash at its beginning"),
        ("pbs", "a'b", '"a\'b": a directive of this batch system cannot say the characters "\'"'),
        ("slurm", "a\nb", r"'a\nb': a line for the batch system holds no line ends and no control characters"),
    ],
)
def test_what_is_refused_says_why(system: str, value: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        render(JobSpec(script="s.py", account=value, time=600).completed(system))
    assert str(caught.value) == f"account is {words}"


@pytest.mark.parametrize("character", ["%", "\\"])
def test_a_path_in_which_slurm_would_replace_something_is_refused(character: str) -> None:
    job = JobSpec(script="s.py", directory=f"/a{character}b")
    with pytest.raises(ConfigurationError) as caught:
        render(job.completed("slurm"))
    output = f"/a{character}b/runinfo/jobs"
    assert str(caught.value) == f"output is {output!r}: {character!r} means something else to this batch system"


def test_slurm_can_say_spaces_and_quotes() -> None:
    job = JobSpec(script="s.py", name='my "best" job', account="a b", directory="/all free", python="p")
    lines = render(job.completed("slurm")).splitlines()
    assert r'#SBATCH --job-name="my \"best\" job"' in lines
    assert '#SBATCH --account="a b"' in lines
    assert '#SBATCH --output="/all free/runinfo/jobs/my__best__job.%j.log"' in lines
