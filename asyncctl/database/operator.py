"""The shipped program: one operator with one controller, declared as any author would."""

from collections.abc import Iterable

from asyncctl import Header, Key, Operator, Watch
from asyncctl.database.check import check_servers
from asyncctl.database.naming import LABEL
from asyncctl.database.provisioners.in_cluster import EVENT
from asyncctl.database.provisioners.manifests import POD, SERVICE, STATEFUL_SET, VOLUME_CLAIM
from asyncctl.database.reconcile import DatabaseReconciler
from asyncctl.database.settings import DatabaseSettings
from asyncctl.database.types import Database
from asyncctl.objects import Namespace, Secret

FINALIZER = "database.finalizers.example.com"


def database_operator() -> Operator:
    """Declare it; each call makes one of its own."""
    operator = Operator("database", settings=DatabaseSettings)
    reconciler = DatabaseReconciler()
    secrets = Watch(Secret, to=_database_of, labels=LABEL)  # a tenant's own too, which say where his server is
    pods = Watch(POD, to=_database_of, labels=LABEL)
    volumes = Watch(VOLUME_CLAIM, to=_database_of, labels=LABEL)  # they outlive it, and so have no owner
    owns = [Watch(STATEFUL_SET, labels=LABEL), Watch(SERVICE, labels=LABEL), volumes]
    declared = operator.controller(Database, owns=owns, watches=[secrets, pods])(reconciler)
    declared.finalizer(FINALIZER)(reconciler.clean_up)
    operator.on_startup(reconciler.start)
    operator.on_shutdown(reconciler.stop)
    operator.background(reconciler.tidy)
    operator.background(reconciler.count)
    operator.needs(Secret, "create", "patch", "delete", why="holds the credentials")
    operator.needs(
        Database, "update", subresource="finalizers", optional=True,
        why="to own Secrets on OpenShift, and wherever OwnerReferencesPermissionEnforcement is on",
    )  # fmt: skip
    operator.needs(
        Namespace, "get", names=["kube-system"], when=lambda settings: settings.cluster_id is None,
        why="its uid names the cluster; with ASYNCCTL_CLUSTER_ID it is not read",
    )  # fmt: skip
    operator.needs(EVENT, "list", optional=True, why="they tell why an instance has no pod")
    operator.check("catalogue")(check_servers)
    return operator


def _database_of(part: Header) -> Iterable[Key]:
    """What somebody changed or deleted is put right at once."""
    name = part.labels.get(LABEL)
    return [(part.namespace, name)] if name else []
