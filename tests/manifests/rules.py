"""Every rule of the `Database` CRD with what it refuses, and with the nearest that it accepts.

`refused_by_schema` and `refused_by_rule` are of a new object, `FIXED` of a change. A path is below `spec`; `put` makes
what it leads through. What the schema has and no example here is found by `demands`.
"""

import copy
import re
from itertools import pairwise
from typing import Any, NamedTuple

from asyncctl.database import parameters

EXTERNAL = {"provisioner": "External", "external": {"serverName": "main"}}
OWN_SERVER = {
    "provisioner": "External",
    "external": {"adminSecretRef": {"name": "admin"}, "sslMode": "verify-ca", "caSecretRef": {"name": "ca"}},
}
IN_CLUSTER = {"provisioner": "InCluster", "inCluster": {"version": "17.5", "storage": {"size": "10Gi"}}}
EVERYTHING = {
    **IN_CLUSTER,
    "databaseName": "orders_1",
    "reclaimPolicy": "Delete",
    "deletionProtection": True,
    "adoptionPolicy": "IfUnowned",
    "suspend": True,
    "encoding": "LATIN1",
    "locale": "en_US.UTF-8",
    "connectionLimit": 20,
    "schemas": [{"name": "app"}, {"name": "public"}],
    "extensions": [{"name": "uuid-ossp", "version": "1.1", "schema": "app"}],
    "users": [
        {"name": "app", "secretName": "orders.app"},
        {"name": "reader", "privileges": "ReadOnly", "secretName": "reader.pw", "connectionLimit": 2},
    ],
    "credentials": {
        "secretName": "orders",
        "rotation": {"trigger": "2026-01-02T03:04:05Z", "interval": "720h30m", "gracePeriod": "90s"},
    },
    "inCluster": {
        "version": "17.5",
        "image": "registry.example.com:5000/team/postgres:17.5@sha256:0a",
        "replicas": 0,
        "storage": {"size": "10Gi", "storageClassName": "fast"},
        "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"memory": "2G", "example.com/gpu": 1}},
        "parameters": {"max_connections": "50", "pg_stat_statements.max": "1000"},
        "scheduling": {
            "nodeSelector": {"disk": "ssd", "topology.kubernetes.io/zone": ""},
            "tolerations": [
                {"key": "example.com/db", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
                {"key": "db", "value": "yes"},
                {"operator": "Exists"},
            ],
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
            "priorityClassName": "high",
        },
    },
}

_NAMED = {"schemas", "extensions", "users"}


def put(spec, path, value):
    """Return `spec` with `value` at `path`, or without what is there where the value is None."""
    spec = copy.deepcopy(spec)
    node: Any = spec
    *steps, last = path.replace("[", ".[").split(".")
    for step, following in pairwise([*steps, last]):
        if step.startswith("["):
            node = node[int(step[1:-1])]
        else:
            node = node.setdefault(step, [] if following.startswith("[") else {})
        if following.startswith("[") and int(following[1:-1]) == len(node):
            node.append({"name": "n"} if step in _NAMED else {})
    if last.startswith("["):
        node[int(last[1:-1])] = value
        return spec
    if value is None:
        node.pop(last, None)
    else:
        node[last] = value
    return spec


def base_of(path):
    """The object that the path is put into, so that nothing but the value is wrong."""
    if path.startswith("inCluster.scheduling.tolerations["):
        return put(IN_CLUSTER, "inCluster.scheduling.tolerations", [{"key": "a"}])
    if path.startswith("inCluster"):
        return IN_CLUSTER
    own = path.startswith("external") and not path.endswith("serverName")
    return OWN_SERVER if own else EXTERNAL


def named(count):
    return [{"name": f"n{number}"} for number in range(count)]


def numbered(prefix, count):
    return {f"{prefix}{number}": "1" for number in range(count)}


# The field, the keyword of its schema, what that refuses, and the nearest that it accepts. None leaves the field out.
SCHEMA = [
    ("provisioner", "required", [None], "External"),
    ("provisioner", "enum", ["Cloud", "external", ""], "External"),
    ("databaseName", "pattern", ["Orders", "1st", "or-ders", 'o"; --', "orders\n", "ö"], "orders_1st"),
    ("databaseName", "minLength", [""], "_"),
    ("databaseName", "maxLength", ["a" * 51], "a" * 50),
    ("reclaimPolicy", "enum", ["Recycle", "delete"], "Delete"),
    ("adoptionPolicy", "enum", ["Always"], "IfUnowned"),
    ("encoding", "pattern", ["UTF8'; --", "", "8859"], "ISO_8859_5"),
    ("encoding", "maxLength", ["a" * 33], "a" * 32),
    ("locale", "pattern", ["C'; --", "", "de DE"], "sr_RS.UTF-8@latin"),
    ("locale", "maxLength", ["a" * 65], "a" * 64),
    ("connectionLimit", "minimum", [-2], -1),
    ("connectionLimit", "maximum", [2**31], 2**31 - 1),
    ("schemas", "maxItems", [named(33)], named(32)),
    ("schemas", "list-map", [[{"name": "a"}, {"name": "a"}]], [{"name": "a"}, {"name": "b"}]),
    ("schemas[0].name", "required", [None], "a"),
    ("schemas[0].name", "pattern", ["App", "my-app", "1"], "my_app"),
    ("schemas[0].name", "minLength", [""], "a"),
    ("schemas[0].name", "maxLength", ["a" * 64], "a" * 63),
    ("extensions", "maxItems", [named(33)], named(32)),
    ("extensions", "list-map", [[{"name": "a"}, {"name": "a"}]], [{"name": "a"}, {"name": "b"}]),
    ("extensions[0].name", "required", [None], "a"),
    ("extensions[0].name", "pattern", ["-a", "a-", "a--b", "../a", 'a"'], "uuid-ossp"),
    ("extensions[0].name", "minLength", [""], "a"),
    ("extensions[0].name", "maxLength", ["a" * 64], "a" * 63),
    ("extensions[0].version", "pattern", ["", "1--2", "-1", "1-", "1/2", "1'"], "1.0-rc1"),
    ("extensions[0].version", "maxLength", ["1" * 64], "1" * 63),
    ("extensions[0].schema", "pattern", ["App"], "app"),
    ("extensions[0].schema", "minLength", [""], "a"),
    ("extensions[0].schema", "maxLength", ["a" * 64], "a" * 63),
    ("users", "maxItems", [named(17)], named(16)),
    ("users", "list-map", [[{"name": "a"}, {"name": "a"}]], [{"name": "a"}, {"name": "b"}]),
    ("users[0].name", "required", [None], "a"),
    ("users[0].name", "pattern", ["App", "a-b", "1a"], "a_b1"),
    ("users[0].name", "minLength", [""], "a"),
    ("users[0].name", "maxLength", ["a" * 51], "a" * 50),
    ("users[0].privileges", "enum", ["Admin", ""], "ReadWrite"),
    ("users[0].secretName", "pattern", ["No/Such", "a_b", "-a", "a-"], "a.b-c"),
    ("users[0].secretName", "minLength", [""], "a"),
    ("users[0].secretName", "maxLength", ["a" * 254], "a" * 253),
    ("users[0].connectionLimit", "minimum", [-2], -1),
    ("users[0].connectionLimit", "maximum", [2**31], 0),
    ("credentials.secretName", "pattern", ["No/Such", "Orders"], "orders"),
    ("credentials.secretName", "minLength", [""], "a"),
    ("credentials.secretName", "maxLength", ["a" * 254], "a" * 253),
    ("credentials.rotation.trigger", "date-time", ["now", "2026-01-02"], "2026-01-02T03:04:05Z"),
    ("credentials.rotation.interval", "pattern", ["1 day", "30d", "-24h", "24.5h", "30m24h", "100000h"], "24h30m"),
    ("credentials.rotation.interval", "minLength", [""], "24h"),
    ("credentials.rotation.interval", "maxLength", ["99999h999999m9999999s"], "99999h999999m999999s"),
    ("credentials.rotation.gracePeriod", "pattern", ["1 hour", "1d"], "1h30m"),
    ("credentials.rotation.gracePeriod", "minLength", [""], "1h"),
    ("credentials.rotation.gracePeriod", "maxLength", ["00001h000001m0000001s"], "00001h000001m000001s"),
    ("external.serverName", "pattern", ["Main", "a.b", "-a"], "a-1"),
    ("external.serverName", "minLength", [""], "a"),
    ("external.serverName", "maxLength", ["a" * 64], "a" * 63),
    ("external.adminSecretRef.name", "required", [None], "admin"),
    ("external.adminSecretRef.name", "pattern", ["No/Such", "../other"], "admin"),
    ("external.adminSecretRef.name", "minLength", [""], "a"),
    ("external.adminSecretRef.name", "maxLength", ["a" * 254], "a" * 253),
    ("external.sslMode", "enum", ["prefer", "allow", ""], "verify-full"),
    ("external.caSecretRef.name", "required", [None], "ca"),
    ("external.caSecretRef.name", "pattern", ["No/Such"], "ca"),
    ("external.caSecretRef.name", "minLength", [""], "a"),
    ("external.caSecretRef.name", "maxLength", ["a" * 254], "a" * 253),
    ("inCluster.version", "required", [None], "17"),
    ("inCluster.version", "pattern", ["13", "13.9", "9.6", "17.5.1", "latest", "17-rc1", ""], "14"),
    ("inCluster.version", "maxLength", ["17.123456"], "17.12345"),
    ("inCluster.image", "pattern", ["", "a b", "$(IMAGE)", "-a"], "registry.example.com/postgres:17.5"),
    ("inCluster.image", "maxLength", ["a" * 513], "a" * 512),
    ("inCluster.replicas", "minimum", [-1], 0),
    ("inCluster.replicas", "maximum", [2], 1),
    ("inCluster.storage", "required", [None], {"size": "10Gi"}),
    ("inCluster.storage.size", "required", [None], "10Gi"),
    ("inCluster.storage.size", "pattern", ["ten", "10GiB", "10 Gi", ""], "10Gi"),
    ("inCluster.storage.size", "maxLength", [f"{'0' * 29}10Gi"], f"{'0' * 28}10Gi"),
    ("inCluster.storage.storageClassName", "pattern", ["Fast", "a b"], "fast"),
    ("inCluster.storage.storageClassName", "minLength", [""], "a"),
    ("inCluster.storage.storageClassName", "maxLength", ["a" * 254], "a" * 253),
    ("inCluster.resources.requests", "maxProperties", [numbered("a/r", 17)], numbered("a/r", 16)),
    ("inCluster.resources.requests.cpu", "pattern", ["one", "1 core"], "500m"),
    ("inCluster.resources.requests.cpu", "maxLength", [f"{'0' * 32}1"], f"{'0' * 31}1"),
    ("inCluster.resources.limits", "maxProperties", [numbered("a/r", 17)], numbered("a/r", 16)),
    ("inCluster.resources.limits.cpu", "pattern", ["one", "1 core"], 2),
    ("inCluster.resources.limits.cpu", "maxLength", [f"{'0' * 32}1"], f"{'0' * 31}1"),
    ("inCluster.parameters", "maxProperties", [numbered("a.n", 129)], numbered("a.n", 128)),
    ("inCluster.parameters.work_mem", "pattern", ["4MB\nport = 1", "a\0b"], "4MB"),
    ("inCluster.parameters.work_mem", "maxLength", ["a" * 1025], "a" * 1024),
    ("inCluster.scheduling.nodeSelector", "maxProperties", [numbered("n", 33)], numbered("n", 32)),
    ("inCluster.scheduling.nodeSelector.disk", "pattern", ["fast disk", "-ssd"], "ssd"),
    ("inCluster.scheduling.nodeSelector.disk", "maxLength", ["a" * 64], "a" * 63),
    ("inCluster.scheduling.tolerations", "maxItems", [[{"operator": "Exists"}] * 33], [{"operator": "Exists"}] * 32),
    ("inCluster.scheduling.tolerations[0].key", "pattern", ["a b", "/a", "Example.com/a"], "example.com/a"),
    ("inCluster.scheduling.tolerations[0].key", "maxLength", ["a" * 317], "a" * 316),
    ("inCluster.scheduling.tolerations[0].operator", "enum", ["exists", "In"], "Exists"),
    ("inCluster.scheduling.tolerations[0].effect", "enum", ["NoRun"], "NoSchedule"),
    ("inCluster.scheduling.tolerations[0].value", "pattern", ["a b"], "a.b"),
    ("inCluster.scheduling.tolerations[0].value", "maxLength", ["a" * 64], "a" * 63),
    ("inCluster.scheduling.priorityClassName", "pattern", ["High"], "high"),
    ("inCluster.scheduling.priorityClassName", "minLength", [""], "a"),
    ("inCluster.scheduling.priorityClassName", "maxLength", ["a" * 254], "a" * 253),
]  # fmt: skip

BLOCKS = "set the block of the provisioner and no other: inCluster with InCluster, external with External"
ONE_SERVER = "set exactly one of serverName (a server of the operator's catalogue) and adminSecretRef (your own server)"
TLS = "sslMode and caSecretRef go with adminSecretRef: for a serverName the operator's catalogue has them"
RESERVED = "pg_*, postgres, template0 and template1 belong to PostgreSQL: choose another databaseName"
RESERVED_SCHEMA = "pg_* and information_schema belong to PostgreSQL: choose another schema name"
RESERVED_HOME = "pg_* and information_schema belong to PostgreSQL: choose another schema, or leave it out"
INTERVAL = "interval must be 24h or more; for a rotation now, change trigger"
GRACE = "gracePeriod must be from 1s to 720h: the old password works that long after a change"
OVERLAP = "gracePeriod must be shorter than interval: a password may not outlive the one after it"
ONE_SECRET = "two users can't have one Secret: give each its own secretName"
OWNERS_SECRET = "credentials.secretName is the Secret of the first owner: give the other users another secretName"
SIZE = "size must be 100Mi or more, such as 10Gi: PostgreSQL does not start on less"
AMOUNTS = "{0} must be names of resources with amounts that are not negative, such as cpu: 500m, memory: 1Gi"
OVER = "what requests asks for can't be more than what limits allows: raise the limit, or ask for less"
NO_KEY = "a toleration without a key is for all taints: say so with operator Exists, or set key"
NO_VALUE = "a toleration with operator Exists has no value: remove value, or use operator Equal"
SECONDS = "tolerationSeconds goes with effect NoExecute: the other effects evict nobody"
LABELS = "nodeSelector must be labels of nodes, such as topology.kubernetes.io/zone: a"
MOVE = "make a new Database and move the data"
NAME_FIXED = "databaseName is immutable, and can't be set or removed later: make a new Database"
VERSION_FIXED = "the major version is immutable: make a new Database of that version and move the data"
CLASS_FIXED = f"storageClassName is immutable: {MOVE}"
SHRINKS = "size can only grow: a volume can't shrink"

_ROTATION = "credentials.rotation"
_RESOURCES = "inCluster.resources"
_TOLERATION = "inCluster.scheduling.tolerations[0]"

# The field, what its rule says, what that refuses, and the nearest that it accepts: values of the field, or specs.
RULES = [
    ("", BLOCKS, [
        {"provisioner": "External"}, {"provisioner": "InCluster"}, IN_CLUSTER | {"external": {"serverName": "main"}},
        EXTERNAL | {"inCluster": IN_CLUSTER["inCluster"]}, IN_CLUSTER | {"provisioner": "External"},
    ], IN_CLUSTER),
    ("databaseName", RESERVED, ["pg_orders", "postgres", "template0", "template1"], "pgorders"),
    ("schemas[0].name", RESERVED_SCHEMA, ["pg_mine", "information_schema", "pg_catalog"], "pgmine"),
    ("extensions[0].schema", RESERVED_HOME, ["pg_temp", "information_schema"], "public"),
    (f"{_ROTATION}.interval", INTERVAL, ["23h59m59s", "0s", "1h"], "24h"),
    (f"{_ROTATION}.gracePeriod", GRACE, ["0s", "720h1s"], "720h"),
    (_ROTATION, OVERLAP, [
        {"interval": "24h", "gracePeriod": "24h"}, {"interval": "24h", "gracePeriod": "25h"},
    ], {"interval": "24h", "gracePeriod": "23h59m59s"}),
    ("users", ONE_SECRET, [
        [{"name": "a", "secretName": "x"}, {"name": "b", "secretName": "x"}],
        [{"name": "a", "secretName": "x"}, {"name": "b"}, {"name": "c", "secretName": "x"}],
    ], [{"name": "a", "secretName": "x"}, {"name": "b", "secretName": "y"}, {"name": "c"}]),
    ("", OWNERS_SECRET, [
        EXTERNAL | {"credentials": {"secretName": "x"}, "users": [{"name": "a"}, {"name": "b", "secretName": "x"}]},
    ], EXTERNAL | {"credentials": {"secretName": "x"}, "users": [{"name": "a"}, {"name": "b", "secretName": "y"}]}),
    ("external", ONE_SERVER, [{}, {"serverName": "main", "adminSecretRef": {"name": "x"}}], {"serverName": "main"}),
    ("external", TLS, [
        {"serverName": "main", "sslMode": "require"}, {"serverName": "main", "caSecretRef": {"name": "ca"}},
    ], {"adminSecretRef": {"name": "x"}, "sslMode": "require"}),
    ("inCluster.storage.size", SIZE, ["0", 10, "10", "-1Gi", "99Mi", "10m"], "100Mi"),
    (f"{_RESOURCES}.requests", AMOUNTS.format("requests"), [{"cpu": -1}, {"c pu": 1}, {"": 1}], {"cpu": 0}),
    (f"{_RESOURCES}.limits", AMOUNTS.format("limits"), [{"cpu": "-1m"}, {"-cpu": 1}], {"example.com/gpu": 1}),
    (_RESOURCES, OVER, [
        {"requests": {"cpu": 1, "memory": "1025Mi"}, "limits": {"memory": "1Gi"}},
        {"requests": {"cpu": "1001m"}, "limits": {"cpu": 1}},
    ], {"requests": {"cpu": 1, "memory": "1024Mi"}, "limits": {"memory": "1Gi"}}),
    ("inCluster.parameters", parameters.NAME_ADVICE, [
        {"Work_Mem": "1"}, {"work-mem": "1"}, {"a.b.c": "1"}, {"": "1"}, {"work_mem\nport": "1"}, {"a=b": "1"},
    ], {"work_mem": "4MB", "auto_explain.log_min_duration": "1s"}),
    ("inCluster.parameters", parameters.PLACE_ADVICE, [
        *({name: "1"} for name in parameters.PLACE), {"ssl": "off"}, {"ssl_ca_file": "x"},
    ], {"max_connections": "50", "portal": "x"}),
    ("inCluster.parameters", parameters.PROGRAMS_ADVICE, [{name: "x"} for name in parameters.PROGRAMS],
     {"archive_mode": "off", "shared_preload_libraries": "pg_stat_statements"}),
    ("inCluster.scheduling.nodeSelector", LABELS, [{"a b": "c"}, {"": "c"}, {"a/b/c": "d"}], {"a.b/c": "d"}),
    (_TOLERATION, NO_KEY, [{}, {"key": ""}, {"value": "x"}, {"operator": "Equal"}], {"operator": "Exists"}),
    (_TOLERATION, NO_VALUE, [{"key": "a", "operator": "Exists", "value": "b"}], {"key": "a", "value": "b"}),
    (_TOLERATION, SECONDS, [
        {"key": "a", "tolerationSeconds": 60}, {"key": "a", "effect": "NoSchedule", "tolerationSeconds": 60},
    ], {"key": "a", "effect": "NoExecute", "tolerationSeconds": 60}),
]  # fmt: skip

_ELSEWHERE = {"serverName": "other"}
_STORAGE = "inCluster.storage"

# What there was; the field, what its rule says, what it may not become (path and value), and the nearest that it may.
FIXED = [
    (EXTERNAL, "provisioner", f"provisioner is immutable: {MOVE}", [("", IN_CLUSTER)], ("suspend", True)),
    (EXTERNAL, "", BLOCKS, [("inCluster", IN_CLUSTER["inCluster"]), ("external", None)], ("connectionLimit", 5)),
    (EXTERNAL, "", NAME_FIXED, [("databaseName", "later")], ("databaseName", None)),
    (EVERYTHING, "", NAME_FIXED, [("databaseName", "other"), ("databaseName", None)], ("databaseName", "orders_1")),
    (EXTERNAL, "encoding", f"encoding is immutable: {MOVE}", [("encoding", "LATIN1")], ("encoding", "UTF8")),
    (EVERYTHING, "encoding", f"encoding is immutable: {MOVE}", [("encoding", None)], ("encoding", "LATIN1")),
    (EXTERNAL, "", f"locale is immutable: {MOVE}", [("locale", "C")], ("locale", None)),
    (EVERYTHING, "", f"locale is immutable: {MOVE}", [("locale", "C"), ("locale", None)], ("locale", "en_US.UTF-8")),
    (EXTERNAL, "external", f"external is immutable: {MOVE}", [
        ("external", _ELSEWHERE), ("external", OWN_SERVER["external"]),
    ], ("schemas", [{"name": "app"}])),
    (OWN_SERVER, "external", f"external is immutable: {MOVE}", [
        ("external.adminSecretRef.name", "other"), ("external.sslMode", "disable"), ("external.sslMode", None),
        ("external.caSecretRef", None),
    ], ("external.sslMode", "verify-ca")),
    (IN_CLUSTER, "inCluster.version", VERSION_FIXED, [
        ("inCluster.version", "18"), ("inCluster.version", "16.9"),
    ], ("inCluster.version", "17.6")),
    (IN_CLUSTER, "inCluster.storage.size", SHRINKS, [(f"{_STORAGE}.size", "10239Mi")], (f"{_STORAGE}.size", "10241Mi")),
    (IN_CLUSTER, _STORAGE, CLASS_FIXED, [(f"{_STORAGE}.storageClassName", "x")], (f"{_STORAGE}.size", "11Gi")),
    (EVERYTHING, _STORAGE, CLASS_FIXED, [
        (f"{_STORAGE}.storageClassName", "x"), (f"{_STORAGE}.storageClassName", None),
    ], (f"{_STORAGE}.size", "20Gi")),
]  # fmt: skip

# What may change freely, all at once.
ALLOWED = [
    (IN_CLUSTER, {"inCluster": {"version": "17.6", "storage": {"size": "11000Mi"}, "replicas": 0}}),
    (EXTERNAL, {"reclaimPolicy": "Delete", "connectionLimit": 5, "suspend": True, "schemas": [{"name": "app"}]}),
    (EVERYTHING, {"schemas": [], "extensions": [], "users": [], "credentials": None, "deletionProtection": False}),
]


class Refused(NamedTuple):
    """A spec that is refused, and the nearest that is not.

    Attributes:
        field: What the server complains of.
        keyword: Of the schema: `pattern`, `required`, or `rule`.
        said: A part of what it says.
        bad: The spec that is refused.
        good: The one that is accepted.
    """

    field: str
    keyword: str
    said: str
    bad: dict[str, Any]
    good: dict[str, Any]


_SAID = {
    "required": "Required value",
    "enum": "Unsupported value",
    "pattern": "should match",
    "minLength": "should be at least",
    "maxLength": "Too long",
    "minimum": "should be greater than or equal to",
    "maximum": "should be less than or equal to",
    "maxItems": "must have at most",
    "maxProperties": "must have at most",
    "list-map": "Duplicate value",
    "date-time": "must be of type date-time",
}


def refused_by_schema():
    for path, keyword, bad, good in SCHEMA:
        base, field = base_of(path), f"spec.{path}[1]" if keyword == "list-map" else f"spec.{path}"
        for each in bad:
            yield Refused(field, keyword, _SAID[keyword], put(base, path, each), put(base, path, good))


def refused_by_rule():
    for path, said, bad, good in RULES:
        for each in bad:
            if path:
                base = base_of(path)
                yield Refused(f"spec.{path}", "rule", said, put(base, path, each), put(base, path, good))
            else:
                yield Refused("spec", "rule", said, each, good)


def demands(schema, path=""):
    """Yield what a schema demands of a value, as (path, keyword), with `[]` for items and `{}` for any key of a map."""
    for keyword in ("enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "maxItems", "maxProperties"):
        if keyword in schema:
            yield path, keyword
    if schema.get("format") == "date-time":  # a duration's pattern says more than its format
        yield path, "date-time"
    if "x-kubernetes-list-map-keys" in schema:
        yield path, "list-map"
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path, rule["message"]
    for name in schema.get("required", ()):
        yield f"{path}.{name}", "required"
    for name, each in schema.get("properties", {}).items():
        yield from demands(each, f"{path}.{name}")
    if "items" in schema:
        yield from demands(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from demands(schema["additionalProperties"], f"{path}{{}}")


def tried():
    """Return what the examples above are of, in the words of `demands`."""
    found = {(path, keyword) for path, keyword, *_ in SCHEMA} | {(path, said) for path, said, *_ in RULES}
    found |= {(path, said) for _, path, said, *_ in FIXED}
    return {(_in_schema(path), keyword) for path, keyword in found}


def _in_schema(path):
    path = re.sub(r"\[\d+\]", "[]", f".{path}" if path else "")
    return re.sub(r"(parameters|requests|limits|nodeSelector)\.[a-z_]+$", r"\1{}", path)
