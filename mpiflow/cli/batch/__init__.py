"""``mpiflow batch``: shell commands as tasks across the ranks, for those who would take GNU parallel.

``template.py`` makes the commands, ``joblog.py`` remembers them in GNU parallel's columns, ``command.py`` runs one in a
runner, ``settling.py`` takes what comes back, and ``words.py`` has the command line. The script that rank 0 runs is
``mpiflow/cli/scripts/batch.py``: a farm's script like any other, so that draining, relaunching and lost ranks need
nothing of their own here.

Commands are bytes as soon as they leave the command line or a file, for a file's name need not be text. What GNU
parallel does was measured (version 20221122) and is followed, with these exceptions, each for a reason:

* All commands are read and checked before the first one runs. A NUL in line 90,000 is said at once.
* ``--resume`` compares commands with those in the joblog, and refuses when they differ: GNU parallel looks at the
  numbers alone, so that a line added on top skips the wrong jobs.
* A failure that the joblog has and that is not tried again counts in the exit code: a job that has gone on by itself
  three times must not end with 0 because its last part was well.
* The exit code is never one of `exitcodes`: 85 failed jobs end with 87, for to a batch script 85 means "go on".
"""
