"""`asyncctl dev`: everything on one machine, for a look and for development.

API server, PostgreSQL and daemon live as long as the command and leave nothing behind. What a cluster would have been
given beforehand is made here: the CRD, the namespaces, the catalogue of servers and an admin role that is no
superuser.
"""

import asyncio
import contextlib
import random
import shlex
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import psycopg
import yaml
from psycopg import sql

from asyncctl.apiserver import ApiServer
from asyncctl.cli.folder import temporary_folder
from asyncctl.cli.postgres import PostgresServer, PostgresUnavailable
from asyncctl.client.client import Client
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import AlreadyExists, KubernetesError
from asyncctl.client.patch import Patch
from asyncctl.client.transport.transport import Transport
from asyncctl.clock import SystemClock
from asyncctl.database.credentials import new_password
from asyncctl.database.operator import database_operator
from asyncctl.database.settings import DatabaseSettings
from asyncctl.database.types import Database, DatabaseSpec, ExternalSpec, Phase, Provisioner
from asyncctl.generate import crd
from asyncctl.objects import Namespace, Secret, Unstructured, decode
from asyncctl.observe.logs import Logger, make_logger
from asyncctl.observe.metrics import Metrics
from asyncctl.operator.process import handle_signals, loop_factory
from asyncctl.settings import Problem, SettingsError

CRD = Unstructured("apiextensions.k8s.io/v1", "CustomResourceDefinition", namespaced=False).resource_type
_NAMESPACE, _NAME = "demo", "orders"
_ADMIN = "asyncctl"
_CATALOGUE, _SERVERS = "servers.yaml", "ASYNCCTL_DATABASE_SERVERS"
_DEFAULTS = {
    "ASYNCCTL_DEBUG_ADDRESS": "127.0.0.1:0",
    "ASYNCCTL_HTTP_ADDRESS": "127.0.0.1:0",
    "ASYNCCTL_LEADER_ELECTION": "false",  # there is no other, and no fence against one
    "ASYNCCTL_LOG_LEVEL": "warning",
    "ASYNCCTL_POD_NAME": "dev",
}


def main(environ: Mapping[str, str], *, demo: bool, leave: bool) -> int:
    """Run until Ctrl-C, or with `leave` until the demo's Database is Running; returns the exit code."""
    began = time.perf_counter()
    with temporary_folder("asyncctl-dev-") as (folder, _):
        try:
            settings = _settings(environ, folder / _CATALOGUE, demo=demo)
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                return runner.run(_Dev(settings, folder, began, demo=demo, leave=leave).run())
        except (PostgresUnavailable, SettingsError) as error:
            print(f"asyncctl dev: {error}", file=sys.stderr)
            return 2


def _settings(environ: Mapping[str, str], catalogue: Path, *, demo: bool) -> DatabaseSettings:
    """Read what the daemon is told: the environment, over dev's defaults and below what dev makes itself."""
    given = {key: value for key, value in environ.items() if key.startswith("ASYNCCTL_")}
    warnings = DatabaseSettings.unknown(given)
    if given.pop(_SERVERS, ""):
        warnings.append(f"{_SERVERS} is not used: dev makes a PostgreSQL and a catalogue of its own")
    for warning in warnings:
        print(f"asyncctl dev: {warning}", file=sys.stderr)
    settings = DatabaseSettings.from_environment(_DEFAULTS | given | {_SERVERS: str(catalogue)})
    if demo and settings.namespaces and _NAMESPACE not in settings.namespaces:
        said = ",".join(settings.namespaces)
        problem = f"ASYNCCTL_NAMESPACES={said}: must have {_NAMESPACE}, where --demo makes its Database"
        raise SettingsError([Problem(("namespaces",), problem)])
    return settings


class _Dev:
    def __init__(self, settings: DatabaseSettings, folder: Path, began: float, *, demo: bool, leave: bool) -> None:
        self._settings = settings
        self._folder = folder
        self._began = began
        self._demo = demo
        self._leave = leave
        self._stop = asyncio.Event()

    async def run(self) -> int:
        handle_signals(self._stop)
        code = int(self._leave)  # of a Ctrl-C in the middle: with --exit somebody waits for Running
        async with self._parts() as (client, kubeconfig), anyio.create_task_group() as tasks:
            tasks.start_soon(self._heed_ctrl_c, tasks.cancel_scope, name="Ctrl-C")
            code = int(self._demo and not await self._show(client))
            if code == 0 and not self._leave:
                await self._tell(client, kubeconfig)
                await self._stop.wait()
            tasks.cancel_scope.cancel()
        return code

    async def _heed_ctrl_c(self, scope: anyio.CancelScope) -> None:
        await self._stop.wait()
        scope.cancel()

    @contextlib.asynccontextmanager
    async def _parts(self) -> AsyncIterator[tuple[Client, Path]]:
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(ApiServer())
            kubeconfig = self._folder / "kubeconfig"
            await anyio.to_thread.run_sync(server.write_kubeconfig, kubeconfig)
            self._say("API server", server.url)
            postgres = await stack.enter_async_context(PostgresServer.start())
            await _prepare_postgres(postgres, self._folder)
            self._say("PostgreSQL", f"{postgres.version}, {postgres.host}:{postgres.port}")
            operator = database_operator()
            settings = self._settings
            logger = make_logger(settings.log_level, settings.log_format, sys.stderr)
            config = ClusterConfig(server=server.url, source="embedded", user="dev")
            async with _client(config, logger) as client:
                await _install(client, settings.lease_namespace or "controllers")
                async with operator.running(settings=settings, logger=logger, config=config) as running:
                    await running.ready.wait()
                    self._say("daemon", f"http://127.0.0.1:{running.port}/readyz?verbose")
                    yield client, kubeconfig

    async def _show(self, client: Client) -> bool:
        """Make a Database, and show each change of it until it is Running; False when it can't be."""
        database = Database(
            name=_NAME,
            namespace=_NAMESPACE,
            spec=DatabaseSpec(provisioner=Provisioner.EXTERNAL, external=ExternalSpec(server_name="dev")),
        )
        made = await client.create(database)
        self._say("Database", f"{_NAMESPACE}/{_NAME} was created")
        told = ""
        watch = client.watch(
            Database.resource_type,
            namespace=_NAMESPACE,
            resource_version=made.metadata.resource_version,
            timeout_seconds=60,
        )
        async with watch as batches:
            async for batch in batches:
                for line in filter(None, batch):
                    seen = decode(Database, bytes(msgspec.json.decode(line, type=_Event).object))
                    ready = seen.status.conditions.get("Ready")
                    text = f"{seen.status.phase}: {ready.message}" if ready else ""
                    if text and text != told:
                        told = text
                        self._say("", text)
                    if seen.status.phase in {Phase.RUNNING, Phase.FAILED}:
                        return seen.status.phase is Phase.RUNNING
        print(f"{_NAMESPACE}/{_NAME} is not Running after 60 s", file=sys.stderr)
        return False

    async def _tell(self, client: Client, kubeconfig: Path) -> None:
        if self._demo:
            secret = await client.get(Secret, f"{_NAME}-credentials", namespace=_NAMESPACE)
            uri = secret.data["uri"].decode()
            print(f"\nconnect:  {uri}\n          psql {shlex.quote(uri)}")
        _hint(kubeconfig)

    def _say(self, what: str, text: str) -> None:
        seconds = time.perf_counter() - self._began
        print(f"{seconds:6.2f} s  {what:<11} {text}", flush=True)


class _Event(msgspec.Struct):
    object: msgspec.Raw


@contextlib.asynccontextmanager
async def _client(config: ClusterConfig, logger: Logger) -> AsyncIterator[Client]:
    """A client as a user has one: with no Lease, and so no fence."""
    requests = Metrics(process=False).requests(config.server)
    async with Transport(
        config, clock=SystemClock(), random=random.random, logger=logger, metrics=requests
    ) as transport:
        yield Client(transport, field_manager="asyncctl-dev")


async def _install(client: Client, lease_namespace: str) -> None:
    """What a cluster would have been given before the daemon: namespaces and the CRD, served."""
    for name in (_NAMESPACE, lease_namespace):
        with contextlib.suppress(AlreadyExists):  # that of the Lease may be `default`
            await client.create(Namespace(name=name))
    definition = crd(Database)
    await client.patch(CRD, definition["metadata"]["name"], definition, patch=Patch.APPLY, force=True)
    for _ in range(500):
        if await _served(client):
            return
        await anyio.sleep(0.01)
    raise TimeoutError(f"{definition['metadata']['name']} is not served 5 s after it was created")


async def _served(client: Client) -> bool:
    try:
        await client.list_page(Database.resource_type, limit=1)
    except KubernetesError:
        return False
    return True


async def _prepare_postgres(postgres: PostgresServer, folder: Path) -> None:
    """An admin role that is no superuser, and the catalogue that names it."""
    password = new_password()
    async with await psycopg.AsyncConnection.connect(postgres.uri(), autocommit=True) as superuser:
        statement = sql.SQL("CREATE ROLE {} LOGIN CREATEROLE CREATEDB PASSWORD {}")
        await superuser.execute(statement.format(sql.Identifier(_ADMIN), sql.Literal(password)))
    server = {
        "name": "dev",
        "host": postgres.host,
        "port": postgres.port,
        "sslMode": "disable",
        "adminUser": _ADMIN,
        "adminPasswordFile": "password",
        "allowedNamespaces": ["*"],
    }

    def write() -> None:
        secret = folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(password)
        (folder / _CATALOGUE).write_text(yaml.safe_dump({"servers": [server]}, sort_keys=False))

    await anyio.to_thread.run_sync(write)


def _hint(kubeconfig: Path) -> None:
    print(
        f"watch:    KUBECONFIG={shlex.quote(str(kubeconfig))} kubectl get databases -A -w\nstop:     Ctrl-C", flush=True
    )
