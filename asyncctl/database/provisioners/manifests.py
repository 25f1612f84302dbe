"""The objects of an instance in the cluster, as pure functions of its `Database`: what is wanted, never what is.

The pod passes the `restricted` pod security standard. It is made for the official image `postgres` (any version, on
Debian or Alpine) and for what behaves like it: the entry point makes a cluster in `PGDATA` where there is none, with
`POSTGRES_PASSWORD` as the superuser's password, and afterwards never looks at that again. So each start of the
container sets it anew, over the local socket, which that image trusts: whoever restores a volume, loses the Secret or
changes it has a server that fits the Secret after the pod's next start. The pod is given a verifier; it never knows
the password.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Self

from asyncctl.database.naming import LABEL, MANAGED, MANAGER, label
from asyncctl.database.types import Database, InClusterSpec
from asyncctl.objects import JsonObject, Quantity, Secret, Unstructured, to_dict

POD = Unstructured("v1", "Pod")
SERVICE = Unstructured("v1", "Service")
STATEFUL_SET = Unstructured("apps/v1", "StatefulSet")
VOLUME_CLAIM = Unstructured("v1", "PersistentVolumeClaim")
MAJOR = "apps.example.com/postgres-major"
"""Annotation of the volume claim: of which major version of PostgreSQL its data is."""
TAKEN_BY = "apps.example.com/taken-by"
"""Annotation of the volume claim: the uid of the Database that made it, or took it up when it had been kept."""
VERIFIER = "apps.example.com/verifier"
"""Annotation of the pod: a digest of the verifier that it was started with, so that another one starts it anew."""
PORT = 5432
SUPERUSER = "postgres"
_LONGEST = 43  # of a Database's name in the names below: a StatefulSet's can have 52, for its pods' revision label
_MOUNT = "/var/lib/postgresql/data"
_SOCKETS = "/var/run/postgresql"
_GRACE = 120  # seconds for the last checkpoint; what takes longer is recovered from the log at the next start
# 1 is "rejects connections", as in crash recovery, which may take an hour and must not be cut short; 2 is no answer,
# as while initdb runs. Over TCP: the server that initdb's steps are run with has only the socket.
_ANSWERS = f"pg_isready -q -h 127.0.0.1 -p {PORT} -t 3"
_LIVES = f"{_ANSWERS} || test $? -eq 1"
# Waits for recovery, but not for ever: until a hook has ended there are no probes. That it can't set the password is no
# reason to end the server: the operator, which can't log in then, says so. The verifier goes by the environment and
# stdin, and into no log.
_SET_PASSWORD = (
    f"export PGHOST={_SOCKETS} PGPORT={PORT} PGUSER={SUPERUSER} PGDATABASE=postgres PGCONNECT_TIMEOUT=5; "
    "timeout 600 sh -c 'until pg_isready -q -t 3 && pg_isready -q -h 127.0.0.1 -t 3; do sleep 0.2; done' && "
    r"printf '%s\n' '\getenv verifier POSTGRES_PASSWORD' "
    "\"SET log_statement = 'none'\" ';' \"ALTER ROLE CURRENT_USER PASSWORD :'verifier'\" ';' "
    "| psql -X -q -w -v ON_ERROR_STOP=1 || true"
)
_FAST_SHUTDOWN = "kill -INT 1"  # SIGTERM, the default of images other than the official one, would wait for all clients


@dataclass(frozen=True, slots=True)
class Names:
    """What the objects of one `Database` are called.

    Attributes:
        service: Its host name, as it is for applications; the StatefulSet is called the same.
        pods: The headless Service, for the pod's own name.
        pod: The one there is.
        claim: The volume claim.
        secret: The Secret with the superuser's password.
    """

    service: str
    pods: str
    pod: str
    claim: str
    secret: str

    @classmethod
    def of(cls, database: str) -> Self:
        """The names for the `Database` of this name, which may be longer than a host name, and have dots."""
        stem = database
        if len(stem) > _LONGEST or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", stem):
            digest = hashlib.sha256(database.encode()).hexdigest()[:8]
            readable = re.sub(r"[^-a-z0-9]", "-", database)
            readable = readable if readable[0].isalpha() else f"db-{readable}"
            stem = f"{readable[: _LONGEST - 9].rstrip('-')}-{digest}"
        stem += "-postgres"
        return cls(stem, f"{stem}-pods", f"{stem}-0", f"{stem}-data", f"{stem}-admin")

    def host(self, namespace: str) -> str:
        """The name by which pods of any namespace reach it."""
        return f"{self.service}.{namespace}.svc"


def major(version: str) -> str:
    """The major version: of `17.5` it is `17`."""
    return version.partition(".")[0]


def volume_claim(db: Database, size: Quantity) -> JsonObject:
    """The volume; `size` is at least what is wanted, and never less than what there is."""
    wanted = _wanted(db)
    spec: JsonObject = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": str(size)}},
    }
    if wanted.storage.storage_class_name:
        spec["storageClassName"] = wanted.storage.storage_class_name
    metadata = _metadata(db, Names.of(db.name).claim)
    annotations = {MAJOR: major(wanted.version), TAKEN_BY: db.uid}
    return {"metadata": metadata | {"annotations": annotations}, "spec": spec}


def admin_secret(db: Database, password: str, verifier: str) -> Secret:
    """The superuser's credentials: the password for us, its verifier for the pod."""
    names = Names.of(db.name)
    values = {"username": SUPERUSER, "password": password, "verifier": verifier}
    return Secret(
        name=names.secret,
        namespace=db.namespace,
        labels=_labels(db) | {"app.kubernetes.io/component": "admin"},
        type="kubernetes.io/basic-auth",
        data={key: value.encode() for key, value in values.items()},
    )


def services(db: Database) -> tuple[JsonObject, JsonObject]:
    """The Service for applications, and the headless one that a StatefulSet needs."""
    names = Names.of(db.name)
    port = {"name": "postgres", "port": PORT, "targetPort": "postgres", "protocol": "TCP"}
    spec = {"type": "ClusterIP", "selector": _selector(db), "ports": [port]}
    headless = spec | {"clusterIP": "None", "publishNotReadyAddresses": True}
    return (
        {"metadata": _metadata(db, names.service), "spec": spec},
        {"metadata": _metadata(db, names.pods), "spec": headless},
    )


def image(db: Database, repository: str) -> str:
    """The image: the one that is asked for, else that of the version in `repository`."""
    wanted = _wanted(db)
    return wanted.image or f"{repository}:{wanted.version}"


def arguments(parameters: dict[str, str]) -> list[str]:
    """What the image's entry point is called with; ours come last, and win.

    Kubernetes puts variables for `$(NAME)`: a parameter's `$` is doubled, or it could read the container's environment.
    """
    ours = {
        "listen_addresses": "*",
        "port": str(PORT),
        "unix_socket_directories": _SOCKETS,
        "password_encryption": "scram-sha-256",
    }
    escaped = {name: value.replace("$", "$$") for name, value in sorted(parameters.items())}
    return ["postgres", *(part for name, value in (escaped | ours).items() for part in ("-c", f"{name}={value}"))]


def stateful_set(db: Database, *, repository: str, verifier: str) -> JsonObject:
    """The instance: one pod or none, of the volume and the Secret that are made beside it.

    Args:
        db: What is wanted.
        repository: Of the default image.
        verifier: As the Secret has it; its digest is on the pod.
    """
    names, wanted = Names.of(db.name), _wanted(db)
    digest = hashlib.sha256(verifier.encode()).hexdigest()[:16]
    template = {
        "metadata": {"labels": _labels(db), "annotations": {VERIFIER: digest}},
        "spec": _pod(db, names, image(db, repository)),
    }
    return {
        "metadata": _metadata(db, names.service),
        "spec": {
            "replicas": wanted.replicas,
            "serviceName": names.pods,
            "selector": {"matchLabels": _selector(db)},
            # Of one pod there is no order. But a pod that never gets ready, say for its image's name, is replaced only
            # so: with OrderedReady it is waited for, for ever.
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"},
            "revisionHistoryLimit": 3,
            "template": template,
        },
    }


def _pod(db: Database, names: Names, image: str) -> JsonObject:
    wanted = _wanted(db)
    user = 70 if "alpine" in image.rpartition("/")[2] else 999  # of the user postgres in the official images
    empty = {"tmp": "/tmp", "sockets": _SOCKETS, "shm": "/dev/shm"}  # noqa: S108 - the container's
    pod: JsonObject = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "postgres",
                "image": image,
                "args": arguments(wanted.parameters),
                "env": _environment(names),
                "ports": [{"name": "postgres", "containerPort": PORT, "protocol": "TCP"}],
                "resources": _resources(wanted),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                },
                "lifecycle": {
                    "postStart": {"exec": {"command": _shell(_SET_PASSWORD)}},
                    "preStop": {"exec": {"command": _shell(_FAST_SHUTDOWN)}},
                },
                # ten minutes for initdb on a slow disk; then two minutes without any answer end the container
                "startupProbe": _probe(_LIVES, period=2, failures=300),
                "livenessProbe": _probe(_LIVES, period=10, failures=12),
                "readinessProbe": _probe(_ANSWERS, period=5, failures=2),
                "terminationMessagePolicy": "FallbackToLogsOnError",  # so that the pod's status says why it ended
                "volumeMounts": [
                    {"name": "data", "mountPath": _MOUNT},
                    *({"name": name, "mountPath": path} for name, path in empty.items()),
                ],
            }
        ],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": names.claim}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "sockets", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},  # a runtime's own has 64 MiB: too little for joins
        ],
    }
    return pod | _scheduling(wanted)


def _environment(names: Names) -> list[JsonObject]:
    return [
        {"name": "PGDATA", "value": f"{_MOUNT}/pgdata"},  # a file system's root may hold lost+found
        {
            "name": "POSTGRES_PASSWORD",
            "valueFrom": {"secretKeyRef": {"name": names.secret, "key": "verifier"}},
        },
        # The official image lets everybody in from 127.0.0.1, which is where `kubectl port-forward` comes from.
        {
            "name": "POSTGRES_INITDB_ARGS",
            "value": "--auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --data-checksums",
        },
    ]


def _scheduling(wanted: InClusterSpec) -> JsonObject:
    scheduling = wanted.scheduling
    if scheduling is None:
        return {}
    said: JsonObject = {
        "nodeSelector": scheduling.node_selector,
        "tolerations": [to_dict(each) for each in scheduling.tolerations],
        "affinity": scheduling.affinity,
        "priorityClassName": scheduling.priority_class_name,
    }
    return {key: value for key, value in said.items() if value}


def _resources(wanted: InClusterSpec) -> JsonObject:
    if wanted.resources is None:
        return {}
    said = {"requests": wanted.resources.requests, "limits": wanted.resources.limits}
    return {kind: {name: str(value) for name, value in each.items()} for kind, each in said.items() if each}


def _probe(command: str, *, period: int, failures: int) -> JsonObject:
    return {
        "exec": {"command": _shell(command)},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _shell(command: str) -> list[str]:
    return ["/bin/sh", "-c", command]


def _metadata(db: Database, name: str) -> JsonObject:
    return {"name": name, "namespace": db.namespace, "labels": _labels(db)}


def _labels(db: Database) -> dict[str, str]:
    return _selector(db) | {MANAGED: MANAGER, LABEL: label(db.name)}


def _selector(db: Database) -> dict[str, str]:
    return {"app.kubernetes.io/name": "postgres", "app.kubernetes.io/instance": Names.of(db.name).service}


def _wanted(db: Database) -> InClusterSpec:
    assert db.spec.in_cluster is not None
    return db.spec.in_cluster
