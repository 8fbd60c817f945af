"""Make the JSON Schemas here from what the clouds publish: see README.md."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

HERE = Path(__file__).parent
DRAFT = "https://json-schema.org/draft/2020-12/schema"
KUBERNETES = "kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict/"
#: Bounds and patterns that stand in the text of the documentation of AWS Batch only.
AWS_IN_WORDS = {
    ("RegisterJobDefinitionRequest", "jobDefinitionName"): {"pattern": "^[A-Za-z0-9_-]{1,128}$"},
    ("RetryStrategy", "attempts"): {"minimum": 1, "maximum": 10},
    ("JobTimeout", "attemptDurationSeconds"): {"minimum": 60},
    ("EvaluateOnExit", "onExitCode"): {"pattern": "^[0-9]{0,511}[0-9*]$"},
    ("EvaluateOnExit", "onStatusReason"): {"pattern": r"^[\w.: \t]{0,511}[\w.:* \t]$"},
}


def from_aws(wheel: Path) -> dict[str, Any]:
    """The request RegisterJobDefinition of AWS Batch, from the service's model in botocore."""
    with ZipFile(wheel) as archive:
        model = json.loads(gzip.decompress(archive.read("botocore/data/batch/2016-08-10/service-2.json.gz")))
    shapes = model["shapes"]

    def definition(name: str) -> tuple[dict[str, Any], set[str]]:
        shape = shapes[name]
        if shape["type"] == "structure":
            members = {key: member["shape"] for key, member in shape.get("members", {}).items()}
            made: dict[str, Any] = {
                "type": "object",
                "properties": {
                    key: _ref(member) | AWS_IN_WORDS.get((name, key), {}) for key, member in members.items()
                },
                "required": shape.get("required", []),
                "additionalProperties": False,
            }
            return made, set(members.values())
        if shape["type"] == "list":
            return {"type": "array", "items": _ref(shape["member"]["shape"])}, {shape["member"]["shape"]}
        if shape["type"] == "map":
            made = {"type": "object", "additionalProperties": _ref(shape["value"]["shape"])}
            return made, {shape["value"]["shape"]}
        kinds = {"string": "string", "integer": "integer", "long": "integer", "boolean": "boolean", "float": "number"}
        made = {"type": kinds[shape["type"]]}
        if "enum" in shape:
            made["enum"] = shape["enum"]
        return made, set()

    return _closed("RegisterJobDefinitionRequest", definition)


def from_google(wheel: Path) -> dict[str, Any]:
    """The resource Job of Google Cloud Batch, from the discovery document in google-api-python-client."""
    with ZipFile(wheel) as archive:
        document = json.loads(archive.read("googleapiclient/discovery_cache/documents/batch.v1.json"))

    def converted(old: dict[str, Any], below: set[str]) -> dict[str, Any]:
        if "$ref" in old:
            below.add(old["$ref"])
            return _ref(old["$ref"])
        if old["type"] == "array":
            return {"type": "array", "items": converted(old["items"], below)}
        if old["type"] == "object" and "additionalProperties" in old:
            return {"type": "object", "additionalProperties": converted(old["additionalProperties"], below)}
        if old["type"] == "object":
            properties = {
                key: converted(value, below) for key, value in old.get("properties", {}).items()
                if not value.get("readOnly")
            }  # fmt: skip
            return {"type": "object", "properties": properties, "additionalProperties": False}
        made = {"type": old["type"]}
        if "enum" in old:
            made["enum"] = old["enum"]
        if old.get("format") == "int64":
            made["pattern"] = "^-?[0-9]+$"
        if old.get("format") == "google-duration":
            made["pattern"] = r"^[0-9]+(\.[0-9]{1,9})?s$"
        return made

    def definition(name: str) -> tuple[dict[str, Any], set[str]]:
        below: set[str] = set()
        return converted(document["schemas"][name], below), below

    return _closed("Job", definition)


def from_kubernetes(wheel: Path) -> dict[str, Any]:
    """PodTemplateSpec of Kubernetes, from kubernetes-validate; with its rule that nothing unknown is in it."""
    with ZipFile(wheel) as archive:
        published = json.loads(archive.read(KUBERNETES + "_definitions.json"))["$defs"]
    prefix = "io.k8s.api.core.v1."
    local = "#/$defs/"

    def converted(old: Any, below: set[str]) -> Any:
        if isinstance(old, dict):
            made = {key: converted(value, below) for key, value in old.items() if not _is_words(key, value)}
            if isinstance(reference := made.get("$ref"), str):
                name = reference.rpartition("/")[2]
                below.add(name)
                made["$ref"] = local + name
            return made
        return [converted(value, below) for value in old] if isinstance(old, list) else old

    def definition(name: str) -> tuple[dict[str, Any], set[str]]:
        below: set[str] = set()
        return converted(published[name], below), below

    return _closed(prefix + "PodTemplateSpec", definition)


def _is_words(key: str, value: object) -> bool:
    return key == "description" and isinstance(value, str)


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _closed(root: str, definition: Callable[[str], tuple[dict[str, Any], set[str]]]) -> dict[str, Any]:
    """A schema with all that its root needs, and no more."""
    found: dict[str, Any] = {}
    wanted = [root]
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name], below = definition(name)
            wanted.extend(below)
    return {"$schema": DRAFT, **_ref(root), "$defs": dict(sorted(found.items()))}


def main(directory: str) -> None:
    """Write the schemas from the wheels in a directory."""
    for name, pattern, make in (
        ("aws-batch", "botocore-*.whl", from_aws),
        ("google-batch", "google_api_python_client-*.whl", from_google),
        ("kubernetes-pod-template", "kubernetes_validate-*.whl", from_kubernetes),
    ):
        [wheel] = Path(directory).glob(pattern)
        (HERE / f"{name}.json").write_text(json.dumps(make(wheel), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
