"""Tenants as they should not be: none gets at another's data, none makes the controller do his work, none stops it."""

from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from asyncctl.database.postgres import bounded, privileges
from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.database import lock_key
from asyncctl.database.postgres.errors import DatabaseError, NameConflict
from asyncctl.database.postgres.provision import provision, remove, retire
from asyncctl.database.postgres.wanted import Login
from asyncctl.database.types import ExtensionSpec, Privileges, SchemaSpec
from tests.postgres.steps import PASSWORD, Effects, recorded, wish, with_passwords

NOTHING = [[], [], [], []]


@pytest.fixture
async def wanted(admin, database, claim, limits):
    """A database with an Owner and a ReadOnly user, as it is wanted once it is there."""
    users = [("app", Privileges.OWNER), ("reader", Privileges.READ_ONLY)]
    logins = tuple(Login(name=f"{database}_{user}_a", user=user, privileges=which) for user, which in users)
    wanted = wish(database, claim, logins=logins, schemas=(SchemaSpec(name="app"),))
    known = await provision(admin, with_passwords(wanted), limits=limits, check=Effects())
    return replace(wanted, recorded=recorded(known))


@pytest.fixture
def tenant(wanted, database, log_in):
    return log_in(wanted.logins[0].name, PASSWORD, database)


@pytest.fixture
def settle(admin, wanted, limits):
    """Return a function that makes it as wanted, and returns what was put right; a second pass has no effect."""

    async def settle(**values):
        known = await provision(admin, replace(wanted, **values), limits=limits, check=Effects())
        effects = Effects()
        await provision(admin, replace(wanted, **values), limits=limits, check=effects)
        assert effects.count == 0
        return known

    return settle


HOSTILE_SETTINGS = [
    ("search_path", "evil, public"),
    ("role", "{owner}"),
    ("session_authorization", "{owner}"),
    ("statement_timeout", "1"),
    ("transaction_timeout", "1"),  # since 17
    ("lock_timeout", "1"),
    ("idle_session_timeout", "1"),
    ("idle_in_transaction_session_timeout", "1"),
    ("default_transaction_read_only", "on"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_deferrable", "on"),
    ("client_min_messages", "error"),
    ("standard_conforming_strings", "off"),
    ("backslash_quote", "on"),
    ("client_encoding", "LATIN1"),
    ("quote_all_identifiers", "on"),
    ("transform_null_equals", "on"),
    ("default_tablespace", "pg_global"),
    ("temp_tablespaces", "nowhere"),
    ("default_table_access_method", "nothing"),
    ("row_security", "off"),
    ("work_mem", "64kB"),
    ("DateStyle", "German"),
    ("bytea_output", "escape"),
    ("createrole_self_grant", "set"),  # since 16
    ("password_encryption", "md5"),
    ("local_preload_libraries", "nothing"),
    ("session_replication_role", "replica"),
    ("restrict_nonsystem_relation_kind", "view, foreign-table"),
]


async def test_settings_that_a_tenant_makes_for_his_database_do_not_reach_us(
    wanted, settle, tenant, database, owner, superuser
):
    taken = set()
    for name, value in HOSTILE_SETTINGS:
        words = sql.Identifier(database), sql.Identifier(name), sql.Literal(value.format(owner=owner))
        try:
            tenant.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(*words))
        except psycopg.Error:
            continue
        taken.add(name)
    assert {"local_preload_libraries", "statement_timeout", "role", "search_path"} <= taken
    known = await settle(schemas=(SchemaSpec(name="later"),), extensions=(ExtensionSpec(name="plpgsql"),))
    assert "schemas[later]" in known.corrected
    assert all(item.ready for item in (*known.schemas, *known.extensions))


async def test_a_login_can_neither_connect_to_another_database_nor_see_what_is_in_it(
    wanted, admin, tenant, database, limits, log_in, postgres
):
    other = f"{database}_other"
    claim = Claim("c1", "team", "other", "77aa")
    theirs = wish(other, claim)
    await provision(admin, with_passwords(theirs), limits=limits, check=Effects())
    try:
        neighbour = log_in(f"{other}_a", PASSWORD, other)
        neighbour.execute("CREATE TABLE public.secrets AS SELECT 1 AS id")
        for login in wanted.logins:
            with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
                log_in(login.name, PASSWORD, other)
        for role in (f"{other}_owner", f"{other}_a"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                tenant.execute(f"SET ROLE {role}")
        with pytest.raises(psycopg.Error, match=r"permission denied|must have|must be"):
            tenant.execute(f"GRANT {other}_owner TO {database}_app_a")
        seen = tenant.execute("SELECT FROM pg_class WHERE relname = 'secrets'").fetchall()
        assert seen == []
        for statement in (
            f"ALTER DATABASE {other} CONNECTION LIMIT 0",
            f"DROP DATABASE {other}",
            f"COMMENT ON ROLE {other}_owner IS 'mine'",
            f"ALTER ROLE {other}_a PASSWORD 'mine'",
            f"ALTER ROLE {other}_a IN DATABASE {other} SET search_path = mine",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{other}_a'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                tenant.execute(statement)
        tenant.execute("SET ROLE NONE")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            tenant.execute(f"SET ROLE {admin.admin_user}")
    finally:
        await remove(admin, other, claim, limits=limits, check=Effects())


async def test_what_a_tenant_undoes_is_put_right_and_named(
    wanted, settle, tenant, database, owner, state, superuser, log_in
):
    good = state()
    login, reader = (login.name for login in wanted.logins)
    outside = log_in(login, PASSWORD, "postgres")  # as everybody may where nobody forbade it
    outside.execute(f"ALTER DATABASE {database} CONNECTION LIMIT 0 ALLOW_CONNECTIONS false IS_TEMPLATE true")
    for statement in (
        f"COMMENT ON DATABASE {database} IS 'asyncctl:c1/other/other/uid'",
        f"GRANT CONNECT ON DATABASE {database} TO {login} WITH GRANT OPTION",
        f"SET ROLE NONE; GRANT CONNECT ON DATABASE {database} TO PUBLIC; RESET ROLE",
        "ALTER SCHEMA app RENAME TO mine; CREATE TABLE public.things (id int); COMMENT ON SCHEMA public IS 'mine'",
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {database}_readonly; REVOKE ALL ON public.things FROM {owner}",
        f"ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM {database}_readonly",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        f"SET ROLE NONE; ALTER ROLE {login} IN DATABASE {database} SET role = none; RESET ROLE",
        f"SET ROLE NONE; ALTER ROLE {login} SET search_path = mine; RESET ROLE",
        f"REVOKE ALL ON DATABASE {database} FROM {reader}, {owner}",
    ):
        tenant.execute(statement)
    known = await settle()
    assert set(known.corrected) == {
        *("connectionLimit", "allowConnections", "isTemplate", "privileges", "users[app]", "users[reader]"),
        "schemas[app]",
    }
    superuser.execute(f"ALTER ROLE {login} RESET search_path")
    assert state() == good


@pytest.fixture
async def stranger(admin, database, limits, log_in):
    """The login of another tenant, whose roles are older, and a function that opens a session of it."""
    name, claim = f"{database}0", Claim("c1", "team", "other", "77aa")
    await provision(admin, with_passwords(wish(name, claim)), limits=limits, check=Effects())
    yield f"{name}_a", lambda where: log_in(f"{name}_a", PASSWORD, where)
    await remove(admin, name, claim, limits=limits, check=Effects())


@pytest.mark.parametrize("what", ["CONNECT", "ALL"])
@pytest.mark.parametrize("through", ["nobody", "an owner", "a reader", "an owner and back"])
async def test_what_a_strangers_login_gives_everybody_since_a_tenant_let_it_is_taken_back(
    what, through, stranger, wanted, settle, tenant, database, owner, state, log_in
):
    good = state()
    name, log_in_as_stranger = stranger
    login, reader = (each.name for each in wanted.logins)
    grant = f"GRANT {what} ON DATABASE {database} TO {{}} WITH GRANT OPTION"
    tenant.execute(grant.format(name))
    last = log_in_as_stranger(database)
    if through != "nobody":
        last.execute(grant.format(login if "owner" in through else reader))
        last = log_in(login if "owner" in through else reader, PASSWORD, database)
        last.execute("SET ROLE NONE")
    if through == "an owner and back":
        last.execute(grant.format(reader))
        last = log_in(reader, PASSWORD, database)
    last.execute(f"GRANT {what} ON DATABASE {database} TO PUBLIC")
    assert (await settle()).corrected == ("privileges",)
    tenant.execute(f"REVOKE {what} ON DATABASE {database} FROM {name}")  # what it may itself, the tenant says
    await settle()
    assert state() == good


async def test_a_group_that_lost_its_claim_has_it_again_and_a_strangers_is_left_alone(
    wanted, settle, database, state, superuser
):
    good = state()
    superuser.execute(f"COMMENT ON ROLE {database}_readonly IS NULL")
    assert (await settle()).corrected == ("claim",)
    assert state() == good
    superuser.execute(f"CREATE ROLE {database}_readwrite")
    writer = Login(name=f"{database}_writer_a", privileges=Privileges.READ_WRITE, password=PASSWORD)
    with pytest.raises(NameConflict, match=f"{database}_readwrite.*bears no claim"):
        await settle(logins=(*wanted.logins, writer))
    superuser.execute(f"DROP ROLE {database}_readwrite")
    assert state() == good


async def test_a_tenant_can_not_rename_his_database_nor_give_it_away(wanted, tenant, database, owner):
    for statement in (f"ALTER DATABASE {database} RENAME TO mine", f"ALTER DATABASE {database} OWNER TO {owner}_x"):
        with pytest.raises(psycopg.Error, match=r"permission denied|does not exist"):
            tenant.execute(statement)


async def test_dropped_objects_do_not_matter(wanted, settle, tenant):
    tenant.execute("CREATE TABLE public.things (id int); DROP TABLE public.things; DROP SCHEMA app; DROP SCHEMA public")
    assert (await settle()).corrected == ("schemas[app]",)


async def test_more_tables_and_schemas_than_one_answer_has_room_for(wanted, settle, tenant, database, monkeypatch):
    monkeypatch.setattr(bounded, "LARGEST", bounded.LARGEST // 500)
    monkeypatch.setattr(privileges, "_PAGE", 20)  # of 10,000
    long, group = "x" * 59, f"{database}_readonly"
    each = "FOR i IN 100..220 LOOP EXECUTE format('CREATE {}', i); END LOOP;"
    tenant.execute(
        f"""
        ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM {group}; CREATE SCHEMA {long};
        ALTER DEFAULT PRIVILEGES REVOKE ALL ON SCHEMAS FROM {group};
        DO $$BEGIN {each.format(f"SCHEMA x%s{long}")} {each.format(f"TABLE {long}.x%s{long} ()")} END$$
        """
    )
    assert (await settle()).corrected == ("privileges",)
    granted = f"""
        SELECT count(*) FROM pg_class WHERE relname ~ '^x' AND has_table_privilege('{group}', oid, 'SELECT')
        UNION ALL
        SELECT count(*) FROM pg_namespace WHERE nspname ~ '^x' AND has_schema_privilege('{group}', oid, 'USAGE')
        """
    assert tenant.execute(granted).fetchall() == [(121,), (122,)]


async def test_a_lock_on_every_table_does_not_stop_us(wanted, settle, tenant):
    tenant.execute("CREATE TABLE public.things (id int)")
    tenant.execute("BEGIN; LOCK TABLE public.things; SELECT pg_advisory_lock(1); SELECT pg_advisory_xact_lock(2)")
    assert (await settle()).corrected == ()


async def test_grants_that_a_login_made_do_not_block_its_end(
    wanted, admin, tenant, database, claim, limits, state, log_in
):
    login, reader = (login.name for login in wanted.logins)
    tenant.execute(f"CREATE TABLE public.things (id int); GRANT ALL ON public.things TO {login} WITH GRANT OPTION")
    tenant.execute(f"GRANT ALL ON DATABASE {database} TO {login} WITH GRANT OPTION")
    tenant.execute(
        f"SET ROLE NONE; GRANT ALL ON DATABASE {database} TO PUBLIC; GRANT SELECT ON public.things TO {reader}"
    )
    tenant.execute("CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE SCHEMA mine")
    tenant.execute(f"RESET ROLE; REVOKE GRANT OPTION FOR ALL ON DATABASE {database} FROM {login} CASCADE")
    await retire(admin, database, login, claim=claim, limits=limits, check=Effects())
    assert login not in [name for name, *_ in state()[1]]


async def test_what_a_login_was_given_by_another_to_pass_on_does_not_block_its_end(
    admin, database, claim, limits, state, log_in
):
    """In an order of their making in which the admin would revoke in the name of the login itself."""
    wanted = wish(
        database, claim, logins=tuple(Login(name=f"{database}_{user}_a", user=user) for user in ("one", "two"))
    )
    await provision(admin, with_passwords(wanted), limits=limits, check=Effects())
    one, two = (login.name for login in wanted.logins)
    log_in(two, PASSWORD, database).execute(
        f"""
        SET ROLE NONE; CREATE SCHEMA mine; CREATE TABLE mine.things (id int);
        GRANT ALL ON mine.things TO {one} WITH GRANT OPTION; GRANT ALL ON SCHEMA mine TO {one} WITH GRANT OPTION
        """
    )
    log_in(one, PASSWORD, database).execute("SET ROLE NONE; GRANT SELECT ON mine.things TO PUBLIC")
    await retire(admin, database, one, claim=claim, limits=limits, check=Effects())
    assert one not in [name for name, *_ in state()[1]]


async def test_what_a_tenant_has_open_in_a_transaction_stops_one_pass_and_not_the_next(
    wanted, settle, admin, tenant, limits, database
):
    hasty = replace(admin, name="hasty", lock_timeout=0.2)
    tenant.execute("CREATE TABLE public.things (id int)")
    tenant.execute(f"REVOKE ALL ON public.things FROM {database}_readonly")
    tenant.execute("BEGIN; ALTER TABLE public.things ADD x int")
    with pytest.raises(DatabaseError) as told:
        await provision(hasty, wanted, limits=limits, check=Effects())
    assert not told.value.stalled
    assert "55P03" in str(told.value)
    tenant.execute("COMMIT")
    assert (await settle()).corrected == ("privileges",)


async def test_our_lock_is_taken_out_of_a_tenants_hands(wanted, admin, limits, database, log_in):
    login = wanted.logins[0].name
    thief = log_in(login, PASSWORD, "postgres")
    thief.execute("SELECT pg_advisory_lock(%s)", [lock_key(database)])
    hasty = replace(admin, name="hasty", lock_timeout=0.2)
    known = await provision(hasty, wanted, limits=limits, check=Effects())
    assert known.corrected == ()
    with pytest.raises(psycopg.OperationalError):
        thief.execute("SELECT 1")


async def test_sessions_and_transactions_at_the_removal_end_with_the_database(
    wanted, admin, tenant, claim, limits, database, state, log_in
):
    tenant.execute("BEGIN; CREATE TABLE public.things (id int); LOCK TABLE public.things")
    reader = log_in(wanted.logins[1].name, PASSWORD, database)
    log_in(wanted.logins[0].name, PASSWORD, "postgres").execute(f"ALTER DATABASE {database} IS_TEMPLATE true")
    assert await remove(admin, database, claim, limits=limits, check=Effects()) is True
    assert state() == NOTHING
    for session in (tenant, reader):
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


async def test_what_a_superuser_runs_for_an_extension_can_not_call_what_a_tenant_made(
    wanted, tenant, admin, limits, postgres, superuser
):
    """The admin is a superuser in the cluster; the extension is none that a tenant may make himself."""
    rows = superuser.execute("SELECT version FROM pg_available_extension_versions WHERE name = 'amcheck'").fetchall()
    if not {("1.2",), ("1.3",)} <= set(rows):
        pytest.skip("this PostgreSQL has no amcheck")
    boss = replace(admin, name="boss", admin_user=postgres.superuser, admin_password=postgres.password)

    async def ask_for(version):
        extension = ExtensionSpec(name="amcheck", version=version, schema="app")
        known = await provision(boss, replace(wanted, extensions=(extension,)), limits=limits, check=Effects())
        return known.extensions[0]

    tenant.execute("CREATE FUNCTION app.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    refused = await ask_for("1.2")
    assert (refused.ready, refused.version) == (False, None)
    assert "such as mine, which the script of" in refused.message
    tenant.execute("DROP FUNCTION app.mine()")
    assert (await ask_for("1.2")).ready
    tenant.execute("CREATE FUNCTION app.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    refused = await ask_for("1.3")
    assert (refused.ready, refused.version) == (False, "1.2")
    tenant.execute("DROP FUNCTION app.mine()")
    assert (await ask_for("1.3")).version == "1.3"


PLANTS = """
CREATE SCHEMA evil;
CREATE FUNCTION evil.fire() RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO evil.fired VALUES (session_user, current_user, current_query());
    RETURN true;
END $$;
CREATE TABLE evil.fired (who text, acting text, query text);
GRANT ALL ON SCHEMA evil TO PUBLIC; GRANT ALL ON evil.fired TO PUBLIC;
"""
"""What a tenant puts in our way: it notes whoever runs it."""

SHADOWS = (
    *("pg_has_role(name, name, text)", "pg_has_role(oid, text)", "has_schema_privilege(text, oid, text)"),
    *("has_table_privilege(text, oid, text)", "pg_get_userbyid(oid)", "unnest(text[])", "current_database()"),
    *(
        "string_to_array(text, text)",
        "starts_with(text, text)",
        "shobj_description(oid, name)",
        "aclexplode(aclitem[])",
    ),
)


async def test_nothing_of_a_tenants_is_ever_run_by_us(wanted, settle, admin, tenant, database, claim, limits, postgres):
    """Functions, operators and casts that shadow the catalogue's, triggers, rules, defaults, policies, domains."""
    tenant.execute(PLANTS)
    for schema in ("evil", "public"):
        for name in SHADOWS:
            body = "BEGIN PERFORM evil.fire(); RETURN NULL; END"
            tenant.execute(f"CREATE FUNCTION {schema}.{name} RETURNS text LANGUAGE plpgsql AS $${body}$$")
        for left, right in (("name", "text"), ("text", "text"), ("oid", "oid"), ("char", "text"), ("name", "name")):
            function = f"{schema}.same_{left}_{right}"
            body = "BEGIN PERFORM evil.fire(); RETURN false; END"
            tenant.execute(
                f'CREATE FUNCTION {function}(l "{left}", r "{right}") RETURNS bool LANGUAGE plpgsql AS $${body}$$;'
                f'CREATE OPERATOR {schema}.= (LEFTARG = "{left}", RIGHTARG = "{right}", FUNCTION = {function})'
            )
    tenant.execute(
        """
        CREATE TABLE evil.pg_database (datname name); CREATE TABLE public.pg_roles (rolname name);
        CREATE TABLE public.things (id int DEFAULT 0 CHECK (evil.fire() IS NOT NULL));
        CREATE INDEX ON public.things (id);
        ALTER TABLE public.things ENABLE ROW LEVEL SECURITY; ALTER TABLE public.things FORCE ROW LEVEL SECURITY;
        CREATE POLICY all_of_them ON public.things USING (evil.fire());
        CREATE FUNCTION evil.trigger() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN PERFORM evil.fire(); RETURN NULL; END$$;
        CREATE TRIGGER each AFTER INSERT OR UPDATE OR DELETE ON public.things EXECUTE FUNCTION evil.trigger();
        CREATE VIEW public.seen AS SELECT evil.fire();
        CREATE MATERIALIZED VIEW public.kept AS SELECT 1 AS one WITH NO DATA;
        CREATE DOMAIN evil.domain AS text CHECK (evil.fire());
        """
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        tenant.execute("CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION evil.trigger()")
    tenant.execute(f"ALTER DATABASE {database} SET search_path = evil, pg_catalog, public")
    tenant.execute(f"REVOKE ALL ON public.things, public.seen FROM {database}_readonly; DROP SCHEMA app")
    tenant.execute(
        "SET search_path = evil, pg_catalog, public; SELECT current_database(); SELECT 'a'::text = 'b'::text"
    )
    assert len(tenant.execute("DELETE FROM evil.fired RETURNING who").fetchall()) == 2  # whoever falls for it is seen
    writer = Login(name=f"{database}_writer_a", user="writer", privileges=Privileges.READ_WRITE, password=PASSWORD)
    more = replace(wanted, logins=(*wanted.logins, writer))
    known = await provision(admin, more, limits=limits, check=Effects())
    assert set(known.corrected) == {"schemas[app]", "privileges"}
    await settle(logins=(*wanted.logins, replace(writer, password=None)))
    await retire(admin, database, wanted.logins[1].name, claim=claim, limits=limits, check=Effects())
    with psycopg.connect(postgres.uri(database)) as inside:
        assert inside.execute("SELECT * FROM evil.fired").fetchall() == []
