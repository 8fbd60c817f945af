"""Exit codes by which a job says more than "done" and "failed"; whatever else it ends with is the script's own."""

from __future__ import annotations

#: A rank failed before MPI had started: the others would have waited in MPI_Init for ever.
NOT_STARTED = 71
#: Every rank found a world of its own: the launcher and the MPI library do not fit.
WORLDS_OF_ONE = 72
#: The job was drained, because its time was nearly over or somebody asked: run it again and it goes on.
DRAINED = 85
#: The farm cannot go on as it is, and no task is to blame: start it again, and it takes up what is in the journal.
RELAUNCH = 86
