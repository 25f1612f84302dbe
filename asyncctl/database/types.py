"""`Database` (apps.example.com/v1): what a team asks for, and what it is told.

The CRD is made from these classes; a docstring below a field is what `kubectl explain` shows. What can be refused is
refused here, by schema or rule, with a message that says what to do; what depends on a server is the controller's.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, TypeAlias

from asyncctl.database import parameters
from asyncctl.objects import (
    Column,
    JsonObject,
    Meta,
    Part,
    Quantity,
    Resource,
    Rule,
    Spec,
    Status,
    field,
    list_map,
    ready_column,
)

Identifier: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_]*$", min_length=1, max_length=63)]
LoginName: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_]*$", min_length=1, max_length=50)]
ObjectName: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", min_length=1, max_length=253)]
SERVER_NAME = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
"""What a server of the catalogue may be called; without anchors, as RE2 and Python differ on how to write the end."""
LabelValue: TypeAlias = Annotated[str, Meta(pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$", max_length=63)]
QUALIFIED = "([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
"""The key of a label or a taint, and the name of a resource: `example.com/disk`."""
ParameterValue: TypeAlias = Annotated[str, Meta(pattern=r"^[^\x00-\x1f]*$", max_length=1024)]
Amount: TypeAlias = Annotated[Quantity, Meta(extra_json_schema={"maxLength": 32})]
Duration: TypeAlias = Annotated[
    str,
    Meta(
        # Go's durations wrap around without a word; so many digits can't.
        pattern=r"^([0-9]{1,5}h)?([0-9]{1,6}m)?([0-9]{1,8}s)?$",
        min_length=2,
        max_length=20,
        extra_json_schema={"format": "duration"},
    ),
]
ConnectionLimit: TypeAlias = Annotated[int, Meta(ge=-1, le=2**31 - 1)]


class Provisioner(StrEnum):
    """Where a database lives."""

    IN_CLUSTER = "InCluster"
    EXTERNAL = "External"


class ReclaimPolicy(StrEnum):
    """What becomes of the data when the object is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class AdoptionPolicy(StrEnum):
    """Whether a database that exists may be taken over."""

    NEVER = "Never"
    IF_UNOWNED = "IfUnowned"


class TolerationOperator(StrEnum):
    """How a toleration compares its value with the taint's."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does to a Pod that does not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Privileges(StrEnum):
    """What a login may do."""

    OWNER = "Owner"
    READ_WRITE = "ReadWrite"
    READ_ONLY = "ReadOnly"


class SslMode(StrEnum):
    """How a server is verified, in libpq's words."""

    DISABLE = "disable"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class Phase(StrEnum):
    """The state in one word; Failed exactly when the condition Stalled is True."""

    PENDING = "Pending"
    RUNNING = "Running"
    FAILED = "Failed"
    TERMINATING = "Terminating"
    SUSPENDED = "Suspended"


def _same(name: str) -> str:
    """Return the expression of an optional field that may neither change, nor come, nor go."""
    return f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"


class SchemaSpec(
    Spec,
    rules=[
        Rule(
            "!self.startsWith('pg_') && self != 'information_schema'",
            "pg_* and information_schema belong to PostgreSQL: choose another schema name",
            path="name",
        )
    ],
):
    """A schema in the database."""

    name: Identifier
    """Its name."""


class ExtensionSpec(
    Spec,
    rules=[
        Rule(
            "!self.startsWith('pg_') && self != 'information_schema'",
            "pg_* and information_schema belong to PostgreSQL: choose another schema, or leave it out",
            path="schema",
        )
    ],
):
    """An extension in the database."""

    name: Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_]*(-[a-z0-9_]+)*$", min_length=1, max_length=63)]
    """Its name, such as `pgcrypto`."""
    version: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._+]+(-[A-Za-z0-9._+]+)*$", max_length=63)] | None = None
    """Default: the server's."""
    schema: Identifier | None = None
    """The schema of its objects. Default: the extension's own choice."""


class UserSpec(Spec):
    """A login of the database, with a Secret of its own."""

    name: LoginName
    """What its PostgreSQL roles are named after."""
    privileges: Privileges = Privileges.OWNER
    """What it may do: Owner everything in the database, ReadWrite and ReadOnly what they say."""
    secret_name: ObjectName | None = None
    """The Secret with its credentials. Default: made from the names of the Database and the user."""
    connection_limit: ConnectionLimit = -1
    """Connections at once; -1 for no limit."""


class RotationSpec(
    Spec,
    rules=[
        Rule(
            "self >= duration('24h')",
            "interval must be 24h or more; for a rotation now, change trigger",
            path="interval",
        ),
        Rule(
            "self >= duration('1s') && self <= duration('720h')",
            "gracePeriod must be from 1s to 720h: the old password works that long after a change",
            path="gracePeriod",
        ),
        Rule(
            "!has(self.interval) || self.gracePeriod < self.interval",
            "gracePeriod must be shorter than interval: a password may not outlive the one after it",
        ),
    ],
):
    """When passwords change."""

    trigger: datetime | None = None
    """Passwords change once for each new value; write the current time."""
    interval: Duration | None = None
    """Passwords change when they are this old: 24h or more."""
    grace_period: Duration = "1h"
    """How long the old login still works after a change: from 1s to 720h, and shorter than interval."""


class CredentialsSpec(Spec):
    """Where the credentials go, and how they change."""

    secret_name: ObjectName | None = None
    """The Secret of the first owner. Default: made from the name of the Database."""
    rotation: RotationSpec | None = None
    """Left out: passwords stay."""


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
            _same("storageClassName"),
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
    parameters: Annotated[
        dict[str, Annotated[str, Meta(pattern=r"^[^\x00-\x1f]*$", max_length=1024)]], Meta(max_length=128)
    ] = field(default_factory=dict)
    """Settings of PostgreSQL, such as `max_connections: "200"`."""
    scheduling: SchedulingSpec | None = None
    """Where it may run."""


class SecretReference(Spec):
    """A Secret in the namespace of the Database."""

    name: ObjectName
    """Its name."""


class ExternalSpec(
    Spec,
    rules=[
        Rule(
            "has(self.serverName) != has(self.adminSecretRef)",
            "set exactly one of serverName (a server of the operator's catalogue) and adminSecretRef (your own server)",
        ),
        Rule(
            "!has(self.serverName) || (!has(self.sslMode) && !has(self.caSecretRef))",
            "sslMode and caSecretRef go with adminSecretRef: for a serverName the operator's catalogue has them",
        ),
    ],
):
    """A database on a server that exists already."""

    server_name: Annotated[str, Meta(pattern=f"^{SERVER_NAME}$", min_length=1, max_length=63)] | None = None
    """A server of the operator's catalogue. Ask your operator which there are for your namespace."""
    admin_secret_ref: SecretReference | None = None
    """A Secret with `host`, `port`, `username` and `password` of an admin. The operator must allow the host."""
    ssl_mode: SslMode | None = None
    """How the server is verified, with adminSecretRef. Default: verify-full."""
    ca_secret_ref: SecretReference | None = None
    """A Secret with the CA of the server in `ca.crt`, with adminSecretRef. Default: the system's."""


class DatabaseSpec(
    Spec,
    rules=[
        Rule(
            "self == oldSelf",
            "provisioner is immutable: make a new Database and move the data",
            path="provisioner",
        ),
        Rule(
            "has(self.inCluster) == (self.provisioner == 'InCluster')"
            " && has(self.external) == (self.provisioner == 'External')",
            "set the block of the provisioner and no other: inCluster with InCluster, external with External",
        ),
        Rule(
            "!self.startsWith('pg_') && !(self in ['postgres', 'template0', 'template1'])",
            "pg_*, postgres, template0 and template1 belong to PostgreSQL: choose another databaseName",
            path="databaseName",
        ),
        Rule(
            _same("databaseName"),
            "databaseName is immutable, and can't be set or removed later: make a new Database",
        ),
        Rule("self == oldSelf", "encoding is immutable: make a new Database and move the data", path="encoding"),
        Rule(_same("locale"), "locale is immutable: make a new Database and move the data"),
        Rule("self == oldSelf", "external is immutable: make a new Database and move the data", path="external"),
        Rule(
            "self.all(user, !has(user.secretName)"
            " || self.exists_one(other, has(other.secretName) && other.secretName == user.secretName))",
            "two users can't have one Secret: give each its own secretName",
            path="users",
        ),
        Rule(
            "!has(self.users) || !has(self.credentials) || !has(self.credentials.secretName)"
            " || self.users.all(user, !has(user.secretName) || user.secretName != self.credentials.secretName)",
            "credentials.secretName is the Secret of the first owner: give the other users another secretName",
        ),
    ],
):
    """What is wanted."""

    provisioner: Provisioner
    """InCluster: an instance of its own in the cluster. External: a database on a server that exists. Immutable."""
    database_name: LoginName | None = None
    """The name of the database. Default: made from namespace and name, and unique. Immutable."""
    reclaim_policy: ReclaimPolicy = ReclaimPolicy.RETAIN
    """What becomes of the data when this object is deleted: it is kept (Retain), or dropped (Delete)."""
    deletion_protection: bool = False
    """Whether deleting this object is refused."""
    adoption_policy: AdoptionPolicy = AdoptionPolicy.NEVER
    """Whether a database that exists and belongs to nobody may be taken over."""
    suspend: bool = False
    """Whether everything is left as it is for now."""
    encoding: Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=32)] = "UTF8"
    """The character encoding. Immutable."""
    locale: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.@-]+$", max_length=64)] | None = None
    """The locale, such as `en_US.UTF-8`. Default: the server's. Immutable."""
    connection_limit: ConnectionLimit = -1
    """Connections to the database at once; -1 for no limit."""
    schemas: Annotated[list[SchemaSpec], Meta(max_length=32, extra_json_schema=list_map("name"))] = field(
        default_factory=list
    )
    """Schemas to make. Others are left alone."""
    extensions: Annotated[list[ExtensionSpec], Meta(max_length=32, extra_json_schema=list_map("name"))] = field(
        default_factory=list
    )
    """Extensions to install. Others are left alone."""
    users: Annotated[list[UserSpec], Meta(max_length=16, extra_json_schema=list_map("name"))] = field(
        default_factory=list
    )
    """Logins. Default: one Owner."""
    credentials: CredentialsSpec | None = None
    """Where the credentials go, and how they change."""
    in_cluster: InClusterSpec | None = None
    """With provisioner InCluster: the instance."""
    external: ExternalSpec | None = None
    """With provisioner External: the server. Immutable."""


class Binding(Part):
    """The Secret to bind to (servicebinding.io)."""

    name: str
    """Its name."""


class ItemStatus(Part):
    """How it stands with one extension or schema."""

    name: str
    """Its name."""
    ready: bool
    """Whether it is there as wanted."""
    version: str | None = None
    """The version that is installed."""
    reason: str | None = None
    """Why it is not ready, in one word."""
    message: str | None = None
    """Why it is not ready, and what to do."""


class CredentialsStatus(Part):
    """The logins, and when their passwords change."""

    active_users: list[str] = field(default_factory=list)
    """The logins whose credentials are in the Secrets."""
    last_rotation_time: datetime | None = None
    """When passwords last changed."""
    next_rotation_time: datetime | None = None
    """When they change next."""


class Claim(Part):
    """Which database is ours: what it is known by, wherever its name leads."""

    system_identifier: str | None = None
    """The server's own identity, from initdb."""
    database_oid: int | None = field(name="databaseOID", default=None)
    """The database's object identifier on that server."""
    adopted: bool | None = None
    """Whether it existed before and was taken over."""


class DatabaseStatus(Status):
    """What is so."""

    phase: Phase | None = None
    """All in one word. The conditions say why."""
    replicas: int | None = None
    """Instances that run, in the cluster."""
    database_name: str | None = None
    """The name of the database."""
    owner_role: str | None = None
    """The role that owns the database, and that carries the claim."""
    host: str | None = None
    """The host to connect to."""
    port: int | None = None
    """The port to connect to."""
    server_version: str | None = None
    """The version of the server."""
    binding: Binding | None = None
    """The Secret with the credentials."""
    extensions: Annotated[list[ItemStatus], Meta(extra_json_schema=list_map("name"))] = field(default_factory=list)
    """How it stands with each extension."""
    schemas: Annotated[list[ItemStatus], Meta(extra_json_schema=list_map("name"))] = field(default_factory=list)
    """How it stands with each schema."""
    credentials: CredentialsStatus | None = None
    """The logins, and when their passwords change."""
    claim: Claim | None = None
    """Which database is ours."""
    last_reconcile_time: datetime | None = None
    """When the status last changed, or was last confirmed."""

    def summarize(self) -> None:
        """See `Status.summarize`: the phase is Failed exactly while `Stalled` is True."""
        stalled = self.conditions.get("Stalled")
        if stalled is not None and stalled.status == "True":
            self.phase = Phase.FAILED
        elif self.phase is Phase.FAILED:
            self.phase = Phase.PENDING


class Database(
    Resource,
    group="apps.example.com",
    version="v1",
    short_names=["db"],
    columns=[
        Column("Phase", "string", ".status.phase"),
        Column("Ready", "string", ready_column()),
        Column("Provisioner", "string", ".spec.provisioner"),
        Column("Database", "string", ".status.databaseName"),
        Column("Secret", "string", ".status.binding.name"),
        Column("Age", "date", ".metadata.creationTimestamp"),
        Column("Host", "string", ".status.host", priority=1),
        Column("Message", "string", ready_column(part="message"), priority=1),
    ],
):
    """A PostgreSQL database, and a Secret with the credentials to connect to it."""

    spec: DatabaseSpec
    """What is wanted."""
    status: DatabaseStatus = field(default_factory=DatabaseStatus)
    """What is so."""
