"""Parsl's modules and their names: where mpiflow has each, and why it has not.

A home is the module that has the name, followed by the name there where it is another one.
"""

from __future__ import annotations

_APPS = "mpiflow.apps.decorators"
_ERRORS = "mpiflow.errors"
_LOADER = "mpiflow.kernel.loader"
_LOGS = "mpiflow.monitor.logs"
_RESOLVERS = "mpiflow.kernel.dependency_resolvers"
_STAGING = "mpiflow.data.staging"
_ACCEPTED_EXECUTORS = "mpiflow.parsl.executors"
_LAUNCHERS = "mpiflow.parsl.launchers"
_PROVIDERS = "mpiflow.parsl.providers"
_MONITORING = "mpiflow.parsl.monitoring"
_HUB = "mpiflow.monitor.hub"
_BLOCKS = "mpiflow.parsl.blocks"


def _all_in(home: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, home)


_decorators = _all_in(_APPS, "bash_app", "join_app", "python_app")
_of_the_loader = _all_in(_LOADER, "clear", "dfk", "load", "wait_for_current_tasks")
_base_errors = _all_in(
    _ERRORS,
    "ConfigurationError",
    "InternalConsistencyError",
    "NoDataFlowKernelError",
    "OptionalModuleMissing",
    "ParslError",
)
_app_errors = _all_in(
    _ERRORS,
    "AppBadFormatting",
    "AppException",
    "AppTimeout",
    "BadStdStreamFile",
    "BashAppNoReturn",
    "BashExitFailure",
    "MissingOutputs",
    "ParslError",
)
_dataflow_errors = _all_in(
    _ERRORS, "BadCheckpoint", "DataFlowException", "DependencyError", "JoinError", "ParslError", "PropagatedException"
)
_executor_errors = _all_in(
    _ERRORS,
    "BadMessage",
    "BadStateException",
    "ExecutorError",
    "InvalidResourceSpecification",
    "ParslError",
    "ScalingFailed",
    "UnsupportedFeatureError",
)
_launchers = _all_in(
    _LAUNCHERS,
    "AprunLauncher",
    "GnuParallelLauncher",
    "JsrunLauncher",
    "MpiExecLauncher",
    "MpiRunLauncher",
    "SimpleLauncher",
    "SingleNodeLauncher",
    "SrunLauncher",
    "SrunMPILauncher",
    "WrappedLauncher",
)
_providers = _all_in(
    _PROVIDERS,
    "AWSProvider",
    "AzureProvider",
    "CondorProvider",
    "GoogleCloudProvider",
    "GridEngineProvider",
    "KubernetesProvider",
    "LSFProvider",
    "LocalProvider",
    "PBSProProvider",
    "SlurmProvider",
    "TorqueProvider",
)
_checkpoints = _all_in("mpiflow.kernel.earlier_runs", "get_all_checkpoints", "get_last_checkpoint")

#: Every module that can be imported, with its names.
HOMES: dict[str, dict[str, str]] = {
    "parsl": {
        **_decorators,
        **_of_the_loader,
        "AUTO_LOGNAME": "mpiflow.kernel.reserved",
        "Config": "mpiflow.config",
        "DataFlowKernel": "mpiflow.kernel.dataflow",
        "DataFlowKernelLoader": _LOADER,
        "File": "mpiflow.data.files",
        "HighThroughputExecutor": _ACCEPTED_EXECUTORS,
        "MonitoringHub": _HUB,
        "ThreadPoolExecutor": "mpiflow.executors.threads",
        "VERSION": "mpiflow.parsl",
        "__version__": "mpiflow.parsl:VERSION",
        **_all_in(_LOGS, "set_file_logger", "set_stream_logger"),
    },
    "parsl.addresses": _all_in(
        "mpiflow.parsl.addresses",
        "address_by_hostname",
        "address_by_interface",
        "address_by_query",
        "address_by_route",
        "get_all_addresses",
        "get_any_address",
    ),
    "parsl.app": {},
    "parsl.app.app": _decorators,
    "parsl.app.bash": {},
    "parsl.app.errors": _app_errors,
    "parsl.app.futures": {"DataFuture": "mpiflow.data.futures", "File": "mpiflow.data.files"},
    "parsl.app.python": {"timeout": "mpiflow.parsl.timeouts"},
    "parsl.concurrent": {"ParslPoolExecutor": "mpiflow.concurrent"},
    "parsl.config": {"Config": "mpiflow.config"},
    "parsl.configs": {},
    "parsl.configs.htex_local": {"config": "mpiflow.parsl.configs:htex_local"},
    "parsl.configs.local_threads": {"config": "mpiflow.parsl.configs:local_threads"},
    "parsl.data_provider": {},
    "parsl.data_provider.data_manager": {
        "DataManager": "mpiflow.kernel.staging",
        "default_staging": f"{_STAGING}.defaults",
    },
    "parsl.data_provider.file_noop": {"NoOpFileStaging": f"{_STAGING}.noop"},
    "parsl.data_provider.files": {"File": "mpiflow.data.files"},
    "parsl.data_provider.ftp": _all_in(f"{_STAGING}.ftp", "FTPInTaskStaging", "FTPSeparateTaskStaging"),
    "parsl.data_provider.http": _all_in(f"{_STAGING}.http", "HTTPInTaskStaging", "HTTPSeparateTaskStaging"),
    "parsl.data_provider.rsync": {"RSyncStaging": f"{_STAGING}.rsync"},
    "parsl.data_provider.staging": {"Staging": f"{_STAGING}.base"},
    "parsl.data_provider.zip": _all_in(f"{_STAGING}.zip", "ZipAuthorityError", "ZipFileStaging", "zip_path_split"),
    "parsl.dataflow": {},
    "parsl.dataflow.dependency_resolvers": _all_in(
        _RESOLVERS, "DEEP_DEPENDENCY_RESOLVER", "DependencyResolver", "SHALLOW_DEPENDENCY_RESOLVER"
    ),
    "parsl.dataflow.dflow": {
        "DataFlowKernel": "mpiflow.kernel.dataflow",
        "DataFlowKernelLoader": _LOADER,
    },
    "parsl.dataflow.errors": _dataflow_errors,
    "parsl.dataflow.futures": {"AppFuture": "mpiflow.kernel.futures"},
    "parsl.dataflow.memoization": {
        **_all_in("mpiflow.kernel.memoizer", "BasicMemoizer", "Memoizer"),
        "id_for_memo": "mpiflow.kernel.memo_key",
    },
    "parsl.dataflow.states": _all_in("mpiflow.kernel.task", "FINAL_STATES", "States"),
    "parsl.dataflow.taskrecord": {"TaskRecord": "mpiflow.kernel.task"},
    "parsl.errors": _base_errors,
    "parsl.executors": {
        **_all_in(_ACCEPTED_EXECUTORS, "HighThroughputExecutor", "MPIExecutor"),
        "ParslExecutor": "mpiflow.executors.base:Executor",
        "ThreadPoolExecutor": "mpiflow.executors.threads",
    },
    "parsl.executors.base": {"ParslExecutor": "mpiflow.executors.base:Executor"},
    "parsl.executors.errors": _executor_errors,
    "parsl.executors.high_throughput": {},
    "parsl.executors.high_throughput.errors": _all_in(_ERRORS, "ManagerLost", "WorkerLost"),
    "parsl.executors.high_throughput.executor": {"HighThroughputExecutor": _ACCEPTED_EXECUTORS},
    "parsl.executors.high_throughput.manager_selector": _all_in(
        _BLOCKS, "BlockIdManagerSelector", "ManagerSelector", "RandomManagerSelector"
    ),
    "parsl.executors.high_throughput.mpi_executor": {"MPIExecutor": _ACCEPTED_EXECUTORS},
    "parsl.executors.threads": {"ThreadPoolExecutor": "mpiflow.executors.threads"},
    "parsl.jobs": {},
    "parsl.jobs.error_handlers": _all_in(
        _BLOCKS, "noop_error_handler", "simple_error_handler", "windowed_error_handler"
    ),
    "parsl.jobs.errors": {"TooManyJobFailuresError": _ERRORS},
    "parsl.launchers": _launchers,
    "parsl.launchers.base": {"Launcher": _LAUNCHERS},
    "parsl.launchers.launchers": {**_launchers, "Launcher": _LAUNCHERS},
    "parsl.log_utils": _all_in(_LOGS, "DEFAULT_FORMAT", "set_file_logger", "set_stream_logger"),
    "parsl.logconfigs": {},
    "parsl.logconfigs.base": {"LogConfig": _LOGS},
    "parsl.logconfigs.file": {"FileLogging": _LOGS},
    "parsl.logconfigs.json": {"JSONLogging": _LOGS},
    "parsl.logconfigs.noop": {"NoopLogging": _LOGS},
    "parsl.monitoring": {"MonitoringHub": _HUB},
    "parsl.monitoring.monitoring": {"MonitoringHub": _HUB},
    "parsl.monitoring.radios": {},
    "parsl.monitoring.radios.base": {"RadioConfig": _MONITORING},
    **{
        f"parsl.monitoring.radios.{module}": {name: _MONITORING}
        for module, name in (
            ("filesystem", "FilesystemRadio"),
            ("htex", "HTEXRadio"),
            ("multiprocessing", "MultiprocessingQueueRadio"),
            ("udp", "UDPRadio"),
        )
    },
    "parsl.process_loggers": {"wrap_with_logs": _LOGS},
    "parsl.providers": _providers,
    "parsl.providers.base": {"ExecutionProvider": _PROVIDERS},
    **{
        module: {name: _PROVIDERS}
        for package, below, name in (
            ("aws", "aws", "AWSProvider"),
            ("azure", "azure", "AzureProvider"),
            ("condor", "condor", "CondorProvider"),
            ("googlecloud", "googlecloud", "GoogleCloudProvider"),
            ("grid_engine", "grid_engine", "GridEngineProvider"),
            ("kubernetes", "kube", "KubernetesProvider"),
            ("local", "local", "LocalProvider"),
            ("lsf", "lsf", "LSFProvider"),
            ("pbspro", "pbspro", "PBSProProvider"),
            ("slurm", "slurm", "SlurmProvider"),
            ("torque", "torque", "TorqueProvider"),
        )
        for module in (f"parsl.providers.{package}", f"parsl.providers.{package}.{below}")
    },
    "parsl.serialize": {},
    "parsl.serialize.errors": _all_in(_ERRORS, "DeserializationError", "SerializationError"),
    "parsl.usage_tracking": {},
    "parsl.usage_tracking.levels": _all_in(_BLOCKS, "DISABLED", "LEVEL_1", "LEVEL_2", "LEVEL_3"),
    "parsl.utils": {
        **_checkpoints,
        **_all_in("mpiflow.parsl.files", "time_limited_open", "wait_for_file"),
        "RepresentationMixin": "mpiflow.representation",
    },
    "parsl.version": {"VERSION": "mpiflow.parsl"},
}

_OTHER_SYSTEM = "it drives another task system; here the ranks of the job do the work"
_NETWORK = "nothing of a farm listens on a network"
_INSIDE = "it is a part of how Parsl is built"

#: What Parsl has and mpiflow has not: modules, with all that is below them, and names.
LEFT_OUT: dict[str, str] = {
    "parsl.WorkQueueExecutor": _OTHER_SYSTEM,
    "parsl.addresses": _NETWORK,
    "parsl.app.app.AppBase": _INSIDE,
    "parsl.app.bash.BashApp": _INSIDE,
    "parsl.app.errors.RemoteExceptionWrapper": _INSIDE,
    "parsl.app.errors.wrap_error": _INSIDE,
    "parsl.app.python.PythonApp": _INSIDE,
    "parsl.benchmark": "the command `mpiflow perf` measures the same, with the same options",
    "parsl.configs": "a script says what it wants of the job; write the Config into it, or into a TOML file",
    "parsl.curvezmq": _NETWORK,
    "parsl.data_provider.globus": "its transfers need a service outside; transfer before the job or after it",
    "parsl.executors.FluxExecutor": _OTHER_SYSTEM,
    "parsl.executors.GlobusComputeExecutor": _OTHER_SYSTEM,
    "parsl.executors.WorkQueueExecutor": _OTHER_SYSTEM,
    "parsl.executors.execute_task": _INSIDE,
    "parsl.executors.flux": _OTHER_SYSTEM,
    "parsl.executors.globus_compute": _OTHER_SYSTEM,
    "parsl.executors.high_throughput": _INSIDE,
    "parsl.executors.radical": _OTHER_SYSTEM,
    "parsl.executors.status_handling": "the workers are the ranks of one job; there are no blocks to scale",
    "parsl.executors.taskvine": _OTHER_SYSTEM,
    "parsl.executors.workqueue": _OTHER_SYSTEM,
    "parsl.jobs": "the workers are the ranks of one job; there are no blocks to scale",
    "parsl.launchers.errors": _INSIDE,
    "parsl.monitoring": "rank 0 writes the database by itself; MonitoringHub is all there is of it",
    "parsl.multiprocessing": _INSIDE,
    "parsl.providers": "the nodes are those of the batch job that the script runs in",
    "parsl.serialize": "arguments and results are pickled; there are no other methods to register",
    "parsl.usage_tracking": "nobody is told what you run",
    "parsl.utils": _INSIDE,
}
