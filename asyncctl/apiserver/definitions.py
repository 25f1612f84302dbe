"""Whether a CustomResourceDefinition may be written: names, versions, columns, and that its schemas are structural.

Source: `k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation`. Conversion by webhook and the cost and
correctness of CEL rules are not checked.
"""

from collections.abc import Iterator
from typing import Any

from asyncctl.apiserver import causes, names
from asyncctl.apiserver.errors import Cause
from asyncctl.apiserver.rules import deep_equal
from asyncctl.apiserver.structural import check_structural
from asyncctl.apiserver.wire import JsonObject

_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_SAME = "per-version {0} may not all be set to identical values (top-level {1} should be used instead)"


def validate_definition(crd: JsonObject) -> Iterator[Cause]:
    """Judge a new definition, its metadata aside."""
    spec: JsonObject = crd.get("spec") or {}
    yield from _spec(spec)
    yield from _stored_versions(crd)


def validate_definition_update(new: JsonObject, old: JsonObject) -> Iterator[Cause]:
    """Judge an update: what decides the address of stored objects may not change."""
    yield from validate_definition(new)
    spec, was = new.get("spec") or {}, old.get("spec") or {}
    conditions = (old.get("status") or {}).get("conditions") or ()
    fields: list[tuple[str, ...]] = [("group",), ("names", "plural")]
    if any(each.get("type") == "Established" and each.get("status") == "True" for each in conditions):
        fields = [("scope",), ("names", "kind"), *fields]
    for path in fields:
        value, before = _at(spec, path), _at(was, path)
        if not deep_equal(value, before):
            yield causes.invalid(f"spec.{'.'.join(path)}", value or "", "field is immutable")


def _at(spec: JsonObject, path: tuple[str, ...]) -> Any:
    value: Any = spec
    for name in path:
        value = (value or {}).get(name)
    return value


def _label(path: str, value: str, *, mixed: bool = False) -> Iterator[Cause]:
    if value and (wrong := names.dns_1035_label(value.lower() if mixed else value)):
        prefix = "may have mixed case, but should otherwise match: " if mixed else ""
        yield causes.invalid(path, value, prefix + ",".join(wrong))


def _spec(spec: JsonObject) -> Iterator[Cause]:
    group: str = spec.get("group", "")
    if not group:
        yield causes.required("spec.group")
    elif wrong := names.dns_subdomain(group):
        yield causes.invalid("spec.group", group, ",".join(wrong))
    elif "." not in group:
        yield causes.invalid("spec.group", group, "should be a domain with at least one dot")
    scope = spec.get("scope", "")
    if not scope:
        yield causes.required("spec.scope")
    elif scope not in {"Cluster", "Namespaced"}:
        yield causes.not_supported("spec.scope", scope, ("Cluster", "Namespaced"))
    versions: list[JsonObject] = spec.get("versions") or []
    for index, version in enumerate(versions):
        if not (version.get("schema") or {}).get("openAPIV3Schema"):
            yield causes.required(f"spec.versions[{index}].schema.openAPIV3Schema")
    # The server folds a single version, or versions that agree, into top-level fields before it judges them.
    for index, version in enumerate(versions):
        yield from _version(version, f"spec.versions[{index}]", folded=_agree(versions, "schema"))
    if len({version.get("name") for version in versions}) < len(versions):
        yield causes.invalid("spec.versions", versions, "must contain unique version names")
    if sum(bool(version.get("storage")) for version in versions) != 1:
        text = "must have exactly one version marked as storage version"
        yield causes.invalid("spec.versions", versions, text)
    yield from _names(spec.get("names") or {})


def _agree(versions: list[JsonObject], name: str) -> bool:
    return all(deep_equal(version.get(name), versions[0].get(name)) for version in versions)


def _names(given: JsonObject) -> Iterator[Cause]:
    path = "spec.names"
    for name in ("plural", "singular", "kind", "listKind"):
        if not given.get(name):
            yield causes.required(f"{path}.{name}")
    for name in ("plural", "singular", "kind", "listKind"):
        yield from _label(f"{path}.{name}", given.get(name, ""), mixed="ind" in name)
    for name in ("shortNames", "categories"):
        for index, each in enumerate(given.get(name) or ()):
            yield from _label(f"{path}.{name}[{index}]", each)
    if given.get("kind") and given.get("kind") == given.get("listKind"):
        yield causes.invalid(f"{path}.listKind", given["listKind"], "kind and listKind may not be the same")


def _version(version: JsonObject, path: str, *, folded: bool) -> Iterator[Cause]:
    if wrong := names.dns_1035_label(version.get("name", "")):
        yield causes.invalid(f"{path}.name", version.get("name", ""), ",".join(wrong))
    warning = version.get("deprecationWarning")
    if warning is not None and not version.get("deprecated"):
        text = "can only be set for deprecated versions"
        yield causes.invalid(f"{path}.deprecationWarning", warning, text)
    schema_path = "spec.validation" if folded else f"{path}.schema"
    if schema := (version.get("schema") or {}).get("openAPIV3Schema"):
        status = "status" in (version.get("subresources") or {})
        yield from check_structural(schema, f"{schema_path}.openAPIV3Schema", status=status)
    yield from _subresources(version.get("subresources") or {}, path)
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        yield from _column(column, f"{path}.additionalPrinterColumns[{index}]")


def _subresources(subresources: JsonObject, path: str) -> Iterator[Cause]:
    if (scale := subresources.get("scale")) is None:
        return
    for name, root in (("specReplicasPath", ".spec"), ("statusReplicasPath", ".status")):
        here = f"{path}.subresources.scale.{name}"
        value = scale.get(name) or ""
        if not value:
            yield causes.required(here)
        elif not value.startswith("."):
            yield causes.invalid(here, value, "must be a simple json path starting with .")
        elif not value.startswith(f"{root}."):
            yield causes.invalid(here, value, f"should be a json path under {root}")


def _column(column: JsonObject, path: str) -> Iterator[Cause]:
    if not column.get("name"):
        yield causes.required(f"{path}.name")
    kind = column.get("type", "")
    if not kind:
        yield causes.required(f"{path}.type", f"must be one of {','.join(_COLUMN_TYPES)}")
    elif kind not in _COLUMN_TYPES:
        yield causes.invalid(f"{path}.type", kind, f"must be one of {','.join(_COLUMN_TYPES)}")
    if (form := column.get("format")) and form not in _COLUMN_FORMATS:
        yield causes.invalid(f"{path}.format", form, f"must be one of {','.join(_COLUMN_FORMATS)}")
    json_path = column.get("jsonPath", "")
    if not json_path:
        yield causes.required(f"{path}.JSONPath")
    elif not json_path.startswith("."):
        yield causes.invalid(f"{path}.JSONPath", json_path, "must be a simple json path starting with .")


def _stored_versions(crd: JsonObject) -> Iterator[Cause]:
    path = "status.storedVersions"
    stored: list[str] = (crd.get("status") or {}).get("storedVersions") or []
    versions: list[JsonObject] = (crd.get("spec") or {}).get("versions") or []
    if not stored:
        yield causes.invalid(path, stored or None, "must have at least one stored version")
        return
    for version in versions:
        if version.get("storage") and version.get("name") not in stored:
            yield causes.invalid(path, stored, f"must have the storage version {version.get('name')}")
    known = {version.get("name") for version in versions}
    for index, name in enumerate(stored):
        if name not in known:
            yield causes.invalid(
                f"{path}[{index}]",
                name,
                f"missing from spec.versions; {name} was previously a storage version, and must remain in "
                "spec.versions until a storage migration ensures no data remains persisted in "
                f"{name} and removes {name} from status.storedVersions",
            )
