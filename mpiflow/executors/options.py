"""What the command line says for every executor that does not say otherwise itself."""

from __future__ import annotations


class Options:
    """Options of ``python -m mpiflow``; written by `cli.rank0` before the script starts.

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
    config_file : str or None
        A TOML file with the Config for ``load()`` without one, and for a first call.
    as_parsl : bool
        Whether ``import parsl`` means mpiflow.
    trust : bool
        Whether results of others' runs are taken up, which may run their code.
    fresh : bool
        Whether nothing is taken up from earlier runs.
    checkpoint_all : bool
        Whether apps without ``cache=True`` are remembered too.
    stall_warning : float
        Seconds without progress after which rank 0 says what it waits for; 0 for never.
    launch : str
        The MPI, the launcher and the ranks of this job, for the log; empty without MPI.
    """

    def __init__(self) -> None:
        self.isolation = "runner"
        self.runners_per_rank: int | None = None
        self.seed: int | None = None
        self.run_dir: str | None = None
        self.progress = False
        self.config_file: str | None = None
        self.as_parsl = False
        self.trust = False
        self.fresh = False
        self.checkpoint_all = False
        self.stall_warning = 300.0
        self.launch = ""
        #: Whether the script was started by ``python -m mpiflow``: then a first call loads a default Config.
        self.started_by_mpiflow = False


options = Options()
