"""Write `asyncctl/apiserver/builtin_types.json.gz`: the types of the built-in kinds, from a real kube-apiserver.

    kubectl proxy --port 8001 &
    python tests/controlplane/builtin_types.py http://127.0.0.1:8001

takes OpenAPI v3 from any kube-apiserver, keeps the types that the embedded API server's kinds reach, and of them only
what decides behaviour: field names, types, formats, defaults that are not zero, list and map types, merge keys.
"""

import gzip
import json
import sys
import urllib.request
from pathlib import Path

DOCUMENTS = (
    "api/v1",
    "apis/apps/v1",
    "apis/autoscaling/v1",
    "apis/coordination.k8s.io/v1",
    "apis/events.k8s.io/v1",
    "apis/apiextensions.k8s.io/v1",
)
ROOTS = (
    "io.k8s.api.core.v1.ConfigMap",
    "io.k8s.api.core.v1.Event",
    "io.k8s.api.core.v1.Namespace",
    "io.k8s.api.core.v1.PersistentVolumeClaim",
    "io.k8s.api.core.v1.Pod",
    "io.k8s.api.core.v1.Secret",
    "io.k8s.api.core.v1.Service",
    "io.k8s.api.core.v1.ServiceAccount",
    "io.k8s.api.apps.v1.Deployment",
    "io.k8s.api.apps.v1.StatefulSet",
    "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.api.coordination.v1.Lease",
    "io.k8s.api.events.v1.Event",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
)
TARGET = Path(__file__).parents[2] / "asyncctl" / "apiserver" / "builtin_types.json.gz"
KEPT = {
    "type",
    "format",
    "required",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-patch-strategy",
    "x-kubernetes-patch-merge-key",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
}


def compact(schema):
    """Keep of a schema what decides behaviour."""
    reference = schema.get("$ref") or next((each["$ref"] for each in schema.get("allOf", ()) if "$ref" in each), None)
    if reference:
        return {"$ref": reference.rpartition("/")[2]}
    kept = {key: value for key, value in schema.items() if key in KEPT}
    if schema.get("default"):
        kept["default"] = schema["default"]
    if "properties" in schema:
        kept["properties"] = {name: compact(each) for name, each in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in schema:
            kept[key] = compact(schema[key])
    if "oneOf" in schema and "format" not in kept:
        kept["format"] = "quantity"
    return kept


def references(schema):
    """Name the types that a schema refers to."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):  # a field of JSONSchemaProps has this name, too
            yield schema["$ref"]
        for each in schema.values():
            yield from references(each)


def main(server):
    """Read the documents from `server` (a URL) and write the file."""
    types = {}
    for path in DOCUMENTS:
        with urllib.request.urlopen(f"{server}/openapi/v3/{path}") as answer:
            schemas = json.load(answer)["components"]["schemas"]
        types |= {name: compact(schema) for name, schema in schemas.items()}
    wanted, queue = set(), list(ROOTS)
    while queue:
        if (name := queue.pop()) not in wanted:
            wanted.add(name)
            queue += references(types[name])
    text = json.dumps({name: types[name] for name in sorted(wanted)}, sort_keys=True, separators=(",", ":"))
    TARGET.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{TARGET}: {len(wanted)} types, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
