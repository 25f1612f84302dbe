"""A tenant's own server: what is taken from his Secrets, and how what can't be is told."""

import pytest
import trustme

from asyncctl.apiserver import ApiServer
from asyncctl.database.catalogue import Catalogue
from asyncctl.database.postgres.connection import Server
from asyncctl.database.provisioners.admin_secret import (
    HostNotAllowed,
    SecretIncomplete,
    SecretInvalid,
    SecretMissing,
)
from asyncctl.database.provisioners.external import External
from asyncctl.database.types import (
    Database,
    DatabaseSpec,
    ExternalSpec,
    Provisioner,
    SecretReference,
    SslMode,
)
from asyncctl.objects import Namespace, Secret
from tests.unit.support import Log, connected

GOOD = {"host": b"pg.example.com", "port": b"6432", "username": b"boss", "password": b"s3cret"}


class Pass:
    """What a provisioner needs of a pass."""

    def __init__(self, client):
        self.client = client


@pytest.fixture
async def client(backends):
    async with ApiServer() as server, connected(server.url) as client:
        backends.have("embedded")
        for namespace in ("team", "other"):
            await client.create(Namespace(name=namespace))
        yield client


@pytest.fixture
async def place(client):
    """Return what finds the server of a Database in namespace `team`, whose Secret `admin` holds `data`."""
    made = []

    async def find(data=None, *, hosts=("*.example.com",), ca=None, namespace="team", **external):
        if data is not None:
            await client.create(Secret(name="admin", namespace=namespace, data=data))
        if ca is not None:
            external["ca_secret_ref"] = SecretReference(name="ca")
            await client.create(Secret(name="ca", namespace=namespace, data=ca))
        block = ExternalSpec(admin_secret_ref=SecretReference(name="admin"), **external)
        spec = DatabaseSpec(provisioner=Provisioner.EXTERNAL, external=block)
        provisioner = External(Catalogue(None), admin_hosts=hosts, logger=Log().logger)
        made.append(provisioner)
        return await provisioner.place(Pass(client), Database(name="orders", namespace="team", spec=spec))

    yield find
    for provisioner in made:
        await provisioner.close()


async def refused(kind, finding):
    with pytest.raises(kind) as caught:
        await finding
    assert caught.value.reason == kind.__name__
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


async def test_the_server_is_what_the_secret_says_verified_in_full(place):
    found = await place(GOOD)
    assert found.server == Server(
        name="team/admin",
        host="pg.example.com",
        port=6432,
        ssl_mode="verify-full",
        ca_file=None,
        admin_user="boss",
        admin_password="s3cret",
        maintenance_database="postgres",
        max_connections=5,
        tenants=True,
    )
    assert (found.host, found.port, found.ca, found.replicas) == ("pg.example.com", 6432, None, None)
    assert "s3cret" not in repr(found)


async def test_what_may_be_left_out_and_what_may_be_said(place):
    data = {key: value for key, value in GOOD.items() if key != "port"} | {"database": b"admin"}
    server = (await place(data, ssl_mode=SslMode.REQUIRE)).server
    assert (server.port, server.maintenance_database, server.ssl_mode) == (5432, "admin", "require")


async def test_the_line_end_that_an_editor_leaves_is_cut_off(place):
    server = (await place({key: value + b"\n" for key, value in GOOD.items()})).server
    assert (server.host, server.port, server.admin_user, server.admin_password) == (
        "pg.example.com", 6432, "boss", "s3cret",
    )  # fmt: skip


async def test_the_ca_is_a_file_for_us_and_goes_to_the_application(place):
    authority = trustme.CA()
    found = await place(GOOD, ca={"ca.crt": authority.cert_pem.bytes(), "tls.key": b"s3cret"})
    assert found.server.ca_file.read_bytes() == found.ca
    assert authority.cert_pem.bytes().strip() in found.ca


async def test_a_secret_that_is_not_there_is_asked_for_in_the_own_namespace(place):
    said = await refused(SecretMissing, place(GOOD, namespace="other"))
    assert "Secret admin is not there: make it in namespace team" in said
    assert "with label apps.example.com/database: orders" in said


@pytest.mark.parametrize("key", ["host", "username", "password"])
async def test_a_key_that_is_missing_is_named(place, key):
    said = await refused(SecretIncomplete, place({name: value for name, value in GOOD.items() if name != key}))
    assert f"Secret admin lacks the key {key}: add it" in said


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("host", b"/run/postgresql"),
        ("host", b"@abstract"),
        ("host", b"pg.example.com,evil.example.com"),
        ("host", b"host=evil.example.com"),
        ("host", b"postgresql://pg.example.com"),
        ("host", b"pg.example.com:5432"),
        ("host", b"pg.example.com\nx"),
        ("host", b"a" * 254),
        ("host", b"\xff"),
        ("port", b"0"),
        ("port", b"65536"),
        ("port", b"5432,5433"),
        ("port", "\u0665\u0664\u0663\u0662".encode()),
        ("port", b"-1"),
        ("port", b"\n"),
        ("username", b"a" * 64),
        ("username", b"a\0b"),
        ("password", b"s3cret\ns3cret"),
        ("password", b"s3cret\0"),
        ("password", b"s" * 1025),
        ("database", b"d" * 64),
    ],
)
async def test_a_value_that_can_not_be_used_is_named_and_not_quoted(place, key, value):
    said = await refused(SecretInvalid, place(GOOD | {key: value}))
    assert f"Secret admin: the value of {key} " in said
    assert "evil" not in said


async def test_no_host_is_allowed_by_default(place):
    said = await refused(HostNotAllowed, place(GOOD, hosts=()))
    assert "ask for it to be added to ASYNCCTL_DATABASE_ADMIN_HOSTS (empty: no host is allowed)" in said
    assert HostNotAllowed.stalled


async def test_a_host_that_is_not_allowed_is_refused_before_anything_is_connected_to(place):
    said = await refused(HostNotAllowed, place(GOOD | {"host": b"169.254.169.254"}))
    assert "(*.example.com)" in said


async def test_a_ca_secret_that_is_missing_incomplete_or_no_certificate(place, client):
    reference = SecretReference(name="ca")
    assert "Secret ca is not there" in await refused(SecretMissing, place(GOOD, ca_secret_ref=reference))
    await client.create(Secret(name="ca", namespace="team", data={"tls.crt": b"x"}))
    assert "Secret ca lacks the key ca.crt" in await refused(SecretIncomplete, place(ca_secret_ref=reference))
    await client.delete(Secret, "ca", namespace="team")
    said = await refused(SecretInvalid, place(ca={"ca.crt": b"s3cret"}))
    assert "Secret ca: the value of ca.crt holds no certificate in PEM" in said
