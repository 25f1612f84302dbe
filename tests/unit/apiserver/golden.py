"""What a real kube-apiserver 1.36.3 answered, kept as JSON: each file has cases, and says what they were asked of.

`specs`: specs of a custom object that uses most of what a schema can say. `creates`, `updates`: bodies sent with
`dryRun=All`. `definitions`: CustomResourceDefinitions. `tables`: lists, and the same lists as Tables.
`discovery`: paths. managedFields are left out everywhere, and the descriptions of built-in kinds' columns.
"""

import copy
import json
from pathlib import Path

from asyncctl.apiserver.resources import builtins, from_crd


def load(name):
    return json.loads((Path(__file__).parent / "golden" / f"{name}.json").read_text())


def cases(name):
    return load(name)["cases"]


def definition():
    return load("specs")["definition"]


def kinds():
    return [*builtins(), *from_crd(definition())]


def kind_at(path):
    """Find the kind that a path such as `/api/v1/namespaces/x/pods` or `.../pods/name/status` is of."""
    parts = path.strip("/").split("/")
    version = parts[1] if parts[0] == "api" else "/".join(parts[1:3])
    served = {kind.plural: kind for kind in kinds() if kind.api_version == version}
    return next(served[part] for part in reversed(parts) if part in served)


def rows(causes):
    """Put causes in the order and form of the golden files; the real order is that of Go's maps."""
    return sorted([cause.reason, cause.message, cause.field] for cause in causes)


def merged(target, patch):
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = copy.deepcopy(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result
