"""Stand-ins for aprun, jsrun, ``flux run`` and PALS: they check their options, and an mpiexec starts the ranks."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

from standins.request import Refused, long_options, whole_number


def started(words: list[str], ranks: int, environment: Sequence[str] = ()) -> list[str]:
    """The line that really starts the program: the mpiexec that the stand-in was made with, of MPICH or of Open MPI."""
    mpiexec = shlex.split(os.environ.get("STANDIN_MPIEXEC", "mpiexec"))
    if "-launcher" in mpiexec:
        given = [word for pair in environment for word in ("-genv", *pair.partition("=")[::2])]
    else:
        given = [word for pair in environment for word in ("-x", pair)]
    return [*mpiexec, *given, "-n", str(ranks), *words]


def aprun(arguments: Sequence[str]) -> list[str]:
    """``aprun -n PES -N PES_PER_NODE -d DEPTH -j CPUS -cc WHERE -e VAR=value PROGRAM``."""
    words = list(arguments)
    said: dict[str, str] = {}
    environment: list[str] = []
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word in ("-q", "-b", "-B", "-R", "-ss"):
            continue
        if word not in ("-n", "-N", "-d", "-j", "-cc", "-S", "-L", "-e", "-m", "-r", "-t", "-p"):
            found = re.fullmatch(r"-([nNdjSmrt])(\d+h?s?)", word)
            if found is None:
                raise Refused(f"aprun: unrecognized option '{word}'")
            said[f"-{found[1]}"] = found[2]
            continue
        if not words:
            raise Refused(f"aprun: option requires an argument -- '{word}'")
        value = words.pop(0)
        if word == "-e":
            if "=" not in value:
                raise Refused(f"aprun: -e {value}: must be VAR=value")
            environment.append(value)
        said[word] = value
    for name in ("-n", "-N", "-d", "-j", "-S"):
        if name in said:
            whole_number(said[name], name, "aprun")
    if said.get("-cc", "cpu") not in ("cpu", "depth", "numa_node", "none") and not re.fullmatch(
        r"[\d,:x-]+", said["-cc"]
    ):
        raise Refused(f"aprun: -cc {said['-cc']}: invalid cpu_list")
    if "COBALT_JOBID" not in os.environ and "PBS_JOBID" not in os.environ:
        raise Refused("aprun: [NID 00001] Exiting due to errors. No reservation: aprun is for batch jobs")
    ranks = int(said.get("-n", "1"))
    nodes = int(os.environ.get("COBALT_PARTSIZE") or os.environ.get("PBS_NUM_NODES") or 1)
    if "-N" in said and -(-ranks // int(said["-N"])) > nodes:
        raise Refused("apsched: claim exceeds reservation's node-count")
    return started(_program(words, "aprun"), ranks, environment)


def jsrun(arguments: Sequence[str]) -> list[str]:
    """``jsrun -n SETS -r SETS_A_HOST -a TASKS_A_SET -c CORES_A_SET -g GPUS_A_SET PROGRAM``."""
    names = {
        "n": "nrs",
        "r": "rs_per_host",
        "a": "tasks_per_rs",
        "c": "cpu_per_rs",
        "g": "gpu_per_rs",
        "p": "np",
        "b": "bind",
        "d": "launch_distribution",
        "l": "latency_priority",
        "E": "env",
        "k": "stdio_stderr",
        "o": "stdio_stdout",
        "U": "use_reservation",
        "F": "env_no_propagate",
        "h": "chdir",
        "M": "smpiargs",
        "X": "exit_on_error",
        "S": "save_resources",
        "m": "memory_per_rs",
        "P": "pre_post_exec",
        "e": "stdio_mode",
    }
    takes = dict.fromkeys(names.values(), True)
    # jsrun knows its long options with underscores; dashes mean the same
    words = [
        word.replace("-", "_").replace("__", "--", 1) if re.match(r"--[a-z-]+$", word) else word for word in arguments
    ]
    said_pairs, program = long_options(words, takes, names, "jsrun")
    said = dict(said_pairs)
    for name in ("nrs", "rs_per_host", "tasks_per_rs", "np"):
        if name in said and said[name].upper() not in ("ALL_HOSTS", "ALL"):
            whole_number(said[name], f"--{name}", "jsrun: Error")
    if "np" in said and "nrs" in said and "tasks_per_rs" in said:
        raise Refused("jsrun: Error: --np cannot be given with --tasks_per_rs")
    for name in ("cpu_per_rs", "gpu_per_rs"):
        if not re.fullmatch(r"\d+|ALL_CPUS|ALL_GPUS|all", said.get(name, "1"), re.IGNORECASE):
            raise Refused(f"jsrun: Error: --{name} {said[name]}")
    if not re.fullmatch(r"none|rs|packed(:(smt:)?\d+)?|proportional-packed(:\d+)?", said.get("bind", "rs")):
        raise Refused(f"jsrun: Error: --bind {said['bind']}")
    if said.get("exit_on_error", "1") not in ("0", "1"):
        raise Refused(f"jsrun: Error: --exit_on_error {said['exit_on_error']}")
    if "LSB_JOBID" not in os.environ:
        raise Refused(
            "jsrun: Error: It is only possible to use js commands within a job allocation unless CSM is running"
        )
    sets = said.get("nrs", "1")
    ranks = (
        int(said["np"])
        if "np" in said
        else (1 if sets.upper().startswith("ALL") else int(sets)) * int(said.get("tasks_per_rs", "1"))
    )
    per_host = int(said.get("rs_per_host", "0")) * int(said.get("tasks_per_rs", "1"))
    if per_host and ranks > per_host * int(os.environ.get("LSB_DJOB_NUMPROC", "1")):
        raise Refused("jsrun: Error: insufficient resources")
    return started(_program(program, "jsrun"), ranks)


def flux_run(arguments: Sequence[str]) -> list[str]:
    """``flux run -N NODES -n TASKS --tasks-per-node=N -c CORES -g GPUS PROGRAM``."""
    letters = {
        "N": "nodes",
        "n": "ntasks",
        "c": "cores-per-task",
        "g": "gpus-per-task",
        "x": "exclusive",
        "o": "setopt",
        "t": "time-limit",
        "q": "queue",
        "S": "setattr",
        "u": "unbuffered",
        "l": "label-io",
        "v": "verbose",
    }
    takes = dict.fromkeys(
        (
            "nodes",
            "ntasks",
            "cores-per-task",
            "gpus-per-task",
            "gpus-per-node",
            "tasks-per-node",
            "cores",
            "tasks-per-core",
            "setopt",
            "time-limit",
            "signal",
            "env",
            "env-remove",
            "output",
            "error",
            "job-name",
            "queue",
            "setattr",
            "cwd",
            "requires",
        ),
        True,
    ) | {"exclusive": False, "unbuffered": False, "label-io": False, "verbose": False}
    pairs, program = long_options(arguments, takes, letters, "flux-run")
    said = dict(pairs)
    for name in ("nodes", "ntasks", "tasks-per-node", "cores-per-task", "gpus-per-task", "gpus-per-node"):
        if name in said and not (said[name] == "0" and name.startswith("gpus")):
            whole_number(said[name], f"--{name}", "flux-run: error")
    if "tasks-per-node" in said and ("ntasks" in said or "cores-per-task" in said or "gpus-per-task" in said):
        # flux-core: "per-resource options can't be used with per-task options"
        raise Refused("flux-run: ERROR: Per-resource options can't be used with per-task options")
    nodes, _slots = (os.environ.get("STANDIN_FLUX") or "0 0").split()
    if nodes == "0":
        raise Refused("flux-run: ERROR: Unable to connect to Flux: broker socket was not found")
    if int(said.get("nodes", "1")) > int(nodes):
        raise Refused(f"flux-run: job unsatisfiable: {said['nodes']} nodes of {nodes}")
    ranks = int(said.get("ntasks", int(said.get("nodes", "1")) * int(said.get("tasks-per-node", "1"))))
    return started(_program(program, "flux-run"), ranks, ["FLUX_JOB_ID=1"])


def pals(arguments: Sequence[str]) -> list[str]:
    """``mpiexec -n RANKS --ppn RANKS_PER_NODE --depth D --cpu-bind HOW PROGRAM``, as HPE's PALS has it."""
    if list(arguments) == ["--version"]:
        return ["echo", "PALS version 1.2.12"]
    names = {"n": "np", "N": "ppn", "d": "depth"}
    takes = dict.fromkeys(
        (
            "np",
            "ppn",
            "depth",
            "cpu-bind",
            "gpu-bind",
            "mem-bind",
            "hostfile",
            "hosts",
            "hostlist",
            "env",
            "umask",
            "wdir",
            "pmi",
            "rlimits",
        ),
        True,
    ) | {
        "envall": False,
        "no-vni": False,
        "line-buffer": False,
        "label": False,
        "exclusive": False,
        "abort-on-failure": False,
    }
    # PALS takes long options with one dash as well: -ppn, -envall
    words = [f"-{word}" if re.match(r"-[a-z]{2}", word) else word for word in arguments]
    stop = next(
        (
            place
            for place, word in enumerate(arguments)
            if not word.startswith("-") and place and not _is_value(arguments, place, takes)
        ),
        len(words),
    )
    pairs, program = long_options([*words[:stop], *arguments[stop:]], takes, names, "mpiexec")
    said = dict(pairs)
    for name in ("np", "ppn", "depth"):
        if name in said:
            whole_number(said[name], f"--{name}", "mpiexec")
    if "PBS_JOBID" not in os.environ:
        raise Refused("mpiexec: no PBS job")
    return started(_program(program, "mpiexec"), int(said.get("np", "1")))


def _is_value(words: Sequence[str], place: int, takes: dict[str, bool]) -> bool:
    before = words[place - 1]
    name = before.lstrip("-")
    return before.startswith("-") and "=" not in before and (name in ("n", "N", "d") or takes.get(name, False))


def _program(words: list[str], tool: str) -> list[str]:
    if not words:
        raise Refused(f"{tool}: no program was named")
    return words
