"""Whether a CustomResourceDefinition may be written: names, versions, columns, and that its schemas are structural.

Source: `k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation`. Conversion by webhook and the cost and
correctness of CEL rules are not checked.
"""

from collections.abc import Callable, Iterator

from asyncctl.apiserver import causes, names
from asyncctl.apiserver.errors import Cause
from asyncctl.apiserver.rules import deep_equal
from asyncctl.apiserver.schema import Schema
from asyncctl.apiserver.structural import check_structural
from asyncctl.apiserver.wire import Json, JsonObject

_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_SELECTABLE_LIMIT = 8
_APPROVAL = "api-approved.kubernetes.io"
_APPROVAL_PAGE = "https://github.com/kubernetes/enhancements/pull/1111"


def validate_definition(crd: JsonObject) -> Iterator[Cause]:
    """Judge a new definition, its metadata aside."""
    spec: JsonObject = crd.get("spec") or {}
    yield from _spec(spec)
    yield from _stored_versions(crd)
    group: str = spec.get("group", "")
    annotations = (crd.get("metadata") or {}).get("annotations") or {}
    if f".{group}".endswith((".k8s.io", ".kubernetes.io")) and not annotations.get(_APPROVAL):
        text = f'protected groups must have approval annotation "{_APPROVAL}", see {_APPROVAL_PAGE}'
        yield causes.required(f"metadata.annotations[{_APPROVAL}]", text)


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


def _at(spec: JsonObject, path: tuple[str, ...]) -> Json:
    value: Json = spec
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
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
    if versions and (wrong := names.dns_1035_label(versions[0].get("name", ""))):
        yield causes.invalid("spec.version", versions[0].get("name", ""), ",".join(wrong))
    for index, version in enumerate(versions):
        if wrong := names.dns_1035_label(version.get("name", "")):
            yield causes.invalid(f"spec.versions[{index}].name", version.get("name", ""), ",".join(wrong))
        if version.get("deprecationWarning") is not None and not version.get("deprecated"):
            text = "can only be set for deprecated versions"
            here = f"spec.versions[{index}].deprecationWarning"
            yield causes.invalid(here, version["deprecationWarning"], text)
    for name, path, check in _FOLDED:
        # What all versions agree in, the server folds into one top-level field before it judges it.
        if versions and all(deep_equal(version.get(name), versions[0].get(name)) for version in versions):
            yield from check(versions[0], f"spec.{path}")
        else:
            for index, version in enumerate(versions):
                yield from check(version, f"spec.versions[{index}].{name}")
    if len({version.get("name") for version in versions}) < len(versions):
        yield causes.invalid("spec.versions", versions, "must contain unique version names")
    if sum(bool(version.get("storage")) for version in versions) != 1:
        text = "must have exactly one version marked as storage version"
        yield causes.invalid("spec.versions", versions, text)
    yield from _names(spec.get("names") or {})
    yield from _conversion(spec.get("conversion") or {})
    if spec.get("preserveUnknownFields"):
        text = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        yield causes.invalid("spec.preserveUnknownFields", True, text)


def _conversion(conversion: JsonObject) -> Iterator[Cause]:
    if conversion.get("strategy", "None") == "None":
        return
    if conversion["strategy"] != "Webhook":
        yield causes.not_supported("spec.conversion.strategy", conversion["strategy"], ("None", "Webhook"))
        return
    webhook = conversion.get("webhook") or {}
    if not webhook.get("clientConfig"):
        text = "required when strategy is set to Webhook"
        yield causes.required("spec.conversion.webhookClientConfig", text)
    if not webhook.get("conversionReviewVersions"):
        yield causes.required("spec.conversion.conversionReviewVersions")


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


def _schema(version: JsonObject, path: str) -> Iterator[Cause]:
    if schema := (version.get("schema") or {}).get("openAPIV3Schema"):
        status = "status" in (version.get("subresources") or {})
        yield from check_structural(schema, f"{path}.openAPIV3Schema", status=status)


def _subresources(version: JsonObject, path: str) -> Iterator[Cause]:
    scale = (version.get("subresources") or {}).get("scale")
    if scale is None:
        return
    for name, roots in (
        ("specReplicasPath", (".spec",)),
        ("statusReplicasPath", (".status",)),
        ("labelSelectorPath", (".spec", ".status")),
    ):
        here, value = f"{path}.scale.{name}", scale.get(name) or ""
        if not value and len(roots) == 1:
            yield causes.required(here)
        elif value and not value.startswith("."):
            yield causes.invalid(here, value, "must be a simple json path starting with .")
        elif value and not value.startswith(tuple(f"{root}." for root in roots)):
            under = f"{'either ' if len(roots) > 1 else ''}{' or '.join(roots)}"
            yield causes.invalid(here, value, f"should be a json path under {under}")


def _columns(version: JsonObject, path: str) -> Iterator[Cause]:
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        yield from _column(column, f"{path}[{index}]")


def _selectable_fields(version: JsonObject, path: str) -> Iterator[Cause]:
    fields: list[JsonObject] = version.get("selectableFields") or []
    schema = Schema((version.get("schema") or {}).get("openAPIV3Schema") or {}) if fields else Schema({})
    seen: set[str] = set()
    for index, each in enumerate(fields):
        here, json_path = f"{path}[{index}].jsonPath", each.get("jsonPath") or ""
        if not json_path:
            yield causes.required(here)
            continue
        node = schema.at(*json_path.removeprefix(".").split("."))
        if node is None:
            yield causes.invalid(here, json_path, "is an invalid path: does not refer to a valid field")
            continue
        if json_path.startswith(".metadata."):
            yield causes.invalid(here, json_path, "must not point to fields in metadata")
        if node.type not in {"string", "boolean", "integer"}:
            text = (
                "must point to a field of type string, boolean or integer. "
                "Enum string fields and strings with formats are allowed."
            )
            yield causes.invalid(here, json_path, text)
        if json_path in seen:
            yield causes.duplicate(here, json_path)
        seen.add(json_path)
    if len(seen) > _SELECTABLE_LIMIT:
        yield causes.too_many(path, len(seen), _SELECTABLE_LIMIT)


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
    unseen = list(stored)
    for version in versions:
        name = version.get("name")
        if version.get("storage") and name not in unseen:
            yield causes.invalid(path, stored, f"must have the storage version {name}")
        unseen = [each for each in unseen if each != name]
    for index, name in enumerate(stored):
        if name in unseen:
            yield causes.invalid(
                f"{path}[{index}]",
                name,
                f"missing from spec.versions; {name} was previously a storage version, and must remain in "
                "spec.versions until a storage migration ensures no data remains persisted in "
                f"{name} and removes {name} from status.storedVersions",
            )


_FOLDED: tuple[tuple[str, str, Callable[[JsonObject, str], Iterator[Cause]]], ...] = (
    ("schema", "validation", _schema),
    ("subresources", "subresources", _subresources),
    ("additionalPrinterColumns", "additionalPrinterColumns", _columns),
    ("selectableFields", "selectableFields", _selectable_fields),
)
