"""What roles of ours were granted in databases that are not theirs: by other tenants, or by a DBA."""

from dataclasses import replace

import psycopg
import pytest

from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.errors import RoleHasDependents
from asyncctl.database.postgres.provision import provision, remove, retire
from asyncctl.database.postgres.wanted import Login
from tests.postgres.steps import PASSWORD, Effects, recorded, wish, with_passwords

THEIRS = Claim("c1", "team-b", "mean", "77aa")


@pytest.fixture
async def wanted(admin, database, claim, limits):
    wanted = wish(database, claim)
    known = await provision(admin, with_passwords(wanted), limits=limits, check=Effects())
    return replace(wanted, recorded=recorded(known))


@pytest.fixture
async def mean(admin, database, limits, log_in):
    """A session of another tenant, as the owner of the database `<database>_mean`."""
    name = f"{database}_mean"
    await provision(admin, with_passwords(wish(name, THEIRS)), limits=limits, check=Effects())
    session = log_in(f"{name}_a", PASSWORD, name)
    session.execute("CREATE TABLE public.bait (id int); CREATE SCHEMA bait; CREATE SEQUENCE bait.one")
    yield session
    session.close()
    assert await remove(admin, name, THEIRS, limits=limits, check=Effects())


def bait(session, role):
    """Grant a role all that there is to grant."""
    session.execute(
        f"""
        GRANT ALL ON public.bait, bait.one TO {role}; GRANT ALL ON SCHEMA bait TO {role};
        GRANT SELECT (id) ON public.bait TO {role};
        CREATE POLICY mine_{role} ON public.bait TO {role};
        ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role};
        ALTER DEFAULT PRIVILEGES IN SCHEMA bait GRANT ALL ON FUNCTIONS TO {role};
        GRANT CONNECT ON DATABASE {session.info.dbname} TO {role};
        """
    )


async def test_what_another_tenant_grants_does_not_keep_a_login_or_a_database_from_going(
    wanted, mean, admin, database, login, owner, claim, limits, state
):
    for role in (login, owner):
        bait(mean, role)
    await retire(admin, database, login, claim=claim, limits=limits, check=Effects())
    assert [name for name, *_ in state()[1] if "mean" not in name] == [owner]
    assert mean.execute("SELECT count(*) FROM public.bait").fetchall() == [(0,)]  # his own is as it was
    assert await remove(admin, database, claim, limits=limits, check=Effects()) is True
    assert [name for name, *_ in state()[1] if "mean" not in name] == []


@pytest.mark.parametrize("what", ["a login", "all"])
async def test_what_it_may_pass_on_there_does_not_keep_a_role_from_going(
    what, wanted, mean, admin, database, login, owner, claim, limits, log_in, state
):
    """Where it may pass on all that it may do, the admin, who acts for it too, would revoke that in its own name."""
    name = mean.info.dbname
    for role in (login, owner):
        mean.execute(
            f"""
            GRANT ALL ON public.bait, bait.one TO {role} WITH GRANT OPTION;
            GRANT ALL ON SCHEMA bait TO {role} WITH GRANT OPTION;
            GRANT ALL ON DATABASE {name} TO {role} WITH GRANT OPTION;
            """
        )
    session = log_in(login, PASSWORD, name)  # which is open there, where its role is gone
    session.execute("GRANT SELECT ON public.bait TO PUBLIC; GRANT ALL ON SCHEMA bait TO PUBLIC")
    if what == "a login":
        await retire(admin, database, login, claim=claim, limits=limits, check=Effects())
        assert [each for each, *_ in state()[1] if "mean" not in each] == [owner]
    assert await remove(admin, database, claim, limits=limits, check=Effects()) is True
    assert [each for each, *_ in state()[1] if "mean" not in each] == []
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")


async def test_what_a_login_would_grant_in_another_tenants_database_does_not_keep_it_from_going(
    wanted, mean, admin, database, login, claim, limits, log_in, state
):
    mean.execute(f"GRANT CONNECT ON DATABASE {mean.info.dbname} TO {login}")
    log_in(login, PASSWORD, mean.info.dbname).execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC")
    await retire(admin, database, login, claim=claim, limits=limits, check=Effects())
    assert login not in [name for name, *_ in state()[1]]


async def test_a_login_that_can_not_be_dropped_lets_nobody_in_and_does_not_stop_the_rest(
    wanted, admin, database, login, limits, superuser, log_in
):
    """Since somebody else than its grantor can't revoke a privilege."""
    superuser.execute(f"GRANT CONNECT ON DATABASE postgres TO {login}")
    wanted = replace(wanted, logins=(Login(name=f"{database}_b", user="app", password="b"),))
    known = await provision(admin, wanted, limits=limits, check=Effects())
    (why,) = known.lingering
    assert f'DROP ROLE "{login}"' in why
    assert "privileges for database postgres" in why
    log_in(f"{database}_b", "b", database)
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        log_in(login, PASSWORD, database)

    superuser.execute(f"REVOKE CONNECT ON DATABASE postgres FROM {login}")
    assert (await provision(admin, wanted, limits=limits, check=Effects())).lingering == ()
    assert superuser.execute("SELECT FROM pg_roles WHERE rolname = %s", [login]).fetchall() == []


async def test_what_a_login_owns_in_a_database_of_another_object_is_left_there_and_told(
    wanted, mean, admin, database, login, claim, limits, log_in
):
    bait(mean, login)
    log_in(login, PASSWORD, mean.info.dbname).execute("CREATE TABLE bait.made ()")
    with pytest.raises(RoleHasDependents, match=f"in database {mean.info.dbname}"):
        await retire(admin, database, login, claim=claim, limits=limits, check=Effects())
    mean.execute("DROP SCHEMA bait CASCADE")
    await retire(admin, database, login, claim=claim, limits=limits, check=Effects())
