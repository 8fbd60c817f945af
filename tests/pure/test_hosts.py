"""Names of hosts, and the lists and files that they stand in."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpiflow.jobs.hosts import (
    Host,
    expand,
    granted,
    hostfile_without,
    in_hostfile,
    in_list,
    list_without,
    repeated,
    same_host,
)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("n3", "n3", True),
        ("n3", "n3.site.edu", True),
        ("N3.Site.edu", "n3", True),
        ("n3.here.edu", "n3.there.edu", False),
        ("n3", "n30", False),
        ("n3", "n30.site.edu", False),
        ("n3.site", "n3.site.edu", False),
        ("10.77.0.1", "10.77.0.2", False),
        ("10.77.0.1", "10", False),
        ("10.77.0.1", "10.77.0.1", True),
        ("fe80::1", "fe80::2", False),
    ],
)
def test_same_host(one: str, other: str, same: bool) -> None:
    assert same_host(one, other) is same
    assert same_host(other, one) is same


HYDRA_FILE = """\
# the machines of room 3
n1:2
n2.site.edu:2 ifname=eth1   # the slow one

n3
"""
OPENMPI_FILE = """\
n1 slots=4 max_slots=8
ada@n2 slots = 2
n3.site.edu
"""


def test_hosts_of_a_file() -> None:
    assert in_hostfile(HYDRA_FILE) == [Host("n1", 2), Host("n2.site.edu", 2), Host("n3")]
    assert in_hostfile(OPENMPI_FILE) == [Host("n1", 4), Host("n2", 2), Host("n3.site.edu")]
    assert in_hostfile("\n  # n1\n") == []


def test_a_host_on_several_lines_has_their_slots_together() -> None:
    assert in_hostfile("n1\nn2\nn1\nn1\n") == [Host("n1", 3), Host("n2")]
    assert in_hostfile("n1:2\nn1:3\n") == [Host("n1", 5)]


def test_all_lines_but_those_left_out_stay_as_they_are() -> None:
    assert hostfile_without(HYDRA_FILE, ["n2"]) == "# the machines of room 3\nn1:2\n\nn3\n"
    assert hostfile_without(OPENMPI_FILE, ["n3", "N1"]) == "ada@n2 slots = 2\n"
    assert hostfile_without("n1\nn2\nn1", ["n1"]) == "n2\n"
    assert hostfile_without("n1\nn10\n", ["n1"]) == "n10\n"


def test_lists() -> None:
    assert in_list("n1,n2:2") == [Host("n1"), Host("n2", 2)]
    assert list_without("n1,n2:2,n3", ["n2"]) == "n1,n3"
    assert list_without("n1:4,n2:2", ["n9"]) == "n1:4,n2:2"
    assert list_without("n1", ["n1"]) == ""


@pytest.mark.parametrize(
    ("short", "names"),
    [
        ("n1", ["n1"]),
        ("n1,login", ["n1", "login"]),
        ("n[1-3,7]", ["n1", "n2", "n3", "n7"]),
        ("n[099-101]", ["n099", "n100", "n101"]),
        ("a[1-2],b[3]", ["a1", "a2", "b3"]),
        ("r[1-2]c[1-2]-ib", ["r1c1-ib", "r1c2-ib", "r2c1-ib", "r2c2-ib"]),
        ("", []),
    ],
)
def test_slurms_short_form_of_names(short: str, names: list[str]) -> None:
    assert expand(short) == names


@pytest.mark.parametrize(
    ("short", "counts"), [("2", [2]), ("2(x3)", [2, 2, 2]), ("16(x2),8,4(x1)", [16, 16, 8, 4]), ("", []), ("x", [])]
)
def test_slurms_short_form_of_counts(short: str, counts: list[int]) -> None:
    assert repeated(short) == counts


def test_slurms_hosts() -> None:
    environ = {"SLURM_JOB_NODELIST": "n[1-3]", "SLURM_TASKS_PER_NODE": "2(x2),1"}
    assert granted(environ) == [Host("n1", 2), Host("n2", 2), Host("n3", 1)]
    assert granted({**environ, "SLURM_TASKS_PER_NODE": "2"}) == [Host("n1"), Host("n2"), Host("n3")]


@pytest.mark.parametrize("variable", ["PBS_NODEFILE", "COBALT_NODEFILE", "LSB_DJOB_HOSTFILE"])
def test_hosts_of_a_file_with_a_line_for_each_rank(variable: str, tmp_path: Path) -> None:
    file = tmp_path / "nodes"
    file.write_text("n1\nn1\nn2\nn2\nn3\n")
    assert granted({variable: str(file)}) == [Host("n1", 2), Host("n2", 2), Host("n3", 1)]
    assert granted({variable: str(tmp_path / "none")}) == []


def test_grid_engines_hosts(tmp_path: Path) -> None:
    file = tmp_path / "pe_hostfile"
    file.write_text("n1.site.edu 4 all.q@n1 UNDEFINED\nn2.site.edu 2 all.q@n2 UNDEFINED\nn1.site.edu 1 b.q@n1 <NULL>\n")
    assert granted({"PE_HOSTFILE": str(file)}) == [Host("n1.site.edu", 5), Host("n2.site.edu", 2)]


def test_no_batch_system_grants_nothing() -> None:
    assert granted({}) == []
