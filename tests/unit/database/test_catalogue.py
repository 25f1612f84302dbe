"""The catalogue of servers: what it accepts, how it says what is wrong, and how it follows its files."""

import os

import pytest
import trustme

from asyncctl.database.catalogue import Catalogue, CatalogueError, ServerRefused, ServerUnknown
from asyncctl.database.postgres.connection import Server
from asyncctl.database.provisioners.external import External
from asyncctl.database.types import Database, DatabaseSpec, ExternalSpec, Provisioner
from tests.unit.support import Log

GOOD = """\
servers:
  - name: main
    host: pg.example.com
    adminUser: asyncctl
    adminPasswordFile: main-password
    allowedNamespaces: ["team-*"]
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "main-password").write_text("s3cret\n")
    (tmp_path / "servers.yaml").write_text(GOOD)
    return tmp_path / "servers.yaml"


async def problem(path, text):
    path.write_text(text)
    with pytest.raises(CatalogueError) as caught:
        await Catalogue(path).load()
    assert "s3cret" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}:")


async def loaded(path):
    catalogue = Catalogue(path)
    await catalogue.load()
    return catalogue


async def test_what_is_left_out_has_the_documented_default(path):
    assert (await loaded(path)).server("main", "team-a") == Server(
        name="main",
        host="pg.example.com",
        port=5432,
        ssl_mode="verify-full",
        ca_file=None,
        admin_user="asyncctl",
        admin_password="s3cret",
        maintenance_database="postgres",
        max_connections=5,
    )


async def test_every_field_reaches_the_server(path, tmp_path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.crt")
    path.write_text(
        GOOD
        + "    port: 6432\n    sslMode: verify-ca\n    caFile: ca.crt\n"
        + "    maintenanceDatabase: admin\n    maxConnections: 2\n"
    )
    server = (await loaded(path)).server("main", "team-a")
    assert (server.port, server.ssl_mode, server.ca_file) == (6432, "verify-ca", tmp_path / "ca.crt")
    assert (server.maintenance_database, server.max_connections) == ("admin", 2)


async def test_password_shows_nowhere(path):
    catalogue = await loaded(path)
    assert "s3cret" not in repr(catalogue.server("main", "team-a")) + repr(vars(catalogue))


@pytest.mark.parametrize(("content", "password"), [("a\n", "a"), ("a\r\n", "a"), (" a b ", " a b ")])
async def test_one_line_end_is_cut_from_a_password_and_nothing_else(content, password, path, tmp_path):
    (tmp_path / "main-password").write_bytes(content.encode())
    assert (await loaded(path)).server("main", "team-a").admin_password == password


async def test_namespace_that_no_pattern_allows_is_refused(path):
    with pytest.raises(
        ServerRefused, match="server main is not for namespace other: add that to its allowedNamespaces"
    ):
        (await loaded(path)).server("main", "other")


async def test_unknown_server_names_those_that_the_namespace_may_use(path):
    path.write_text(GOOD + GOOD.removeprefix("servers:\n").replace("main\n", "hidden\n", 1).replace("team-*", "ops"))
    with pytest.raises(ServerUnknown, match=r"server mian is not in .*; namespace team-a may use: main$"):
        (await loaded(path)).server("mian", "team-a")


async def test_without_a_catalogue_the_variable_is_named():
    with pytest.raises(ServerUnknown, match="set ASYNCCTL_DATABASE_SERVERS"):
        (await loaded(None)).server("main", "team-a")


async def test_disabled_tls_is_allowed_and_warned_about(path):
    assert (await loaded(path)).warnings == []
    path.write_text(GOOD + "    sslMode: disable\n")
    assert [text.partition(":")[0] for text in (await loaded(path)).warnings] == ["server main has sslMode disable"]


async def test_tls_that_is_disabled_while_it_runs_is_warned_about_once(path):
    log = Log()
    external = External(await loaded(path), logger=log.logger)
    spec = DatabaseSpec(provisioner=Provisioner.EXTERNAL, external=ExternalSpec(server_name="main"))
    db = Database(name="orders", namespace="team-a", spec=spec)
    await external.known_place(None, db)
    path.write_text(GOOD + "    sslMode: disable\n")
    for _ in range(2):
        assert (await external.known_place(None, db)).server.ssl_mode == "disable"
    assert len(log.said("server main has sslMode disable", "warning")) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1: the file is empty"),
        ("- main\n", "1: the document: Expected `object`, got `array`"),
        ("servers: {}\n", "1: servers: Expected `array`, got `object`"),
        ("servers:\n  - name: [\n", "3: not YAML: "),
        ("servers: \x07\n", "1: not YAML that can be read: "),
        ("servers: &a [*a]\n", "1: not YAML that can be read: "),
        (GOOD.replace("    host: pg.example.com\n", ""), "2: servers[0]: Object missing required field `host`"),
        (
            GOOD.replace('    allowedNamespaces: ["team-*"]\n', ""),
            "2: servers[0]: Object missing required field `allowedN",
        ),
        (GOOD.replace('["team-*"]', "[]"), "6: servers[0].allowedNamespaces: Expected `array` of length >= 1"),
        (GOOD.replace('["team-*"]', '["*", 3]'), "6: servers[0].allowedNamespaces[1]: Expected `str`, got `int`"),
        (GOOD + "    port: none\n", "7: servers[0].port: Expected `int`, got `str`"),
        (GOOD + "    port: 70000\n", "7: servers[0].port: Expected `int` <= 65535"),
        (GOOD + "    maxConnections: 0\n", "7: servers[0].maxConnections: Expected `int` >= 1"),
        (GOOD + "    sslMode: prefer\n", "7: servers[0].sslMode: Invalid enum value 'prefer'"),
        (GOOD + "    hots: x\n", "7: servers[0].hots: Object contains unknown field `hots`"),
        (GOOD + "other: 1\n", "7: other: Object contains unknown field `other`"),
        (GOOD + "    host: again\n", "7: servers[0].host is there twice"),
        (GOOD + GOOD.removeprefix("servers:\n"), "7: servers[1].name: main is there twice"),
        (GOOD.replace("name: main", "name: Main!"), "2: servers[0].name: Expected `str` matching regex"),
        (GOOD.replace("name: main", "name: a.b"), "2: servers[0].name: Expected `str` matching regex"),
        (GOOD.replace("name: main", 'name: "main\\n"'), "2: servers[0].name: Expected `str` matching regex"),
        (GOOD.replace("name: main", f"name: {'a' * 64}"), "2: servers[0].name: Expected `str` of length <= 63"),
        (GOOD + "    caFile: none.crt\n", "7: servers[0].caFile: can't read "),
        (GOOD.replace("main-password", "gone"), "5: servers[0].adminPasswordFile: can't read "),
    ],
)
async def test_what_is_wrong_is_told_with_line_and_field(text, said, path):
    assert (await problem(path, text)).startswith(said)


@pytest.mark.parametrize(
    "host", ["pg", "pg-1.example.com.", "my_pg", "127.0.0.1", "::1", "fe80::1%eth0", "::ffff:10.0.0.1"]
)
async def test_host_is_a_name_or_an_address(host, path):
    path.write_text(GOOD.replace("pg.example.com", f'"{host}"'))
    assert (await loaded(path)).server("main", "team-a").host == host


@pytest.mark.parametrize(
    "host",
    ["", " ", "a b", "a,b", "/run/postgresql", "@socket", "-a", "pä", "pg:5432", "[::1]", "postgresql://pg", "pg\\n"],
)
async def test_host_that_is_no_name_and_no_address_is_refused(host, path):
    said = await problem(path, GOOD.replace("pg.example.com", f'"{host}"'))
    assert said.startswith("3: servers[0].host: Expected `str` matching regex")


async def test_field_that_a_merge_key_brings_in_is_told_with_the_line_of_its_server(path):
    shared = GOOD.replace("    host: pg.example.com\n", "    <<: {host: pg, port: none}\n")
    assert (await problem(path, shared)).startswith("2: servers[0].port: Expected `int`")


async def test_password_written_inline_is_pointed_to_a_file_and_not_repeated(path):
    said = await problem(path, GOOD + "    adminPassword: s3cret\n")
    assert said.startswith("7: servers[0].adminPassword: ")
    assert said.endswith("passwords come from files: adminPasswordFile")


@pytest.mark.parametrize("content", [b"", b"\n", b"a\0b", b"\xff", b"a\nb", b"a\n\n", b"a\rb\n"])
async def test_password_file_without_a_usable_password_is_named(content, path, tmp_path):
    (tmp_path / "main-password").write_bytes(content)
    said = await problem(path, GOOD)
    assert said.startswith("5: servers[0].adminPasswordFile: ")
    assert str(tmp_path / "main-password") in said


async def test_missing_file_is_an_error_at_the_start(tmp_path):
    with pytest.raises(CatalogueError, match=r"can't read .*none\.yaml: No such file"):
        await Catalogue(tmp_path / "none.yaml").load()


async def test_nothing_is_read_again_while_nothing_changes(path):
    catalogue = await loaded(path)
    assert await catalogue.refresh() is False


async def test_changed_file_is_read_again(path):
    catalogue = await loaded(path)
    path.write_text(GOOD.replace("pg.example.com", "pg2.example.com"))
    assert await catalogue.refresh() is True
    assert catalogue.server("main", "team-a").host == "pg2.example.com"


async def test_changed_password_file_is_read_again(path, tmp_path):
    catalogue = await loaded(path)
    (tmp_path / "main-password").write_text("rotated")
    await catalogue.refresh()
    assert catalogue.server("main", "team-a").admin_password == "rotated"


async def test_swapped_link_of_a_mounted_config_map_is_noticed(tmp_path):
    for version, host in (("v1", "old"), ("v2", "new")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "servers.yaml").write_text(GOOD.replace("pg.example.com", host))
        (tmp_path / version / "main-password").write_text("s3cret")
        os.utime(tmp_path / version / "servers.yaml", (1, 1))
    (tmp_path / "..data").symlink_to("v1")
    catalogue = await loaded(tmp_path / "..data" / "servers.yaml")
    (tmp_path / "..tmp").symlink_to("v2")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    assert await catalogue.refresh() is True
    assert catalogue.server("main", "team-a").host == "new"


async def test_bad_new_file_keeps_the_last_good_one_until_it_is_mended(path):
    catalogue = await loaded(path)
    path.write_text("servers: none at all\n")
    await catalogue.refresh()
    assert catalogue.problem.startswith(f"{path}:1: servers: ")
    assert catalogue.server("main", "team-a").host == "pg.example.com"
    assert await catalogue.refresh() is False  # told once, not parsed at each look
    path.write_text(GOOD)
    await catalogue.refresh()
    assert catalogue.problem is None


async def test_vanished_password_keeps_the_last_good_state_until_it_is_back(path, tmp_path):
    catalogue = await loaded(path)
    (tmp_path / "main-password").unlink()
    await catalogue.refresh()
    assert "main-password: No such file" in catalogue.problem
    assert catalogue.server("main", "team-a").admin_password == "s3cret"
    (tmp_path / "main-password").write_text("back")
    await catalogue.refresh()
    assert catalogue.server("main", "team-a").admin_password == "back"
