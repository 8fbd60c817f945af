"""`mpiflow stage` on real ranks: read once, unpacked once a node, everywhere or nowhere.

Nodes are made of mount namespaces: each rank has a file system of its own where the target goes, and MPICH is told to
take every rank for a node. That needs root and MPICH; the other tests run anywhere.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import mpi4py
import pytest

import mpiflow
from mpiflow.cli.stage import MARK, stage

if TYPE_CHECKING:
    from launching import Ended, Jobs, Mpiexec

pytestmark = [pytest.mark.timeout(110), pytest.mark.usefixtures("launcher")]

PACKAGE = Path(mpiflow.__file__).parent
COMMAND = [sys.executable, "-m", "mpiflow", "stage"]
#: What a node of the tests is: a disk of its own, and, on all but the first, no archive to read.
NODE = """\
set -e
mount -t tmpfs -o size=$(test $PMI_RANK = 1 && echo $1 || echo 200m) node disk
test $PMI_RANK = 0 || mount -t tmpfs none shared
shift
code=0
"$@" || code=$?
find disk -mindepth 1 | sort > found.$PMI_RANK
exit $code
"""


@pytest.fixture
def archive(jobs: Jobs) -> Path:
    """An environment of 20 MB that does not compress, packed."""
    environment = jobs.directory / "made" / "env"
    (environment / "lib").mkdir(parents=True)
    (environment / "bin").mkdir()
    (environment / "lib" / "large").write_bytes(os.urandom(20 << 20))
    (environment / "bin" / "python").symlink_to("/usr/bin/python3")
    shared = jobs.directory / "shared"
    shared.mkdir()
    assert stage(["--create", str(environment), str(shared / "env.tar.gz")]) == 0
    return shared / "env.tar.gz"


@pytest.fixture
def nodes(jobs: Jobs, launcher: Mpiexec, tmp_path: Path) -> None:
    """Makes sure that nodes can be had."""
    if launcher.flavour != "hydra":
        pytest.skip("only MPICH can be told to take every rank for a node")
    unshare = ["unshare", "-m", "mount", "-t", "tmpfs", "none", str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run(unshare, capture_output=True, timeout=30).returncode:
        pytest.skip("mount namespaces are not to be had here: that needs root")
    jobs.write("node.sh", NODE)
    (jobs.directory / "disk").mkdir()


def on_ranks(jobs: Jobs, launcher: Mpiexec, *words: str | Path, ranks: int = 3, command: list[str] = COMMAND) -> Ended:
    return jobs.command([*launcher.line(ranks), *command, *map(str, words)]).wait(60)


def on_nodes(jobs: Jobs, launcher: Mpiexec, *words: str, size: str = "200m") -> tuple[Ended, list[list[str]]]:
    """Run it on three nodes, the second with a disk of this size; and what is on their disks then."""
    line = [*launcher.line(3), "unshare", "-m", "sh", "node.sh", size, *COMMAND, *words]
    ended = jobs.command(line, env={"MPIR_CVAR_NOLOCAL": "1"}).wait(60)
    return ended, [(jobs.directory / f"found.{rank}").read_text().splitlines() for rank in range(3)]


def same(there: Path, archive: Path) -> bool:
    """Whether what was packed is there."""
    made = archive.parent.parent / "made" / "env"
    compared = subprocess.run(["diff", "-r", "--no-dereference", "-x", MARK, made, there], capture_output=True)
    return compared.returncode == 0


def test_ranks_of_one_node_unpack_it_once_and_again_not_at_all(jobs: Jobs, launcher: Mpiexec, archive: Path) -> None:
    target = jobs.directory / "a" / "env"
    said = on_ranks(jobs, launcher, archive, target).well()
    assert said.startswith(f"mpiflow stage: {target} is on 1 node: 1 files, 20 MiB unpacked on 1 in ")
    assert same(target, archive)
    assert [path.name for path in target.parent.iterdir()] == ["env"]
    stamps = os.stat(archive)
    archive.write_bytes(bytes(stamps.st_size))
    os.utime(archive, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    again = on_ranks(jobs, launcher, archive, target).well()
    assert again == f"mpiflow stage: {target} is on 1 node, 1 had it already\n", "it has not even been read"


def test_a_new_archive_replaces_the_old_one(jobs: Jobs, launcher: Mpiexec, archive: Path) -> None:
    target = jobs.directory / "env"
    on_ranks(jobs, launcher, archive, target).well()
    new = archive.parent.parent / "made" / "env"
    (new / "lib" / "large").write_bytes(b"small now")
    (new / "bin" / "python").unlink()
    assert stage(["--create", str(new), str(archive)]) == 0
    assert " unpacked on 1 " in on_ranks(jobs, launcher, archive, target).well()
    assert same(target, archive)
    assert not [path.name for path in jobs.directory.iterdir() if "staging" in path.name]


@pytest.mark.usefixtures("nodes")
def test_each_node_gets_it_and_one_alone_reads_the_archive(jobs: Jobs, launcher: Mpiexec, archive: Path) -> None:
    ended, disks = on_nodes(jobs, launcher, str(archive), "disk/env")
    assert " is on 3 nodes: 1 files, 20 MiB unpacked on 3 in " in ended.well()
    below = ["", f"/{MARK}", "/bin", "/bin/python", "/lib", "/lib/large"]
    assert disks == [[f"disk/env{name}" for name in below]] * 3


@pytest.mark.usefixtures("nodes")
def test_one_full_disk_and_no_node_has_it(jobs: Jobs, launcher: Mpiexec, archive: Path) -> None:
    ended, disks = on_nodes(jobs, launcher, str(archive), "disk/env", size="10m")
    err = ended.failed(1)
    assert "No space left on device" in err
    assert "MiB are free where" in err
    assert err.endswith("disk/env is as it was on all nodes\n")
    assert disks == [[], [], []]


@pytest.mark.usefixtures("nodes")
def test_a_damaged_archive_is_said_once_and_no_node_has_it(jobs: Jobs, launcher: Mpiexec, archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    archive.with_name(archive.name + ".sha256").unlink()
    ended, disks = on_nodes(jobs, launcher, str(archive), "disk/env")
    err = ended.failed(1)
    assert err.count(f"{archive} is damaged") == 1
    assert " and 2 more: " in err
    assert disks == [[], [], []]


def test_a_checksum_that_does_not_agree_is_said(jobs: Jobs, launcher: Mpiexec, archive: Path) -> None:
    """Another archive that is whole: a copy that went wrong long ago."""
    with tarfile.open(archive, "w") as other:
        other.add(__file__, "lib/other.py")
    err = on_ranks(jobs, launcher, archive, "env").failed(1)
    assert f"{archive} is damaged: its SHA-256 is " in err
    for nonsense in (b"not a checksum\n", b"\xff\xfe"):
        archive.with_name(archive.name + ".sha256").write_bytes(nonsense)
        assert "env.tar.gz.sha256 holds no SHA-256" in on_ranks(jobs, launcher, archive, "env").failed(1)
    assert not (jobs.directory / "env").exists()


def test_an_archive_that_leads_outside_is_refused(jobs: Jobs, launcher: Mpiexec) -> None:
    with tarfile.open(jobs.directory / "evil.tar", "w") as evil:
        evil.add(__file__, "../outside")
    err = on_ranks(jobs, launcher, "evil.tar", "in/env").failed(1)
    assert "evil.tar is refused: its member '../outside' is not to be unpacked" in err
    assert not list(jobs.directory.rglob("outside"))
    assert not list((jobs.directory / "in").iterdir())


@pytest.mark.parametrize("ranks", [1, 3])
def test_what_is_wrong_with_the_words_is_said_once(jobs: Jobs, launcher: Mpiexec, ranks: int) -> None:
    err = on_ranks(jobs, launcher, "none.tar.gz", "env", ranks=ranks).failed(1)
    assert err == (
        "mpiflow stage: none.tar.gz: No such file or directory\n"
        f"mpiflow stage: {jobs.directory}/env is as it was on all nodes\n"
    )
    err = on_ranks(jobs, launcher, "env.tar.gz", ranks=ranks).failed(2)
    assert err.count("it takes an archive and a directory") == 1


def test_what_is_not_ours_is_not_replaced(jobs: Jobs, launcher: Mpiexec, archive: Path) -> None:
    (jobs.directory / "env").mkdir()
    (jobs.directory / "env" / "thesis.tex").write_text("all of it")
    err = on_ranks(jobs, launcher, archive, "env").failed(1)
    assert "env is there, and was not made by `mpiflow stage`: it is left as it is" in err
    (jobs.directory / "file").write_text("a file")
    assert "file is there, and was not made by" in on_ranks(jobs, launcher, archive, "file").failed(1)
    assert (jobs.directory / "env" / "thesis.tex").read_text() == "all of it"
    assert (jobs.directory / "file").read_text() == "a file"


def test_a_directory_that_everybody_can_write_is_not_used(jobs: Jobs, launcher: Mpiexec, archive: Path) -> None:
    """Unless it is sticky, as /tmp is."""
    above = jobs.directory / "above"
    above.mkdir()
    above.chmod(0o777)
    err = on_ranks(jobs, launcher, archive, above / "env").failed(1)
    assert "above can be written by everybody, who could replace what is put there" in err
    above.chmod(0o1777)
    on_ranks(jobs, launcher, archive, above / "env").well()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_what_another_user_has_put_there_is_not_used(jobs: Jobs, launcher: Mpiexec, archive: Path) -> None:
    """With our own mark in it: in /tmp anybody can lay out a directory by that name, python and all."""
    target = jobs.directory / "env"
    on_ranks(jobs, launcher, archive, target).well()
    os.chown(target, 65534, 65534)
    assert "belongs to another user: it is neither used nor replaced" in on_ranks(
        jobs, launcher, archive, target
    ).failed(1)


def test_it_runs_by_its_path_under_a_python_with_mpi4py_alone(jobs: Jobs, launcher: Mpiexec, archive: Path) -> None:
    """No site-packages: neither mpiflow nor numpy nor cloudpickle are to be had."""
    alone = jobs.directory / "alone"
    alone.mkdir()
    (alone / "mpi4py").symlink_to(Path(mpi4py.__file__).parent)
    # A copy of it, for the checkout of the tests may have others beside it.
    shutil.copytree(PACKAGE, jobs.directory / "far" / "mpiflow", ignore=shutil.ignore_patterns("__pycache__"))
    script = jobs.directory / "far" / "mpiflow" / "cli" / "stage.py"
    libraries = os.path.join(sys.prefix, "lib")  # where mpi4py would look for those of a wheel
    bare = ["env", f"PYTHONPATH={alone}", f"LD_LIBRARY_PATH={libraries}", sys.executable, "-S", "-s"]
    without = jobs.command([*bare, "-c", "import numpy, cloudpickle"]).wait(30)
    assert "ModuleNotFoundError" in without.failed(1)
    said = on_ranks(jobs, launcher, archive, "env", command=[*bare, str(script)]).well()
    assert "is on 1 node: 1 files" in said
    assert same(jobs.directory / "env", archive)


def test_a_python_without_mpi_is_said(jobs: Jobs, launcher: Mpiexec, archive: Path) -> None:
    command = ["env", f"PYTHONPATH={PACKAGE.parent}", sys.executable, "-S", "-s", "-m", "mpiflow", "stage"]
    err = on_ranks(jobs, launcher, archive, "env", command=command).failed(1)
    assert f"{sys.executable} has no mpi4py that works: " in err
    assert "Traceback" not in err


def test_a_launcher_of_another_mpi_is_said(jobs: Jobs, launcher: Mpiexec, archive: Path) -> None:
    """As such a launcher would: two processes, which MPI does not take for ranks of one job."""
    variables = "PMI_RANK=$i PMI_SIZE=2 MPI_LOCALNRANKS=2"
    if launcher.flavour == "openmpi":
        variables = "OMPI_COMM_WORLD_RANK=$i OMPI_COMM_WORLD_SIZE=2"
    line = f"code=0; for i in 0 1; do {variables} {' '.join(COMMAND)} {archive} env || code=$?; done; exit $code"
    err = jobs.command(["sh", "-c", line]).wait(60).failed(72)
    assert err.count("started 2 ranks, but MPI sees one in each of them") == 1
    assert not (jobs.directory / "env").exists()


def test_what_a_killed_run_has_left_is_removed(jobs: Jobs, launcher: Mpiexec, archive: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = jobs.directory / f".env.staging-{os.uname().nodename}-{ended.pid}"
    others = [
        jobs.directory / f".env.staging-{os.uname().nodename}-{os.getpid()}",
        jobs.directory / f".env.staging-elsewhere-{ended.pid}",
    ]
    for path in (left, *others):
        path.mkdir()
    on_ranks(jobs, launcher, archive, "env").well()
    assert not left.exists()
    assert all(path.exists() for path in others), "these may be at work"


def test_without_a_launcher_it_is_one_node(jobs: Jobs) -> None:
    with gzip.open(jobs.directory / "one.tar.gz", "wb") as file, tarfile.open(fileobj=file, mode="w") as packed:
        packed.add(__file__, "one.py")
    ended = jobs.command([*COMMAND, "one.tar.gz", "env"]).wait(60)
    assert "is on 1 node: 1 files" in ended.well()
    assert (jobs.directory / "env" / "one.py").exists()
