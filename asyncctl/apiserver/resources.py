"""The kinds that are served: what each is called, which subresources it has, how `kubectl get` prints it.

Built-in kinds come from a table and from the API's own type definitions; custom ones from their definition
(`from_crd`). A `ResourceKind` never changes: a new version of a CRD makes new ones. Not here: what a kind does.
"""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import NamedTuple

from asyncctl.apiserver.names import version_priority
from asyncctl.apiserver.schema import Schema
from asyncctl.apiserver.wire import Json, JsonObject

_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
# The server lists a custom resource's verbs in this order.
_CUSTOM_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
_AGE_DESCRIPTION = (
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed "
    "to be set in happens-before order across separate operations. Clients may not set this value. It is represented "
    "in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column that `kubectl get` prints: `path` is a custom kind's JSONPath; `printers` fills a built-in kind's."""

    name: str
    type: str = "string"
    path: str = ""
    format: str = ""
    description: str = ""
    priority: int = 0


class ScalePaths(NamedTuple):
    """Where a kind keeps what `/scale` shows; paths begin with a dot."""

    spec: str
    status: str
    selector: str | None = None


class Action(NamedTuple):
    """A subresource that is only POSTed to, and the kind that it speaks."""

    name: str
    group: str
    version: str
    kind: str


@dataclass(frozen=True, slots=True, eq=False)
class ResourceKind:
    """One kind in one version.

    Attributes:
        status: has the `/status` subresource.
        scale_paths: what `/scale` reads and writes; None: there is no such subresource.
        actions: the subresources that are only POSTed to.
        has_generation: `metadata.generation` counts changes of the spec.
        custom: comes from a CustomResourceDefinition.
        unconditional_update: a PUT without resourceVersion overwrites.
        create_on_update: a PUT of what is missing creates it.
        empty: what the server writes for an object in which nothing is set (Go's fields without `omitempty`).
        selectable_fields: what field selectors may name, beside `metadata.name` and `metadata.namespace`.
        schema: what objects may hold; None: anything.
        definition: the name of the type in OpenAPI, such as `io.k8s.api.core.v1.Pod`.
        deprecation_warning: what is said to those who use this version; empty: nothing.
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    list_kind: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    scale_paths: ScalePaths | None = None
    actions: tuple[Action, ...] = ()
    columns: tuple[Column, ...] = ()
    has_generation: bool = False
    custom: bool = False
    unconditional_update: bool = False
    create_on_update: bool = False
    served: bool = True
    storage: bool = True
    verbs: tuple[str, ...] = _VERBS
    empty: Mapping[str, object] = field(default_factory=dict)
    selectable_fields: tuple[str, ...] = ()
    schema: Schema | None = None
    definition: str = ""
    deprecation_warning: str = ""

    @property
    def resource(self) -> str:
        """The name with its group, as messages say it: `configmaps`, `widgets.example.com`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """What objects of this kind carry: `v1`, `example.com/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def scale(self) -> bool:
        """Has the `/scale` subresource."""
        return self.scale_paths is not None


def _age() -> Column:
    return Column("Age", description=_AGE_DESCRIPTION)


def _wide(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, priority=1) for name in names)


def _built_in(group: str, kind: str, package: str, *, unconditional_update: bool = True, **rest: Json) -> ResourceKind:
    definition = f"{package}.v1.{kind}"
    return ResourceKind(
        group,
        "v1",
        kind,
        f"{kind.lower()}s",
        kind.lower(),
        f"{kind}List",
        unconditional_update=unconditional_update,
        schema=Schema.of_type(builtin_types(), definition),
        definition=definition,
        **{"namespaced": True, **rest},
    )


@cache
def builtin_types() -> Mapping[str, JsonObject]:
    """Return the type definitions of the built-in kinds, by their OpenAPI names (shipped with the package)."""
    packed = resources.files("asyncctl.apiserver").joinpath("builtin_types.json.gz").read_bytes()
    types: Mapping[str, JsonObject] = json.loads(gzip.decompress(packed))
    return types


@cache
def builtins() -> tuple[ResourceKind, ...]:
    """Return the kinds that every server has, groups in the order of discovery."""
    core, apps = "io.k8s.api.core", "io.k8s.api.apps"
    replicas = ScalePaths(".spec.replicas", ".status.replicas", ".spec.selector")
    events = (
        *("involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid"),
        *("involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath"),
        *("reason", "reportingComponent", "source", "type"),
    )
    event_columns = (
        *(Column("Last Seen"), Column("Type"), Column("Reason"), Column("Object")),
        *(*_wide("Subobject", "Source"), Column("Message"), *_wide("First Seen", "Count")),
        Column("Name", format="name", priority=1),
    )
    return (
        _built_in(
            "",
            "ConfigMap",
            core,
            short_names=("cm",),
            columns=(Column("Data"), _age()),
        ),
        _built_in(
            "",
            "Event",
            core,
            short_names=("ev",),
            create_on_update=True,
            selectable_fields=events,
            columns=event_columns,
            empty={
                "involvedObject": {},
                "source": {},
                "firstTimestamp": None,
                "lastTimestamp": None,
                "eventTime": None,
                "reportingComponent": "",
                "reportingInstance": "",
            },
        ),
        _built_in(
            "",
            "Namespace",
            core,
            namespaced=False,
            short_names=("ns",),
            status=True,
            verbs=tuple(verb for verb in _VERBS if verb != "deletecollection"),
            selectable_fields=("status.phase",),
            columns=(Column("Status"), _age()),
            empty={"spec": {}, "status": {}},
        ),
        _built_in(
            "",
            "PersistentVolumeClaim",
            core,
            short_names=("pvc",),
            status=True,
            columns=(
                *(Column("Status"), Column("Volume"), Column("Capacity"), Column("Access Modes")),
                *(Column("StorageClass"), Column("VolumeAttributesClass"), _age(), *_wide("VolumeMode")),
            ),
            empty={"spec": {"resources": {}}, "status": {}},
        ),
        _built_in(
            "",
            "Pod",
            core,
            short_names=("po",),
            categories=("all",),
            status=True,
            actions=(Action("eviction", "policy", "v1", "Eviction"),),
            has_generation=True,
            selectable_fields=(
                *("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName"),
                *("spec.hostNetwork", "status.phase", "status.podIP", "status.nominatedNodeName"),
            ),
            columns=(
                *(Column("Ready"), Column("Status"), Column("Restarts"), _age()),
                *_wide("IP", "Node", "Nominated Node", "Readiness Gates"),
            ),
            empty={"spec": {"containers": None}, "status": {}},
        ),
        _built_in(
            "",
            "Secret",
            core,
            selectable_fields=("type",),
            columns=(Column("Type"), Column("Data"), _age()),
        ),
        _built_in(
            "",
            "Service",
            core,
            short_names=("svc",),
            categories=("all",),
            status=True,
            create_on_update=True,
            selectable_fields=("spec.clusterIP", "spec.type"),
            columns=(
                *(Column("Type"), Column("Cluster-IP"), Column("External-IP"), Column("Port(s)")),
                *(_age(), *_wide("Selector")),
            ),
            empty={"spec": {}, "status": {"loadBalancer": {}}},
        ),
        _built_in(
            "",
            "ServiceAccount",
            core,
            short_names=("sa",),
            actions=(Action("token", "authentication.k8s.io", "v1", "TokenRequest"),),
            columns=(_age(),),
        ),
        _built_in(
            "apps",
            "Deployment",
            apps,
            short_names=("deploy",),
            categories=("all",),
            status=True,
            has_generation=True,
            scale_paths=replicas,
            columns=(
                *(Column("Ready"), Column("Up-to-date"), Column("Available"), _age()),
                *_wide("Containers", "Images", "Selector"),
            ),
            empty={"spec": {"strategy": {}}, "status": {}},
        ),
        _built_in(
            "apps",
            "StatefulSet",
            apps,
            short_names=("sts",),
            categories=("all",),
            status=True,
            has_generation=True,
            scale_paths=replicas,
            columns=(Column("Ready"), _age(), *_wide("Containers", "Images")),
            empty={
                "spec": {"serviceName": "", "updateStrategy": {}},
                "status": {"replicas": 0, "availableReplicas": 0},
            },
        ),
        _built_in(
            "events.k8s.io",
            "Event",
            "io.k8s.api.events",
            short_names=("ev",),
            create_on_update=True,
            selectable_fields=(
                *("reason", "reportingController", "type"),
                *(f"regarding.{name.removeprefix('involvedObject.')}" for name in events if "." in name),
            ),
            columns=event_columns,
            empty={
                "eventTime": None,
                "deprecatedSource": {},
                "deprecatedFirstTimestamp": None,
                "deprecatedLastTimestamp": None,
            },
        ),
        _built_in(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
            namespaced=False,
            unconditional_update=False,
            short_names=("crd", "crds"),
            categories=("api-extensions",),
            status=True,
            has_generation=True,
            columns=(Column("Created At", "date", description=_AGE_DESCRIPTION),),
            empty={"status": {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}}},
        ),
        _built_in(
            "coordination.k8s.io",
            "Lease",
            "io.k8s.api.coordination",
            create_on_update=True,
            unconditional_update=False,
            columns=(Column("Holder"), _age()),
            empty={"spec": {}},
        ),
    )


def from_crd(crd: JsonObject) -> list[ResourceKind]:
    """Return a kind for each served version of a CustomResourceDefinition that has passed validation."""
    spec = crd["spec"]
    names = spec["names"]
    kinds = []
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        subresources = version.get("subresources") or {}
        scale = subresources.get("scale")
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        kinds.append(
            ResourceKind(
                spec["group"],
                version["name"],
                names["kind"],
                names["plural"],
                names.get("singular") or names["kind"].lower(),
                names.get("listKind") or f"{names['kind']}List",
                spec.get("scope") != "Cluster",
                tuple(names.get("shortNames") or ()),
                tuple(names.get("categories") or ()),
                status="status" in subresources,
                scale_paths=scale
                and ScalePaths(scale["specReplicasPath"], scale["statusReplicasPath"], scale.get("labelSelectorPath")),
                columns=_printer_columns(version.get("additionalPrinterColumns")),
                has_generation=True,
                custom=True,
                storage=bool(version.get("storage")),
                verbs=_CUSTOM_VERBS,
                selectable_fields=tuple(each["jsonPath"][1:] for each in version.get("selectableFields") or ()),
                schema=Schema(schema) if schema is not None else None,
                definition=".".join((*reversed(spec["group"].split(".")), version["name"], names["kind"])),
                deprecation_warning=_deprecation(spec, version),
            )
        )
    return kinds


def _printer_columns(columns: list[JsonObject] | None) -> tuple[Column, ...]:
    if not columns:
        return (Column("Age", "date", ".metadata.creationTimestamp", description=_AGE_DESCRIPTION),)
    return tuple(
        Column(
            each["name"],
            each["type"],
            each["jsonPath"],
            each.get("format", ""),
            each.get("description") or f"Custom resource definition column (in JSONPath format): {each['jsonPath']}",
            each.get("priority", 0),
        )
        for each in columns
    )


def _deprecation(spec: JsonObject, version: JsonObject) -> str:
    """Return what is said of a deprecated version (`defaultDeprecationWarning` of apiextensions-apiserver)."""
    if not version.get("deprecated"):
        return ""
    if version.get("deprecationWarning"):
        return str(version["deprecationWarning"])
    group, kind = spec["group"], spec["names"]["kind"]
    own = version_priority(version["name"])
    better = [
        each["name"]
        for each in spec["versions"]
        if each["served"] and not each.get("deprecated") and version_priority(each["name"]) < own
    ]
    instead = f"; use {group}/{min(better, key=version_priority)} {kind}" if better else ""
    return f"{group}/{version['name']} {kind} is deprecated{instead}"
