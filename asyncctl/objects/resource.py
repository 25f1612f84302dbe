"""A kind as a class (`Resource`), a kind without one (`Unstructured`), and what both are to the API (`ResourceType`).

A class declares its names in the `class` line; its fields are its wire format and its CRD. Nothing here does I/O.
"""

import re
from dataclasses import dataclass, field as dataclass_field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, TypeVar
from urllib.parse import quote

from asyncctl.objects.base import Part, PartType, field
from asyncctl.objects.meta import ObjectMeta, OwnerReference

Scope: TypeAlias = Literal["Namespaced", "Cluster"]

# Groups of Kubernetes itself whose kinds all have a generation. For its other groups "none" is the safe guess: it costs
# a pass that changes nothing, where a wrong "has one" would lose changes.
_GROUPS_WITH_GENERATION = frozenset({"apps", "batch"})
_API_VERSION, _KIND = re.compile(r"([-a-z0-9.]+/)?[-a-z0-9]+"), re.compile(r"[A-Za-z][-A-Za-z0-9]*")
_PLAIN = re.compile(r"[A-Za-z0-9._:-]+")  # what stands in a path as it is; asking costs a tenth of quoting


@dataclass(frozen=True, slots=True)
class ResourceType:
    """What a kind is called, and where it is served. Two are equal if group, version and plural are.

    Attributes:
        group: "" for the core group.
        version: such as `v1`.
        kind: such as `Widget`.
        plural: as in paths, such as `widgets`.
        singular: such as `widget`.
        list_kind: such as `WidgetList`.
        namespaced: False for a cluster-scoped kind.
        short_names: for kubectl.
        categories: for kubectl, such as `all`.
        has_status: whether it has a status subresource.
        has_generation: whether `metadata.generation` grows when the spec changes.
    """

    group: str
    version: str
    kind: str = dataclass_field(compare=False)
    plural: str
    singular: str = dataclass_field(compare=False)
    list_kind: str = dataclass_field(compare=False)
    namespaced: bool = dataclass_field(compare=False, default=True)
    short_names: tuple[str, ...] = dataclass_field(compare=False, default=())
    categories: tuple[str, ...] = dataclass_field(compare=False, default=())
    has_status: bool = dataclass_field(compare=False, default=True)
    has_generation: bool = dataclass_field(compare=False, default=True)

    @property
    def api_version(self) -> str:
        """`v1`, or `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """The name in errors and RBAC: `configmaps`, or `widgets.example.com`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def __str__(self) -> str:
        return f"{self.api_version} {self.kind}"

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the path of the collection, of one object, or of a subresource of it.

        Args:
            namespace: empty or `None` for all namespaces, or for a cluster-scoped kind.
            name: `None` for the collection.
            subresource: such as `status`; needs a name.

        Raises:
            ValueError: the parts do not go together, or one of them can't be part of a path.
        """
        if namespace and not self.namespaced:
            raise ValueError(f"{self} is cluster-scoped: leave out the namespace {namespace!r}")
        if name is not None and self.namespaced and not namespace:
            raise ValueError(f"{self} {name!r} is namespaced: say in which namespace")
        if subresource is not None and name is None:
            raise ValueError(f"{self}: subresource {subresource!r} needs a name")
        try:
            path = _collection(self.group, self.version, namespace or None, self.plural)
            if name is not None:
                path = f"{path}/{_part(name)}"
            if subresource is not None:
                path = "/".join((path, *map(_part, subresource.split("/"))))
        except ValueError as error:
            raise ValueError(f"{self}: {error}") from None
        return path


@lru_cache(1024)  # a process has few kinds and namespaces, and makes one of these paths for each request
def _collection(group: str, version: str, namespace: str | None, plural: str) -> str:
    parts = ["apis", group, version] if group else ["api", version]
    if namespace is not None:
        parts += ["namespaces", namespace]
    return "/" + "/".join(map(_part, (*parts, plural)))


def _part(part: str) -> str:
    if part in {"", ".", ".."}:
        raise ValueError(f"an empty part, '.' or '..' can't stand in a path: {part!r}")
    return part if _PLAIN.fullmatch(part) else quote(part, safe=":")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`.

    Attributes:
        name: its heading.
        type: `string`, `integer`, `number`, `boolean` or `date`.
        json_path: where its value is, such as `.spec.size`.
        priority: 0 always, 1 with `-o wide` only.
        description: for `kubectl explain`-like tools.
    """

    name: str
    type: Literal["string", "integer", "number", "boolean", "date"]
    json_path: str
    priority: int = 0
    description: str = ""


def ready_column(condition: str = "Ready", part: Literal["status", "reason", "message"] = "status") -> str:
    """Return the JSON path of a condition's status (or reason, or message), for a `Column`."""
    return f'.status.conditions[?(@.type=="{condition}")].{part}'


_C = TypeVar("_C", bound="ResourceClass")


class ResourceClass(PartType):
    """The metaclass of `Resource`: reads the `class` line, and folds `name`, `namespace` … into `metadata`."""

    def __new__(  # noqa: PYI019  # `Self` has no place in a metaclass
        mcls: type[_C],
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        /,
        *,
        group: str | None = None,
        version: str | None = None,
        kind: str | None = None,
        plural: str | None = None,
        singular: str | None = None,
        scope: Scope = "Namespaced",
        short_names: list[str] | tuple[str, ...] = (),
        categories: list[str] | tuple[str, ...] = (),
        columns: list[Column] | tuple[Column, ...] = (),
        has_generation: bool = True,
        **config: Any,  # noqa: ANN401 - what `msgspec.Struct` takes
    ) -> _C:
        """Make the class of a kind; without group and version it is a base for others.

        Args:
            name: of the class.
            bases: of the class.
            namespace: of the class.
            group: "" for the core group.
            version: such as `v1`.
            kind: default: the name of the class.
            plural: default: by simple English rules.
            singular: default: the kind in lower case.
            scope: `Namespaced` or `Cluster`.
            short_names: for kubectl.
            categories: for kubectl.
            columns: what `kubectl get` shows, beside the name.
            has_generation: False for kinds of Kubernetes that have none.
            config: `rules`, and what `msgspec.Struct` takes.
        """
        cls = super().__new__(mcls, name, bases, namespace, **config)
        if (group is None) != (version is None):
            raise TypeError(f"class {name}: a kind needs both group= and version= (group='' is the core group)")
        if group is not None and version is not None:
            kind = kind or name
            cls.resource_type = ResourceType(
                group=group,
                version=version,
                kind=kind,
                plural=plural or _plural(kind),
                singular=singular or kind.lower(),
                list_kind=f"{kind}List",
                namespaced=scope == "Namespaced",
                short_names=tuple(short_names),
                categories=tuple(categories),
                has_status="status" in cls.__struct_fields__,
                has_generation=has_generation,
            )
            cls.__columns__ = tuple(columns)
        return cls

    if TYPE_CHECKING:
        resource_type: ResourceType
        __columns__: tuple[Column, ...]
    else:
        # Type checkers take the fields below `Resource`'s TYPE_CHECKING for the signature.
        def __call__(cls, **values):  # noqa: ANN003, ANN204, D102, N805
            folded = {key: values.pop(key) for key in _FOLDED if key in values}
            if folded:
                if "metadata" in values:
                    raise TypeError(f"{cls.__name__}: give {', '.join(folded)} or metadata, not both")
                values["metadata"] = ObjectMeta(**folded)
            return super().__call__(**values)


_FOLDED = ("name", "namespace", "labels", "annotations")


def _folded(name: str) -> property:
    """Return a property that reads and writes a field of `metadata`."""
    return property(lambda self: getattr(self.metadata, name), lambda self, value: setattr(self.metadata, name, value))


class Resource(Part, metaclass=ResourceClass):
    """An object of the API. A kind is a subclass that names its group and version and adds its fields:

    `class Widget(Resource, group="example.com", version="v1"): spec: WidgetSpec`

    A kind that has a status declares the field `status`; it is then served as a subresource.
    """

    resource_type: ClassVar[ResourceType]
    hides_values: ClassVar[bool] = False
    """Whether its values are kept out of `repr` and errors, as a Secret's."""

    metadata: ObjectMeta = field(default_factory=ObjectMeta)

    if TYPE_CHECKING:
        name: str = ""
        namespace: str = ""
        labels: dict[str, str] = field(default_factory=dict)
        annotations: dict[str, str] = field(default_factory=dict)
    else:
        name = _folded("name")
        namespace = _folded("namespace")
        labels = _folded("labels")
        annotations = _folded("annotations")

    @property
    def uid(self) -> str:
        """The uid, empty before the object was created."""
        return self.metadata.uid

    def __repr__(self) -> str:
        if self.hides_values:
            return f"{type(self).__name__}(name={self.name!r}, namespace={self.namespace!r}, …)"
        return super().__repr__()

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # what rich's tracebacks print
        if self.hides_values:
            return [("name", self.name), ("namespace", self.namespace)]
        return super().__rich_repr__()


class Unstructured:
    """A kind without a class: `Unstructured("apps/v1", "Deployment")`. Its objects are plain dicts."""

    __slots__ = ("resource_type",)

    def __init__(
        self,
        api_version: str,
        kind: str,
        *,
        plural: str | None = None,
        namespaced: bool = True,
        has_status: bool = True,
        has_generation: bool | None = None,
    ) -> None:
        """Name the kind.

        Args:
            api_version: `v1`, or `apps/v1`.
            kind: such as `Deployment`.
            plural: default: by simple English rules.
            namespaced: False for a cluster-scoped kind.
            has_status: whether it has a status subresource.
            has_generation: default: True for custom resources and for the groups apps and batch.

        Raises:
            ValueError: these are no apiVersion and kind, as where they have changed places.
        """
        if not _API_VERSION.fullmatch(api_version) or not _KIND.fullmatch(kind):
            raise ValueError(
                f"Unstructured({api_version!r}, {kind!r}): say first the apiVersion, such as 'apps/v1', then the kind, "
                "such as 'Deployment'"
            )
        group, _, version = api_version.rpartition("/")
        if has_generation is None:
            custom = "." in group and not group.endswith(".k8s.io")
            has_generation = custom or group in _GROUPS_WITH_GENERATION
        self.resource_type = ResourceType(
            group=group,
            version=version,
            kind=kind,
            plural=plural or _plural(kind),
            singular=kind.lower(),
            list_kind=f"{kind}List",
            namespaced=namespaced,
            has_status=has_status,
            has_generation=has_generation,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unstructured) and self.resource_type == other.resource_type

    def __hash__(self) -> int:
        return hash(self.resource_type)

    def __repr__(self) -> str:
        return f"Unstructured({self.resource_type.api_version!r}, {self.resource_type.kind!r})"


Kind: TypeAlias = type[Resource] | Unstructured
"""Wherever a class of objects is taken."""


def resource_type_of(kind: Kind) -> ResourceType:
    """Return what a kind is to the API.

    Raises:
        TypeError: it is a base class that names no group and version.
    """
    found = getattr(kind, "resource_type", None)
    if not isinstance(found, ResourceType):
        name = kind.__name__ if isinstance(kind, type) else "X"
        raise TypeError(
            f"{kind!r} is no kind: declare it as class {name}(Resource, group=…, version=…), or use "
            "Unstructured(api_version, kind)"
        )
    return found


def owner_reference(owner: Resource) -> OwnerReference:
    """Return the reference by which an object says that `owner` controls it."""
    kind = resource_type_of(type(owner))
    return OwnerReference(
        api_version=kind.api_version,
        kind=kind.kind,
        name=owner.metadata.name,
        uid=owner.metadata.uid,
        controller=True,
        block_owner_deletion=True,
    )


def _plural(kind: str) -> str:
    word = kind.lower()
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    if re.search(r"(s|x|z|ch|sh)$", word):
        return word + "es"
    return word + "s"
