"""The chaos suite: a farm under fire loses nothing.

A *campaign* is a number of runs of one program under seeded faults from outside. Everything follows from the seed:
the program's tasks, which faults come when, and who is hit; only what the machine does in between is its own.

    python -m tests.chaos --mpi mpich --faults 300 --seed 1     # what `make chaos` does
    python -m tests.chaos --seed 7 --faults 20 --only worker-kill,runner-stop

=================  ==================================================================================================
`model.py`         the random graph of tasks, and what comes out of it, computed one after another without mpiflow
`workload.py`      the same graph as apps; the script that is run
`notes.py`         what the program says about itself while it runs
`ledger.py`        what has to be true of that afterwards
`victims.py`       who is who in the tree of processes below a launcher
`faults.py`        what can be done to them, and whether a job has to live on through it
`schedule.py`      which fault comes when
`life.py`          one start of the program: its faults, its end, what it leaves behind
`campaign.py`      lives until the program is done, and runs until enough faults were injected
`storage.py`       a file system that is full, or read-only
`virtual.py`       hosts that are cut off, healed and powered off
`table.py`         what came of it
=================  ==================================================================================================

A *run* has a directory of its own and consists of *lives*: the program is started again, by the same command, until it
ends well. After each life nothing of it may be left: no process, no shared memory. After the run

* the checksum is the one that was known beforehand,
* no result that was in the journal when a life began was computed again in that life,
* no result that a script has seen is missing from the journal,
* all tasks that used a task's result have used the same one: each result carries a mark of the execution it is
  from, and whoever takes it notes the mark,
* nothing has stood still for longer than a limit; if it did, the stacks of all processes are kept, and it is killed.

The injector kills only what descends from a launcher that it has started, by process id.
"""
