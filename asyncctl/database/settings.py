"""What the shipped controller can be told beside the runtime's own settings."""

from collections.abc import Iterator
from pathlib import Path

from asyncctl import Duration, Problem, Settings, setting
from asyncctl.database.types import Provisioner


class DatabaseSettings(Settings, prefix="ASYNCCTL_DATABASE_"):
    """The settings of `asyncctl run`."""

    provisioners: tuple[str, ...] = setting(
        default=tuple(Provisioner),
        meaning="which Databases are served; without InCluster no rights to make instances are needed",
        matches="|".join(Provisioner),
        allowed=" or ".join((*Provisioner, "both, separated by a comma")),
    )
    servers: Path | None = setting(default=None, meaning="file with the catalogue of External servers")
    image: str = setting(
        default="postgres",
        meaning="repository of the image of an instance in the cluster, to which its version is the tag",
        matches=r"[a-z0-9]([-a-z0-9._:/]{0,253}[a-z0-9])?",
        allowed="a repository without a tag",
    )
    admin_hosts: tuple[str, ...] = setting(
        default=(),
        shown="none",
        meaning="hosts that a tenant's adminSecretRef may name: shell patterns, separated by commas",
        matches=r"[A-Za-z0-9_.:*?\[\]!%-]{1,253}",
        allowed="hosts or shell patterns, separated by commas",
    )
    drift: Duration = setting(
        default=300.0,
        at_least=1,
        variable="ASYNCCTL_DATABASE_RESYNC",
        meaning="how often each database is compared with what is wanted",
    )

    lease_name: str | None = setting(
        default="db-controller-leader",
        variable="ASYNCCTL_LEASE_NAME",
        meaning="name of the Lease",
        matches=r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?",
        allowed="the name of an object",
    )

    def serves(self, provisioner: Provisioner) -> bool:
        """Whether Databases of it are served."""
        return provisioner in self.provisioners

    def check(self) -> Iterator[Problem]:
        """See `Settings.check`."""
        yield from super().check()
        if not self.provisioners:
            text = "ASYNCCTL_DATABASE_PROVISIONERS names none, and nothing would be served: leave it out for both"
            yield Problem(("provisioners",), text)
        if self.namespaces and not self.cluster_id:
            yield Problem(
                ("cluster_id", "namespaces"),
                "ASYNCCTL_CLUSTER_ID is not set: must be, with ASYNCCTL_NAMESPACES, since namespace kube-system (whose "
                "uid is the default) is outside of them",
            )
