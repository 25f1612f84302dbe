"""A tenant's own server, by his Secrets: it is verified by his authority, and by no other."""

import pytest
import trustme

from asyncctl.apiserver import ApiServer
from asyncctl.database.catalogue import Catalogue
from asyncctl.database.postgres.connection import connect
from asyncctl.database.postgres.errors import ServerUnreachable
from asyncctl.database.provisioners.external import External
from asyncctl.database.types import Database, DatabaseSpec, ExternalSpec, Provisioner, SecretReference
from asyncctl.objects import Namespace, Secret
from tests.postgres.test_tls import authority, ca_file, server, uses_tls  # noqa: F401 - fixtures
from tests.unit.support import Log, connected


class Pass:
    """What a provisioner needs of a pass."""

    def __init__(self, client):
        self.client = client


@pytest.fixture
async def place(backends, server):  # noqa: F811 - a fixture
    """Return what finds the server that Secret `boss` names, whose authority is this one."""
    async with ApiServer() as api, connected(api.url) as client:
        backends.have("embedded")
        provisioner = External(Catalogue(None), admin_hosts=["localhost"], logger=Log().logger)

        async def find(pem):
            data = {"host": "localhost", "port": str(server.port), "username": server.admin_user}
            data |= {"password": server.admin_password}
            await client.create(Namespace(name="team"))
            await client.create(
                Secret(name="boss", namespace="team", data={key: value.encode() for key, value in data.items()})
            )
            await client.create(Secret(name="ca", namespace="team", data={"ca.crt": pem}))
            external = ExternalSpec(
                admin_secret_ref=SecretReference(name="boss"), ca_secret_ref=SecretReference(name="ca")
            )
            spec = DatabaseSpec(provisioner=Provisioner.EXTERNAL, external=external)
            return await provisioner.place(Pass(client), Database(name="orders", namespace="team", spec=spec))

        yield find
        await provisioner.close()


async def test_it_is_verified_by_the_authority_of_its_secret(place, authority, limits):  # noqa: F811
    found = await place(authority.cert_pem.bytes())
    assert found.server.ssl_mode == "verify-full"
    assert await uses_tls(found.server, limits)
    await limits.close()


async def test_one_of_another_authority_is_refused(place, limits):
    found = await place(trustme.CA().cert_pem.bytes())
    with pytest.raises(ServerUnreachable, match="certificate verify failed"):
        async with connect(found.server, limits=limits):
            pass
