"""An instance of PostgreSQL in the cluster, as a team asks for it: `spec.inCluster` of a `Database`.

What a Pod has too is called as in a Pod, and refused where a Pod would be.
"""

from enum import StrEnum
from typing import Annotated

from asyncctl.database import parameters
from asyncctl.database.fields import QUALIFIED, Amount, LabelValue, ObjectName, ParameterValue, unchanged
from asyncctl.objects import JsonObject, Meta, Rule, Spec, field


class TolerationOperator(StrEnum):
    """How a toleration compares its value with the taint's."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does to a Pod that does not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class StorageSpec(
    Spec,
    rules=[
        Rule(
            "quantity(string(self)).compareTo(quantity('100Mi')) >= 0",
            "size must be 100Mi or more, such as 10Gi: PostgreSQL does not start on less",
            path="size",
        ),
        Rule(
            "quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0",
            "size can only grow: a volume can't shrink",
            path="size",
        ),
        Rule(
            unchanged("storageClassName"),
            "storageClassName is immutable: make a new Database and move the data",
        ),
    ],
):
    """The volume of an instance in the cluster."""

    size: Amount
    """Its size, such as `10Gi`; 100Mi at least. It can grow and never shrink."""
    storage_class_name: ObjectName | None = None
    """Default: the cluster's default class. Immutable."""


class ResourcesSpec(
    Spec,
    rules=[
        *(
            Rule(
                f"self.all(name, name.matches('^{QUALIFIED}$')"
                " && !quantity(string(self[name])).isLessThan(quantity('0')))",
                f"{each} must be names of resources with amounts that are not negative, such as cpu: 500m, memory: 1Gi",
                path=each,
            )
            for each in ("requests", "limits")
        ),
        Rule(
            "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) ||"
            " !quantity(string(self.requests[name])).isGreaterThan(quantity(string(self.limits[name]))))",
            "what requests asks for can't be more than what limits allows: raise the limit, or ask for less",
        ),
    ],
):
    """CPU and memory of the instance, as in a Pod."""

    requests: Annotated[dict[str, Amount], Meta(max_length=16)] = field(default_factory=dict)
    """What it is sure to get; no more than the limits."""
    limits: Annotated[dict[str, Amount], Meta(max_length=16)] = field(default_factory=dict)
    """What it can get at most."""


class TolerationSpec(
    Spec,
    rules=[
        Rule(
            "has(self.key) && self.key != '' || has(self.operator) && self.operator == 'Exists'",
            "a toleration without a key is for all taints: say so with operator Exists, or set key",
        ),
        Rule(
            "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
            "a toleration with operator Exists has no value: remove value, or use operator Equal",
        ),
        Rule(
            "!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
            "tolerationSeconds goes with effect NoExecute: the other effects evict nobody",
        ),
    ],
):
    """A taint that the instance tolerates, as in a Pod."""

    key: Annotated[str, Meta(pattern=f"^({QUALIFIED})?$", max_length=316)] | None = None
    """Of the taint. Left out, with operator Exists: any."""
    operator: TolerationOperator | None = None
    """Exists, or Equal to value. Default: Equal."""
    value: LabelValue | None = None
    """Of the taint, with operator Equal."""
    effect: TaintEffect | None = None
    """Of the taint. Left out: any."""
    toleration_seconds: int | None = None
    """How long the instance may stay, with effect NoExecute. Left out: for ever."""


class SchedulingSpec(
    Spec,
    rules=[
        Rule(
            f"self.all(name, name.matches('^{QUALIFIED}$'))",
            "nodeSelector must be labels of nodes, such as topology.kubernetes.io/zone: a",
            path="nodeSelector",
        )
    ],
):
    """Where the instance may run, as in a Pod."""

    node_selector: Annotated[dict[str, LabelValue], Meta(max_length=32)] = field(default_factory=dict)
    """Labels that the node must have."""
    tolerations: Annotated[list[TolerationSpec], Meta(max_length=32)] = field(default_factory=list)
    """Taints that the node may have."""
    affinity: JsonObject | None = None
    """As in a Pod."""
    priority_class_name: ObjectName | None = None
    """As in a Pod."""


class InClusterSpec(
    Spec,
    rules=[
        Rule(
            "self.split('.')[0] == oldSelf.split('.')[0]",
            "the major version is immutable: make a new Database of that version and move the data",
            path="version",
        ),
        Rule(f"self.all(name, name.matches('{parameters.NAME}'))", parameters.NAME_ADVICE, path="parameters"),
        Rule(
            f"self.all(name, !(name in {list(parameters.PLACE)} || name == 'ssl' || name.startsWith('ssl_')))",
            parameters.PLACE_ADVICE,
            path="parameters",
        ),
        Rule(f"self.all(name, !(name in {list(parameters.PROGRAMS)}))", parameters.PROGRAMS_ADVICE, path="parameters"),
    ],
):
    """An instance of its own, in the cluster."""

    version: Annotated[str, Meta(pattern=r"^(1[4-9]|[2-9][0-9])(\.[0-9]+)?$", max_length=8)]
    """The version of PostgreSQL, 14 or newer: `17` for the newest 17, or `17.5`. The major version is immutable."""
    image: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$", max_length=512)] | None = None
    """The container image. Default: the official one of that version."""
    replicas: Annotated[int, Meta(ge=0, le=1)] = 1
    """0 stops the instance and keeps its data. More than 1 would be separate databases, not copies."""
    storage: StorageSpec
    """Its volume."""
    resources: ResourcesSpec | None = None
    """Its CPU and memory."""
    parameters: Annotated[dict[str, ParameterValue], Meta(max_length=128)] = field(default_factory=dict)
    """Settings of PostgreSQL, such as `max_connections: "200"`."""
    scheduling: SchedulingSpec | None = None
    """Where it may run."""
