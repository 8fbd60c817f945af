"""A batch script, made of a `JobSpec` and a template. Pure: nothing is looked at but these two.

Templates are Jinja2's, in ``jobscripts/``. Each batch system has one, which extends ``_common.j2``: that is the layout
of every script, and `_launchers.j2` the launchers' command lines. A template sees ``spec`` (the `JobSpec`), ``system``
(the `System`) and a few plain values; a name that is not there is an error, not an empty text. What a user gave goes
through a filter of `mpiflow.jobs.quoting` wherever it is written.
"""

from __future__ import annotations

import functools
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpiflow.errors import ConfigurationError
from mpiflow.jobs import launchers, quoting, systems
from mpiflow.jobs.spec import COMMANDS

if TYPE_CHECKING:
    from jinja2 import Environment

    from mpiflow.jobs.spec import JobSpec

#: Where distributions put their interpreter, and their mpiexec, whatever MPI an interpreter there loads.
_SYSTEM_DIRECTORIES = ("/bin", "/usr/bin", "/usr/local/bin")
#: Launchers that are Open MPI's mpiexec, or are it when the script asks them.
_MAY_BE_OPEN_MPI = ("openmpi", "mpiexec", "mpirun", "fork")


def render(spec: JobSpec) -> str:
    """Make the batch script of a job.

    Parameters
    ----------
    spec : JobSpec
        The job, completed (`JobSpec.completed`).

    Raises
    ------
    ConfigurationError
        The template is not there, is no template, or uses a name that does not exist; or the batch system has no way to
        say something of the job.

    Examples
    --------
    >>> from mpiflow.jobs.spec import JobSpec
    >>> script = render(JobSpec(script="sweep.py", nodes=2).completed("slurm"))
    >>> script.splitlines()[0]
    '#!/bin/bash'
    """
    return _render(spec, "sh")


def render_description(spec: JobSpec, script: str) -> str:
    """Make the submit description of a job, for a batch system whose directives are a file of their own (HTCondor).

    Parameters
    ----------
    spec : JobSpec
        The job, completed.
    script : str
        The path of its script.

    Raises
    ------
    ConfigurationError
        As for `render`.
    """
    return _render(spec, "sub", script_path=script)


def has_description(system: str) -> bool:
    """Whether jobs of a batch system have a submit description beside their script."""
    return system == "htcondor"


def _render(spec: JobSpec, ending: str, **more: str) -> str:
    from jinja2 import TemplateError, TemplateNotFound

    system = systems.find(spec.system)
    launchers.check(spec.system, spec.launcher)
    name = f"{system.name}.{ending}.j2"
    try:
        environment = _environment(tuple(_looked_in(spec)))
        own = Path(spec.template) if spec.template and ending == "sh" else None
        if own is not None and not own.is_dir():
            template = environment.from_string(own.read_text())
        else:
            template = environment.get_template(name)
        text = template.render(spec=spec, system=system, **_values(spec), **more)
    except TemplateNotFound as error:
        looked = ", ".join(_looked_in(spec))
        raise ConfigurationError(f"template {error.name}: there is none; looked in {looked}") from None
    except TemplateError as error:
        where = f"{spec.template or name}{f', line {line}' if (line := getattr(error, 'lineno', 0)) else ''}"
        raise ConfigurationError(f"template {where}: {error.message}") from None
    except OSError as error:
        raise ConfigurationError(f"template {spec.template}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"template {spec.template}: it is no text in UTF-8") from None
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        if not spec.template or isinstance(error, ConfigurationError):
            raise
        words = f"template {spec.template}: {type(error).__name__}: {error}"  # of what its author computes in it
        raise ConfigurationError(words) from error
    return text.rstrip("\n") + "\n"


def _values(spec: JobSpec) -> dict[str, Any]:
    """What templates see beside the spec: values that are easier made in Python."""
    beside = os.path.dirname(spec.python)
    script = spec.script
    if script not in COMMANDS and (script.startswith("-") or ("/" not in script and not script.endswith(".py"))):
        script = f"./{script}"  # else it would be taken for an option or a command of mpiflow
    return {
        "name": quoting.file_name(spec.name),
        "script": script,
        "beside": beside if beside.startswith("/") and beside not in _SYSTEM_DIRECTORIES else "",
        "exports": spec.launcher in _MAY_BE_OPEN_MPI and bool(spec.setup or spec.modules or spec.conda),
        "warned": spec.time is not None and spec.warn_before > 0,
    }


@functools.cache
def _environment(directories: tuple[str, ...]) -> Environment:
    """Jinja2's side of it. It is kept, with the templates it has read: a sweep renders thousands of jobs."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(directories),
        undefined=StrictUndefined,
        autoescape=False,  # it is no HTML, and quoting is the filters' business
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        word=quoting.word,
        words=quoting.words,
        comment=quoting.comment,
        line=quoting.line,
        plain=quoting.plain,
        quoted=quoting.quoted,
        split=_split,
        hours=systems.hours,
        minutes=systems.minutes,
        hours_minutes=systems.hours_minutes,
        refuse=_refuse,
        basename=os.path.basename,
        without=quoting.without,
    )
    return made


def _looked_in(spec: JobSpec) -> list[str]:
    """Directories with templates: the user's own first."""
    own = [spec.template] if spec.template and os.path.isdir(spec.template) else []
    return [*own, str(templates())]


def templates() -> Path:
    """The directory of the templates: in the installed package, or at the top of the checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "jobscripts"
    return installed if installed.is_dir() else package.parent / "jobscripts"


def _split(text: str) -> list[str]:
    """The words of a text, as a shell reads them."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigurationError(f"wrapper is {text!r}: {error}") from None


def _refuse(value: object, field: str, why: str) -> str:
    """For templates: what was said makes no sense in this batch system. Nothing said is no error."""
    if value:
        raise ConfigurationError(f"{field} is {value!r}: {why}")
    return ""
