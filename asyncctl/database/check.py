"""What the shipped controller looks at beside the cluster: the catalogue, each PostgreSQL server in it, tenants' hosts.

Each server is logged in to as its admin, and asked; nothing is changed there. Tenants' own servers are not known here.
"""

from asyncctl import Checking
from asyncctl.database.catalogue import Catalogue, CatalogueError
from asyncctl.database.postgres.connection import Connection, Limits, Server, connect
from asyncctl.database.postgres.database import public_privileges
from asyncctl.database.postgres.errors import DatabaseError
from asyncctl.database.settings import DatabaseSettings
from asyncctl.database.types import Provisioner, SslMode

OLDEST = 14
_READ_ONLY = 150_000  # before, only a superuser may revoke CREATE on the schema `public`
_GRANTS_INHERIT = 160_000  # before, the member's own attribute says whether privileges are inherited
_PARTS = ("TLS", "version", "admin")


async def check_servers(checking: Checking) -> None:
    """Look at the catalogue, and at its servers one after the other."""
    assert isinstance(checking.settings, DatabaseSettings)
    if not checking.settings.serves(Provisioner.EXTERNAL):
        checking.skipped("not needed: External is not among ASYNCCTL_DATABASE_PROVISIONERS")
        return
    _check_hosts(checking, checking.settings.admin_hosts)
    path = checking.settings.servers
    if path is None:
        if checking.settings.admin_hosts:
            checking.ok("ASYNCCTL_DATABASE_SERVERS is not set: External servers are only those that tenants bring")
            return
        left = "InCluster alone" if checking.settings.serves(Provisioner.IN_CLUSTER) else "nothing"
        checking.warning(
            "ASYNCCTL_DATABASE_SERVERS is not set, so that no Database of provisioner External can be served, and "
            f"{left} is left; set it to the file of the catalogue"
        )
        return
    catalogue = Catalogue(path)
    try:
        await catalogue.load()
    except CatalogueError as error:
        checking.failed(f"{error}", file=str(path))
        return
    servers = catalogue.servers
    names = ", ".join(server.name for server in servers)
    if servers:
        checking.ok(f"{path}: {names}", file=str(path), servers=[server.name for server in servers])
    else:
        text = f"{path} has no server: no Database that names one by serverName can be served; add one"
        checking.warning(text, file=str(path), servers=[])
    for server in servers:
        await _check_server(checking, server)


def _check_hosts(checking: Checking, patterns: tuple[str, ...]) -> None:
    """Say which servers tenants may bring."""
    part, shown = "adminSecretRef", ", ".join(patterns)
    if not patterns:
        text = "tenants may bring no servers of their own; ASYNCCTL_DATABASE_ADMIN_HOSTS would name the hosts"
        checking.ok(text, part=part, hosts=[])
    elif "*" in patterns:
        text = (
            "ASYNCCTL_DATABASE_ADMIN_HOSTS is *: whoever may make a Database has this process connect to any host that "
            "it can reach; name the hosts, or a domain such as *.db.example.com"
        )
        checking.warning(text, part=part, hosts=list(patterns))
    else:
        checking.ok(f"tenants may bring servers at {shown}", part=part, hosts=list(patterns))


async def _check_server(checking: Checking, server: Server) -> None:
    name, began, limits = server.name, checking.clock.monotonic(), Limits()
    try:
        async with connect(server, limits=limits) as admin:
            milliseconds = 1000 * (checking.clock.monotonic() - began)
            checking.ok(
                f"{server.host}:{server.port} lets {server.admin_user} in, in {milliseconds:.0f} ms", part=name,
                host=server.host, port=server.port, user=server.admin_user, milliseconds=round(milliseconds, 1),
            )  # fmt: skip
            await check_tls(checking, server, admin)
            await _check_version(checking, server, admin)
            await _check_admin(checking, server, admin)
    except DatabaseError as error:
        said = {row.check.rpartition(": ")[2] for row in checking.rows}
        checking.failed(str(error), part=name, host=server.host, port=server.port, reason=error.reason)
        for part in _PARTS:
            if f"{name} {part}" not in said:
                checking.skipped("not reached because there is no session on the server", part=f"{name} {part}")
    finally:
        await limits.close()


async def check_tls(checking: Checking, server: Server, admin: Connection) -> None:
    """Say how a session is protected, and by what the server was known."""
    part, mode = f"{server.name} TLS", server.ssl_mode
    rows = await admin.read("SELECT version, cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl")
    used = f"{rows[0][0]}, {rows[0][1]}" if rows else "no TLS"
    details = {"sslMode": str(mode), "used": used}
    if mode.startswith("verify-"):
        authorities = server.ca_file or "the machine's authorities"
        checking.ok(f"{used}; {mode} by {authorities}", part=part, **details)
    elif server.is_loopback:
        checking.ok(f"{used}; sslMode {mode}, on this machine", part=part, **details)
    elif mode is SslMode.DISABLE:
        text = "sslMode disable: the data goes over the network in clear; set sslMode: verify-full"
        checking.warning(text, part=part, **details)
    else:
        text = f"{used}; sslMode {mode} proves nothing of who the server is; set sslMode: verify-full"
        checking.warning(text, part=part, **details)


async def _check_version(checking: Checking, server: Server, admin: Connection) -> None:
    part, version = f"{server.name} version", admin.server_version
    ((standby,),) = await admin.read("SELECT pg_is_in_recovery()")
    if admin.version < OLDEST * 10_000:
        checking.failed(f"PostgreSQL {version} is too old; {OLDEST} or newer is needed", part=part, version=version)
    elif standby:
        text = f"PostgreSQL {version} is a standby, which takes no writes; name the primary's host in the catalogue"
        checking.failed(text, part=part, version=version)
    elif admin.version < _READ_ONLY:
        text = f"PostgreSQL {version}: users with privileges ReadOnly are refused there; 15 or newer has them"
        checking.ok(text, part=part, version=version)
    else:
        checking.ok(f"PostgreSQL {version}", part=part, version=version)


async def _check_admin(checking: Checking, server: Server, admin: Connection) -> None:
    part, user = f"{server.name} admin", server.admin_user
    ((may_roles, may_databases, superuser, inherits),) = await admin.read(
        "SELECT rolcreaterole, rolcreatedb, rolsuper, rolinherit FROM pg_roles WHERE rolname = current_user"
    )
    details = {"user": user, "createrole": may_roles, "createdb": may_databases, "superuser": superuser}
    has = {
        "CREATEROLE": may_roles,
        "CREATEDB": may_databases,
        "INHERIT": inherits or admin.version >= _GRANTS_INHERIT,  # as the owner of a database, it closes and drops it
    }
    missing = [name for name in has if not (has[name] or superuser)]
    if missing:
        checking.failed(
            f'{user} lacks {" and ".join(missing)}; as a superuser: ALTER ROLE "{user}" {" ".join(missing)}',
            part=part,
            **details,
        )
    elif superuser:
        checking.warning(
            f"{user} is a superuser; CREATEROLE and CREATEDB are enough, and less to lose", part=part, **details
        )
    else:
        everybody = await public_privileges(admin, admin.database)
        note = (
            f"; everybody may CONNECT to its database {admin.database}: as its owner, "
            f'REVOKE CONNECT ON DATABASE "{admin.database}" FROM PUBLIC, and GRANT it to {user}'
            if "CONNECT" in everybody
            else ""
        )
        checking.ok(f"{user} may CREATEROLE and CREATEDB, and is no superuser{note}", part=part, **details)
