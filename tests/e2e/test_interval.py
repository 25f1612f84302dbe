"""Passwords change by themselves when they are old enough: the shipped operator, with a wall's clock in our hands."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from asyncctl.apiserver import ApiServer
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.clock import SystemClock
from asyncctl.database.operator import database_operator
from asyncctl.database.rotation import ROTATED_AT
from asyncctl.database.settings import DatabaseSettings
from asyncctl.database.types import CredentialsSpec, Database, DatabaseSpec, ExternalSpec, Provisioner, RotationSpec
from asyncctl.generate import crd
from asyncctl.objects import Namespace, Secret
from asyncctl.settings import Address
from tests.e2e.server import ask_as_tenant
from tests.unit.harness import cluster_at
from tests.unit.support import Log, until

CRD = crd(Database)  # at import: it reads the source for its docstrings
HOUR = timedelta(hours=1)
SPEC = DatabaseSpec(
    provisioner=Provisioner.EXTERNAL,
    external=ExternalSpec(server_name="main"),
    credentials=CredentialsSpec(rotation=RotationSpec(interval="24h", grace_period="1h")),
)


class Wall(SystemClock):
    """The machine's clock, but that its wall can be put forward."""

    def __init__(self):
        self.ahead = timedelta(0)

    def now(self):
        return datetime.now(UTC) + self.ahead


@pytest.fixture
async def cluster(backends, superuser):
    async with ApiServer() as server:
        backends.have("embedded")
        async with cluster_at(ClusterConfig(server=server.url)) as made:
            made.namespace = "team-interval"  # one that the catalogue allows
            await made.client.create(Namespace(name=made.namespace))
            await made.define(CRD)
            try:
                yield made
            finally:
                superuser.clear("interval", made.namespace)


def works(secret):
    try:
        return ask_as_tenant(secret.data["uri"].decode(), "SELECT 1") == [(1,)]
    except psycopg.OperationalError:
        return False


async def test_a_password_changes_each_time_its_interval_has_passed_and_not_before(cluster, catalogue):
    clock, operator = Wall(), database_operator()
    settings = DatabaseSettings(
        leader_election=False, http_address=Address("127.0.0.1", 0), debug_address=None, pod_name="test",
        namespaces=(cluster.namespace,), cluster_id="interval", servers=catalogue, drift=1.0,
    )  # fmt: skip
    limits = iter(range(5, 100))

    async def looked():
        """Return the Secret after a pass that began after now."""
        limit = next(limits)
        await cluster.patch(Database, "orders", {"spec": {"connectionLimit": limit}})
        await cluster.until(Database, "orders", lambda db: db.status.observed_generation == db.metadata.generation)
        return await cluster.get(Secret, "orders-credentials")

    async with operator.running(settings=settings, logger=Log().logger, config=cluster.config, clock=clock) as running:
        await until(running.ready.is_set)
        await cluster.create(Database, "orders", spec=SPEC)
        await cluster.until(Database, "orders", lambda db: db.status.phase == "Running")
        secrets = [await looked()]
        clock.ahead = 23 * HOUR
        assert (await looked()).data == secrets[0].data
        for day in range(1, 3):
            clock.ahead = day * 24 * HOUR + (day - 1) * HOUR
            await looked()
            secrets.append(await looked())
            before, after = secrets[-2:]
            assert after.data["username"] != before.data["username"]
            assert works(before)
            assert works(after)
            clock.ahead += HOUR
            await looked()
            assert not works(before)
            assert works(after)
        status = (await cluster.get(Database, "orders")).status.credentials
        made = datetime.fromisoformat(secrets[-1].annotations[ROTATED_AT])
        assert status.last_rotation_time == made.replace(microsecond=0)
        assert abs(status.next_rotation_time - made - 24 * HOUR) < timedelta(seconds=1)
        assert len({secret.data["password"] for secret in secrets}) == 3
