"""Every exception: its fields, its words, and that it survives the way from a worker."""

from __future__ import annotations

import pickle

import pytest

from mpiflow import errors
from mpiflow.errors import MpiflowError

FILLED: list[tuple[MpiflowError, str]] = [
    (errors.AppTimeout("App f exceeded walltime: 1 seconds"), "App f exceeded walltime: 1 seconds"),
    (errors.BadMessage("torn"), "Received an unsupported message. Reason: torn"),
    (errors.BadStateException("cpu", ValueError("x")), "Executor cpu failed due to: x"),
    (errors.BadStdStreamFile("no/where"), "no/where"),
    (errors.BashAppNoReturn("none"), "none"),
    (errors.BashExitFailure("f", 3), "bash_app f failed with unix exit code 3"),
    (errors.DeserializationError("why"), "why"),
    (errors.ExecutorError("cpu", "it broke"), "Executor cpu failed due to: it broke"),
    (errors.ExecutorError("words alone"), "words alone"),
    (errors.FarmLost("all gone"), "all gone"),
    (errors.InvalidResourceSpecification({"a"}, "no"), "Invalid Resource Specification Supplied: {'a'}. no"),
    (errors.ManagerLost("rank 3 is gone", 3, "node1"), "rank 3 is gone"),
    (errors.MissingOutputs("Missing outputs from app f", ["x"]), "Missing outputs from app f: x"),
    (errors.OptionalModuleMissing(["a", "b"], "for c"), "a, b cannot be imported: for c"),
    (errors.ScalingFailed("cpu", "full"), "Executor cpu failed to scale due to: full"),
    (errors.UnsupportedFeatureError("gpu", "threads", "farm"), "The gpu feature is unsupported in threads; use farm"),
    (errors.UnsupportedFeatureError("gpu", "threads"), "The gpu feature is unsupported in threads"),
    (errors.UnsupportedFeatureError("a sentence"), "a sentence"),
    (errors.WorkerLost("killed"), "killed"),
    (errors.WorkerLost("killed", 3, "node1"), "killed"),
]


@pytest.mark.parametrize(("error", "words"), FILLED, ids=[f"{type(e).__name__}-{w}" for e, w in FILLED])
def test_words_and_fields_survive_pickling(error: MpiflowError, words: str) -> None:
    assert str(error) == words
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), repr(again), vars(again)) == (type(error), words, repr(error), vars(error))


def test_fields_are_those_that_programs_ask_for() -> None:
    lost = errors.WorkerLost("killed", 3, "node1")
    assert (lost.worker_id, lost.hostname) == (3, "node1")
    bad = errors.InvalidResourceSpecification({"gpus"}, "no")
    assert (bad.invalid_keys, bad.message) == ({"gpus"}, "no")


@pytest.mark.parametrize(
    "name",
    [
        *("AppBadFormatting", "AppException", "AppTimeout", "BadMessage", "BadStateException", "BadStdStreamFile"),
        *("BashAppNoReturn", "BashExitFailure", "ConfigurationError", "DataFlowException", "DependencyError"),
        *("DeserializationError", "ExecutorError", "InternalConsistencyError", "InvalidResourceSpecification"),
        *("JoinError", "ManagerLost", "MissingOutputs", "NoDataFlowKernelError", "OptionalModuleMissing"),
        *("PropagatedException", "ScalingFailed", "SerializationError", "TooManyJobFailuresError"),
        *("UnsupportedFeatureError", "WorkerLost", "BadCheckpoint"),
    ],
)
def test_every_exception_of_parsls_is_here_and_is_one_of_ours(name: str) -> None:
    assert issubclass(getattr(errors, name), errors.ParslError)
