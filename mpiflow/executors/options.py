"""What the command line says for every executor that does not say otherwise itself."""

from __future__ import annotations


class Options:
    """Options of ``python -m mpiflow``; written by `cli.run` before the script starts.

    Attributes
    ----------
    isolation : {"runner", "rank", "task"}
        Where tasks run.
    runners_per_rank : int or None
        Tasks a rank runs at once.
    seed : int or None
        For `mpiflow.rng`.
    run_dir : str or None
        The run directory itself.
    progress : bool
        Whether rank 0 shows progress.
    """

    def __init__(self) -> None:
        self.isolation = "runner"
        self.runners_per_rank: int | None = None
        self.seed: int | None = None
        self.run_dir: str | None = None
        self.progress = False
        #: Whether the script was started by ``python -m mpiflow``: then a first call loads a default Config.
        self.started_by_mpiflow = False


options = Options()
