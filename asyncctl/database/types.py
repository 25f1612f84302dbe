"""`Database` (apps.example.com/v1): what a team asks for, and what it is told.

The CRD is made from these classes; a docstring below a field is what `kubectl explain` shows. What can be refused is
refused here, by schema or rule, with a message that says what to do; what depends on a server is the controller's.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from asyncctl.database.fields import (
    SERVER_NAME,
    ConnectionLimit,
    Duration,
    Identifier,
    LoginName,
    ObjectName,
    unchanged,
)
from asyncctl.database.instance import (
    InClusterSpec,
    ResourcesSpec,
    SchedulingSpec,
    StorageSpec,
    TolerationSpec,
)
from asyncctl.objects import (
    Column,
    Meta,
    Part,
    Resource,
    Rule,
    Spec,
    Status,
    field,
    list_map,
    ready_column,
)

__all__ = [
    "AdoptionPolicy",
    "Binding",
    "Claim",
    "CredentialsSpec",
    "CredentialsStatus",
    "Database",
    "DatabaseSpec",
    "DatabaseStatus",
    "ExtensionSpec",
    "ExternalSpec",
    "InClusterSpec",
    "ItemStatus",
    "LoginStatus",
    "Phase",
    "Privileges",
    "Provisioner",
    "ReclaimPolicy",
    "ResourcesSpec",
    "RotationSpec",
    "SchedulingSpec",
    "SchemaSpec",
    "SecretReference",
    "SslMode",
    "StorageSpec",
    "TolerationSpec",
    "UserSpec",
]


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
    """A Secret with the CA of the server in `ca.crt`, with adminSecretRef. Default: those that the operator trusts."""


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
            unchanged("databaseName"),
            "databaseName is immutable, and can't be set or removed later: make a new Database",
        ),
        Rule("self == oldSelf", "encoding is immutable: make a new Database and move the data", path="encoding"),
        Rule(unchanged("locale"), "locale is immutable: make a new Database and move the data"),
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


class LoginStatus(Part):
    """One user's login, and when its password changes."""

    login: str
    """The login whose credentials are in the Secret."""
    user: str | None = None
    """The name of the user in the spec."""
    secret_name: str
    """The Secret."""
    last_rotation_time: datetime | None = None
    """When its password was made."""
    next_rotation_time: datetime | None = None
    """When it changes next."""


class CredentialsStatus(Part):
    """The logins, and when their passwords change."""

    active_users: list[str] = field(default_factory=list)
    """The logins whose credentials are in the Secrets."""
    users: Annotated[list[LoginStatus], Meta(extra_json_schema=list_map("login"))] = field(default_factory=list)
    """The same one by one."""
    last_rotation_time: datetime | None = None
    """When a password last changed."""
    next_rotation_time: datetime | None = None
    """When one changes next."""


class Claim(Part):
    """Which database is ours: what it is known by, wherever its name leads."""

    system_identifier: str | None = None
    """The server's own identity, from initdb."""
    database_oid: int | None = field(name="databaseOID", default=None)
    """The database's object identifier on that server."""
    adopted: bool | None = None
    """Whether it existed before and was taken over."""
    uid: str | None = None
    """Of the object whose claim it bore last: this one."""


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
