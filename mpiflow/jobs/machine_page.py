"""What is known of a machine as a page: for ``mpiflow machines NAME`` and for ``docs/machines/``."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from mpiflow.jobs.presets import TOPICS, Fact, Machine

_HEADS = {
    "launcher": "Launcher",
    "inside": "Inside an allocation",
    "cores": "Cores",
    "gpus": "GPUs",
    "filesystems": "File systems",
    "scratch": "Scratch",
    "environment": "The Python environment",
    "container": "Containers",
    "continuation": "Going on after the end of the time",
    "tmpdir": "TMPDIR and the like",
    "mpi4py": "mpi4py against the site's MPI",
    "limits": "Limits",
}
#: What stands for a field in the example of a page.
_EXAMPLES = {
    "account": "PROJECT", "time": "2:00:00", "filesystems": "NAMES", "qos": "QOS", "queue": "QUEUE",
}  # fmt: skip


def page(machine: Machine) -> str:
    """All that is known of a machine, as Markdown.

    Parameters
    ----------
    machine : Machine
        Its preset.

    Returns
    -------
    str
        The page, which ends in a newline.

    Examples
    --------
    >>> from mpiflow.jobs.presets import find
    >>> page(find("frontier")).splitlines()[0]
    '# Frontier'
    """
    parts = [f"# {machine.title}", *_introduction(machine)]
    for topic in TOPICS:
        facts = [fact for fact in machine.facts if fact.topic == topic]
        if facts:
            parts.append(f"## {_HEADS[topic]}")
            parts.extend(_paragraph(fact) for fact in facts)
    return "\n\n".join(parts) + "\n"


def _introduction(machine: Machine) -> Iterator[str]:
    if machine.site:
        yield f"{machine.site}. Preset `{machine.name}`."
    else:
        yield f"Preset `{machine.name}`."
    if machine.by_hand:
        yield f"No job can be submitted there by mpiflow: {machine.by_hand}."
    else:
        yield f"    {_example(machine)}"
    values = [f"`{name}` = {_value(value)}" for name, value in machine.job.items()]
    if machine.cores:
        threads = f" with {machine.threads_per_core} hardware threads each" if machine.threads_per_core > 1 else ""
        values.append(f"{machine.cores} cores of a node for a job{threads}")
    if machine.gpus:
        values.append(f"{machine.gpus} GPUs a node")
    if machine.gpu_options:
        options = shlex.join(machine.gpu_options)
        values.append(f"with GPUs, {machine.gpu_ranks} ranks a node, and the launcher gets `{options}`")
    if values:
        yield "What the preset says, where you say nothing:"
        yield "\n".join(f"- {value}" for value in values)
    if any(not fact.checked for fact in machine.facts):
        yield (
            "What is marked *unchecked* was read, and not tried there. Sites change, and `mpiflow submit --dry-run` "
            "shows what would be submitted."
        )


def _example(machine: Machine) -> str:
    options = [f"--{name.replace('_', '-')} {_EXAMPLES.get(name, 'VALUE')}" for name in machine.requires]
    ranks = machine.gpu_ranks if machine.job.get("gpus_per_node") else (machine.cores or 8)
    needed = "".join(f" {option}" for option in options)
    return f"mpiflow submit --machine {machine.name} --nodes 4 --ranks-per-node {ranks}{needed} script.py"


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return f"`{shlex.join(map(str, value))}`"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"`{value}`"


def _paragraph(fact: Fact) -> str:
    how = "checked" if fact.checked else "unchecked"
    return f"{fact.text}\n<br>*{how}, {fact.date}: {fact.source}*"
