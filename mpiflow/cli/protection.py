"""What a launch offers against the loss of a rank, in words, with what to type for more.

Which of the mechanisms there is, `cli.boot` finds out; this module only speaks.
"""

from __future__ import annotations

import sys

_WORDS = {
    "ULFM": "the job goes on without it: MPI reports a lost rank (ULFM)",
    "guardian": "the job goes on without it: a guardian stands between launcher and rank (under srun: with -K)",
    "": "the whole job ends: this launch has no protection",
}


def in_words(protection: str) -> str:
    """What happens when a rank dies.

    Parameters
    ----------
    protection : {"ULFM", "guardian", ""}
        What `cli.boot` has found.

    Examples
    --------
    >>> in_words("ULFM")
    'the job goes on without it: MPI reports a lost rank (ULFM)'
    """
    return _WORDS[protection]


def how_to_get_it(library: str, launcher: str, ranks: int) -> str:
    """What to type, in the place of this launch's own launcher, to be protected.

    Parameters
    ----------
    library : str
        The MPI library, in its own words.
    launcher : str
        The launcher, as `comm.launcher` names it; empty where none is known.
    ranks : int
        Rank 0 included.

    Examples
    --------
    >>> how_to_get_it("Open MPI v5.0.8", "Open MPI (PRRTE)", 4)
    'mpiexec --with-ft ulfm -n 4 python -m mpiflow ...'
    >>> how_to_get_it("MPICH Version: 4.3", "Slurm srun", 4)
    'srun --mpi=pmi2 -K -n 4 python -m mpiflow ...'
    """
    by_slurm = launcher == "Slurm srun"
    if "Open MPI" in library:
        started = "mpiexec --with-ft ulfm"
    else:
        started = "srun --mpi=pmi2 -K" if by_slurm else "mpiexec"
    whose = "" if "Open MPI" in library or by_slurm else ", with MPICH's own mpiexec (hydra)"
    return f"{started} -n {ranks} python -m mpiflow ...{whose}"


def warn_unprotected(protection: str, library: str, launcher: str, ranks: int) -> None:
    """Say once, at the start of a job, that the loss of one rank will be the end of it; nothing where it will not.

    Parameters
    ----------
    protection : {"ULFM", "guardian", ""}
        What `cli.boot` has found.
    library, launcher, ranks
        As for `how_to_get_it`.
    """
    if protection or ranks == 1:
        return
    cure = how_to_get_it(library, launcher, ranks)
    print(f"mpiflow: when a rank dies, {in_words(protection)}. To have one: {cure}", file=sys.stderr, flush=True)
