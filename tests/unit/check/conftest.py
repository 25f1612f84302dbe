"""An embedded API server with all that a small operator needs, and a way to have it checked."""

import http.server
import inspect
import ssl
import threading
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import pytest
import trustme
import yaml
from aiohttp import web

from asyncctl.apiserver import ApiServer
from asyncctl.check import check_operator
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.clock import SystemClock
from asyncctl.objects import ConfigMap, Namespace
from asyncctl.operator import Operator
from asyncctl.operator.checking import State
from asyncctl.settings import Settings
from tests.unit.harness import Widget, cluster_at
from tests.unit.support import Log, http_server

SERVER_ROWS = ["tls", "api-server", "version", "user", "clock", "api", "crd", "rbac", "lease", "fence"]


async def nothing(ctx, obj):
    pass


def widgets():
    """An operator of Widgets that owns ConfigMaps."""
    operator = Operator("test")
    operator.controller(Widget, owns=[ConfigMap])(nothing)
    return operator


class Rows(list):
    """What a check has found, by name."""

    def __getitem__(self, name):
        (found,) = [row for row in self if row.check == name]
        return found

    def states(self, *states):
        return {row.check: str(row.state) for row in self if row.state in (states or tuple(State))}

    def failed(self):
        return [row.check for row in self if row.state is State.FAILED]


def kubeconfig(path, server, user=None, **cluster):
    config = {
        "clusters": [{"name": "c", "cluster": {"server": server} | cluster}],
        "users": [{"name": "u", "user": user or {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def check(tmp_path):
    """Check an operator against a server, by way of a kubeconfig; returns its rows."""

    async def run(
        server=None, operator=None, *, settings=None, user=None, environ=None, clock=None, tell=None, **cluster
    ):
        environ = dict(environ or {})
        if server is not None:
            environ["KUBECONFIG"] = str(kubeconfig(tmp_path / "kubeconfig", server, user, **cluster))
        return Rows(
            await check_operator(
                operator or widgets(), settings or Settings.from_environment(environ), environ,
                clock=clock or SystemClock(), logger=Log().logger, tell=tell or (lambda _: None),
            )
        )  # fmt: skip

    return run


@asynccontextmanager
async def prepared(**options):
    """A server with the CRD and the Lease's namespace, as an admin would prepare it."""
    async with ApiServer(**options) as server, cluster_at(ClusterConfig(server=server.url)) as cluster:
        await cluster.client.create(Namespace(name="controllers"))
        cluster.url = server.url
        yield cluster


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"gitVersion": "v1.36.3"}' if self.path == "/version" else b"404 page not found"
        self.send_response(200 if self.path == "/version" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the base class's names

    def log_message(self, *_):
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a handshake that fails is what the tests are about


@contextmanager
def tls_server(ca, *names, **options):
    """A server with a certificate of `ca`. In a thread: asyncio would report a failed handshake to the test's loop."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(*(names or ("127.0.0.1",)), **options).configure_cert(context)
    with _Server(("127.0.0.1", 0), _Handler) as made:
        made.socket = context.wrap_socket(made.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"https://127.0.0.1:{made.server_port}"
        finally:
            made.shutdown()
            thread.join()


@pytest.fixture
async def cluster(backends):
    backends.have("embedded")
    async with prepared() as cluster:
        yield cluster


@asynccontextmanager
async def in_front_of(url, change):
    """A server that passes on to `url` what `change(request)` has no answer for."""

    async def handler(request):
        answer = change(request)
        if inspect.isawaitable(answer) and not isinstance(answer, web.StreamResponse):
            answer = await answer
        if answer is not None:
            return answer
        headers = {name: request.headers[name] for name in ("Accept", "Content-Type") if name in request.headers}
        async with session.request(
            request.method, request.path_qs, data=await request.read(), headers=headers
        ) as found:
            kept = {name: value for name, value in found.headers.items() if name in {"Content-Type", "Date", "Warning"}}
            return web.Response(status=found.status, body=await found.read(), headers=kept)

    async with aiohttp.ClientSession(url) as session, http_server(handler) as front:
        yield front


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture
def ca_file(ca, tmp_path):
    ca.cert_pem.write_to_path(tmp_path / "ca.crt")
    return str(tmp_path / "ca.crt")


def server_context(ca):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    return context


def answering(**paths):
    """A handler that knows `/version`, and answers another path as is given for its last part."""

    async def handler(request):
        found = paths.get(request.path.rpartition("/")[2])
        if callable(found):
            return found()
        if request.path == "/version":
            return web.json_response({"gitVersion": "v1.36.3"})
        return web.Response(status=404, text="404 page not found")

    return handler


def skipped_because(rows, why, *names):
    for name in names:
        row = rows[name]
        assert (row.state, row.message) == (State.SKIPPED, f"not reached because {why}"), name
