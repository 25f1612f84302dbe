"""The shipped program: one operator with one controller, declared as any author would."""

from collections.abc import Iterable

from asyncctl import Header, Key, Operator, Watch
from asyncctl.database.check import check_servers
from asyncctl.database.naming import LABEL
from asyncctl.database.provisioners.in_cluster import EVENT
from asyncctl.database.provisioners.manifests import POD, SERVICE, STATEFUL_SET, VOLUME_CLAIM
from asyncctl.database.reconcile import DatabaseReconciler
from asyncctl.database.settings import DatabaseSettings
from asyncctl.database.types import Database, Provisioner
from asyncctl.objects import Namespace, Secret

FINALIZER = "database.finalizers.example.com"


def database_operator() -> Operator:
    """Declare it; each call makes one of its own."""
    operator = Operator("database", settings=DatabaseSettings)
    reconciler = DatabaseReconciler()
    secrets = Watch(Secret, to=_database_of, labels=LABEL)  # a tenant's own too, which say where his server is
    pods = Watch(POD, to=_database_of, labels=LABEL, wanted=_in_cluster)
    volumes = Watch(VOLUME_CLAIM, to=_database_of, labels=LABEL, wanted=_in_cluster)  # they outlive it: no owner
    owns = [*(Watch(kind, labels=LABEL, wanted=_in_cluster) for kind in (STATEFUL_SET, SERVICE)), volumes]
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
    operator.needs(EVENT, "list", optional=True, when=_in_cluster, why="they tell why an instance has no pod")
    operator.check("catalogue")(check_servers)
    return operator


def _in_cluster(settings: DatabaseSettings) -> bool:
    return settings.serves(Provisioner.IN_CLUSTER)


def _database_of(part: Header) -> Iterable[Key]:
    """What somebody changed or deleted is put right at once."""
    name = part.labels.get(LABEL)
    return [(part.namespace, name)] if name else []
