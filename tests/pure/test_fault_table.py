"""Every row of the table in ``docs/faults.md`` has a test that makes it happen; this holds page and tests together."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
PAGE = TESTS.parent / "docs" / "faults.md"

#: The row, and the tests of it.
ROWS = {
    "a task raises": ["end_to_end/test_exit_codes.py::test_failed_task_shows_the_line_in_the_task"],
    "an argument or result cannot be pickled": ["end_to_end/test_bad_tasks.py::test_task_that_misbehaves_fails_alone"],
    "a runner dies (signal, exit, out of memory)": [
        "end_to_end/test_task_limits.py::test_runner_dies_by_signal_exit_or_the_out_of_memory_killer"
    ],
    "a task exceeds its walltime": ["end_to_end/test_task_limits.py::test_task_exceeds_its_walltime"],
    "a task exceeds its memory": ["end_to_end/test_task_limits.py::test_task_exceeds_its_memory"],
    "a rank of a call over several ranks raises": [
        "end_to_end/test_mpi_apps.py::test_exception_on_one_member_fails_the_task_and_says_where"
    ],
    "a rank of a call over several ranks dies": [
        "end_to_end/test_mpi_apps.py::test_a_member_that_dies_costs_its_rank_and_the_gang_runs_again"
    ],
    "a call over several ranks does not end": [
        "end_to_end/test_mpi_apps.py::test_walltime_ends_a_gang_that_computes_or_sleeps",
        "end_to_end/test_mpi_apps.py::test_walltime_ends_a_collective_that_never_ends",
        "end_to_end/test_mpi_apps.py::test_kill_and_cancel",
    ],
    "more ranks are asked for than there are, or are left": [
        "end_to_end/test_mpi_apps.py::test_what_cannot_run_is_told_in_words"
    ],
    "a worker rank dies": [
        "end_to_end/test_lost_ranks.py::test_worker_rank_dies_and_the_job_goes_on",
        "clusters/test_rank_lost_under_srun.py::test_worker_rank_dies_and_the_job_goes_on",
    ],
    "a worker rank is silent": [
        "end_to_end/test_lost_ranks.py::test_rank_that_is_stopped_is_lost_by_its_silence",
        "end_to_end/test_lost_ranks.py::test_rank_that_was_stopped_comes_back_and_its_late_results_do_not_count",
    ],
    "rank 0 is caught inside MPI": ["pure/test_guardian.py::test_rank_0_inside_one_mpi_call_for_too_long_is_ended"],
    "launcher and MPI library do not fit": [
        "end_to_end/test_wrong_launcher.py::test_a_world_of_one_among_four_ranks_refuses_to_run"
    ],
    "a worker cannot start": [
        "end_to_end/test_lost_ranks.py::test_worker_that_cannot_start_reports_and_stays_out_of_service",
        "end_to_end/test_lost_ranks.py::test_when_no_worker_can_start_the_job_ends_at_once_with_the_traceback",
    ],
    "a worker never reports": ["end_to_end/test_lost_ranks.py::test_rank_that_never_reports_is_left_out"],
    "a rank fails before MPI has started": [
        "end_to_end/test_lost_ranks.py::test_rank_that_fails_before_mpi_init_ends_the_job_in_seconds"
    ],
    "the same host keeps failing tasks": [
        "end_to_end/test_lost_ranks.py::test_the_same_node_keeps_failing_tasks_and_is_quarantined"
    ],
    "walltime is near": [
        "end_to_end/test_drain.py::test_walltime_is_near",
        "clusters/test_walltime_is_near.py::test_signal_from_slurm",
    ],
    "rank 0 dies": [
        "end_to_end/test_lost_ranks.py::test_rank_0_dies_and_workers_and_their_runners_leave",
        "end_to_end/test_resume.py::test_killed_run_is_resumed_by_other_ranks_and_failures_are_tried_again",
    ],
    "the launcher or a node's daemon dies": [
        "end_to_end/test_signals.py::test_nothing_outlives_a_launcher_that_is_killed",
        "end_to_end/test_supervise.py::test_a_farm_that_died_goes_on_from_its_journal",
    ],
    "a launcher does not end, although rank 0 has": [
        "end_to_end/test_supervise.py::test_a_launcher_that_does_not_end_is_ended"
    ],
    "no worker is left, an executor of your own raises, or rank 0 cannot go on otherwise": [
        "end_to_end/test_lost_ranks.py::test_a_script_that_waits_in_the_standard_library_hears_that_no_rank_is_left",
        "pure/test_dataflow.py::test_who_waits_in_functions_of_others_hears_that_a_superstep_has_failed",
        "pure/test_dataflow.py::test_after_a_superstep_has_failed_every_call_fails_alike",
    ],
    "the script uses a collective of COMM_WORLD": [
        "end_to_end/test_silent_hangs.py::test_script_uses_a_comm_world_collective"
    ],
    "the script fails": ["end_to_end/test_exit_codes.py::test_no_word_of_the_launcher_on_failure"],
    "the disk is full, or the run directory cannot be written": [
        "chaos/test_under_fire.py::test_a_full_and_a_read_only_disk"
    ],
    "nothing happens": ["end_to_end/test_silent_hangs.py::test_nobody_knows"],
}


def rows_of_the_page() -> list[str]:
    """The events of the first table of the page."""
    lines = PAGE.read_text().split("\n## ")[0].splitlines()
    return [line.split("|")[1].strip() for line in lines if line.startswith("| ")][1:]


def test_the_page_and_the_tests_have_the_same_rows() -> None:
    assert rows_of_the_page() == list(ROWS)


@pytest.mark.parametrize("test", [test for tests in ROWS.values() for test in tests])
def test_the_test_of_a_row_is_there(test: str) -> None:
    path, _, name = test.partition("::")
    tree = ast.parse((TESTS / path).read_text())
    assert name in [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
