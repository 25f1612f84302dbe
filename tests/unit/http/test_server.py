"""The side server over real sockets."""

import asyncio
import gzip
import socket
import threading
import time
from contextlib import closing

import pytest
from aiohttp import ClientSession
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from asyncctl.http import Limits, ListenError, Probes, Server, metrics_page, probe_pages
from asyncctl.observe import Metrics
from asyncctl.settings import Address
from tests.unit.http.support import told

ANY_PORT = Address("127.0.0.1", 0)
QUICK = Limits(patience=0.3, connections=8)


def side_server(address, probes, metrics, **options):
    pages = probe_pages(probes) | metrics_page(metrics.registry)
    return Server(address, pages, metrics, **({"variable": "ASYNCCTL_HTTP_ADDRESS"} | options))


@pytest.fixture
def probes():
    return Probes()


@pytest.fixture
def metrics():
    return Metrics(process=False)


@pytest.fixture
async def server(probes, metrics):
    async with asyncio.timeout(10), side_server(ANY_PORT, probes, metrics, limits=QUICK) as server:
        yield server


@pytest.fixture
async def get(server):
    url = f"http://127.0.0.1:{server.port}"
    async with ClientSession(url, auto_decompress=False, skip_auto_headers=["Accept-Encoding"]) as session:

        async def get(path, method="GET", **headers):
            async with session.request(method, path, headers=headers) as answer:
                return answer.status, await answer.read(), answer.headers

        yield get


@pytest.mark.parametrize("path", ["/livez", "/healthz", "/readyz"])
async def test_a_well_process_answers_ok(get, path):
    status, body, headers = await get(path)
    assert (status, body) == (200, b"ok")
    assert headers["Cache-Control"] == "no-store"


async def test_a_failed_check_answers_500_with_the_reason(get, probes):
    probes.ready("informer-sync", lambda: "databases: not listed yet")
    status, body, _ = await get("/readyz")
    assert status == 500
    assert body == b"[+]ping ok\n[-]informer-sync failed: databases: not listed yet\nreadyz check failed\n"


async def test_readiness_does_not_touch_liveness(get, probes):
    probes.ready("informer-sync", lambda: "no")
    assert (await get("/livez"))[0] == 200


async def test_healthz_asks_what_livez_asks(get, probes):
    probes.live("watchdog", lambda: "stuck")
    assert (await get("/healthz"))[0] == 500


async def test_the_query_asks_for_all_lines_and_leaves_checks_out(get, probes):
    probes.ready("a", lambda: "no")
    probes.ready("b", lambda: "no")
    status, body, _ = await get("/readyz?verbose&exclude=a&exclude=b")
    assert status == 200
    assert body == b"[+]ping ok\n[+]a excluded: ok\n[+]b excluded: ok\nreadyz check passed\n"


async def test_head_answers_without_a_body(get):
    status, body, _ = await get("/livez", "HEAD")
    assert (status, body) == (200, b"")


async def test_other_methods_are_refused(get):
    status, _, headers = await get("/livez", "POST")
    assert status == 405
    assert headers["Allow"] == "GET, HEAD"


async def test_other_paths_say_which_there_are(get):
    status, body, _ = await get("/")
    assert status == 404
    assert b"/livez /healthz /readyz /metrics" in body


async def test_metrics_of_the_registry_are_shown_as_text(get, metrics):
    Gauge("widgets", "Made.", registry=metrics.registry).set(3)
    status, body, headers = await get("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b"\nwidgets 3.0\n" in body


async def test_openmetrics_is_given_to_who_asks_for_it(get):
    _, body, headers = await get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")


PROMETHEUS = (  # of Prometheus 3, with native histograms on: protobuf comes first
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,"
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;"
    "q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


async def test_prometheus_gets_openmetrics_packed(get):
    _, body, headers = await get("/metrics", **{"Accept": PROMETHEUS, "Accept-Encoding": "gzip"})
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert headers["Vary"] == "Accept, Accept-Encoding"
    assert gzip.decompress(body).endswith(b"# EOF\n")


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text; version=one", "text/plain; version=", "\xff;;=,", "a/b"]
)
async def test_an_accept_header_that_makes_no_sense_gets_plain_text(get, accept, caplog):
    status, _, headers = await get("/metrics", Accept=accept)
    assert status == 200
    assert headers["Content-Type"].startswith(("text/plain; version=0.0.4", "application/openmetrics-text; version=1"))
    assert not told(caplog)


async def test_metrics_are_packed_for_who_can_unpack(get):
    _, plain, headers = await get("/metrics")
    assert "Content-Encoding" not in headers
    _, packed, headers = await get("/metrics", **{"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip"
    assert len(packed) < len(plain) / 2
    assert gzip.decompress(packed).startswith(b"# HELP")


async def test_each_request_is_timed(get, metrics):
    await get("/livez")
    count = metrics.registry.get_sample_value("asyncctl_http_request_duration_seconds_count", {"path": "/livez"})
    assert count == 1.0


class _Slow(Collector):
    """Renders until it is let go."""

    def __init__(self):
        self.begun = threading.Event()
        self.go = threading.Event()

    def collect(self):
        self.begun.set()
        assert self.go.wait(10)
        yield GaugeMetricFamily("slow", "Done.", 1)

    def describe(self):
        return []


@pytest.fixture
def slow(metrics):
    slow = _Slow()
    metrics.registry.register(slow)
    yield slow
    slow.go.set()


async def test_a_slow_scrape_does_not_hold_up_probes(get, slow):
    scrape = asyncio.create_task(get("/metrics"))
    assert await asyncio.to_thread(slow.begun.wait, 5)
    assert (await get("/livez"))[0] == 200
    assert not scrape.done()
    slow.go.set()
    assert b"slow 1.0" in (await scrape)[1]


async def test_stop_takes_milliseconds_with_idle_connections_and_a_scrape_under_way(probes, metrics, slow):
    server = side_server(ANY_PORT, probes, metrics)
    tasks = asyncio.all_tasks()
    await server.start()
    async with asyncio.timeout(10):
        idle, idle_writer = await asyncio.open_connection("127.0.0.1", server.port)
        scrape, scrape_writer = await asyncio.open_connection("127.0.0.1", server.port)
        with closing(idle_writer), closing(scrape_writer):
            idle_writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await idle.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            scrape_writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await asyncio.to_thread(slow.begun.wait, 5)
            began = time.monotonic()
            await server.stop()
            assert time.monotonic() - began < 1.0
            assert asyncio.all_tasks() == tasks
            assert await idle.read() == b""
            assert await scrape.read() == b""


async def test_stop_twice_and_start_again(probes, metrics):
    server = side_server(ANY_PORT, probes, metrics)
    await server.start()
    await server.stop()
    await server.stop()
    await server.start()
    assert server.port != 0
    await server.stop()


async def test_after_stop_nobody_listens(server):
    port = server.port
    await server.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_port_in_use_is_one_line_that_says_what_to_do(server, probes, metrics):
    address = Address("127.0.0.1", server.port)
    with pytest.raises(ListenError) as error:
        await side_server(address, probes, Metrics(process=False)).start()
    assert str(error.value) == (
        f"can't listen on {address}: something listens there already; "
        "stop it or set ASYNCCTL_HTTP_ADDRESS to another one"
    )


async def test_an_address_of_another_machine_is_told(probes, metrics):
    with pytest.raises(ListenError, match=r"can't listen on 192\.0\.2\.1:0: this machine does not have that address"):
        await side_server(Address("192.0.2.1", 0), probes, metrics).start()


async def test_a_name_without_address_is_told(probes, metrics):
    with pytest.raises(ListenError, match="that name has no address"):
        await side_server(Address("no-such-host.invalid", 0), probes, metrics).start()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
async def test_the_ipv6_wildcard_listens_for_ipv4_as_well(probes, metrics):
    async with asyncio.timeout(10), side_server(Address("::", 0), probes, metrics) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.close()
        await writer.wait_closed()


async def _until_closed(server, sent):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    with closing(writer):
        writer.write(sent)
        return await reader.read()


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: "], ids=["nothing", "half a header"])
async def test_who_sends_no_whole_request_is_disconnected(server, sent):
    assert b"200 OK" not in await _until_closed(server, sent)


async def test_a_huge_header_is_refused_and_not_logged(server, caplog):
    sent = b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Huge: " + b"x" * 20_000 + b"\r\n\r\n"
    assert (await _until_closed(server, sent)).startswith(b"HTTP/1.0 400")
    assert not told(caplog)


async def test_a_broken_reading_is_logged_and_answered_with_500(get, metrics, caplog):
    metrics.informer("widgets.example.com", objects=lambda: 1 / 0, size=lambda: 0)
    assert (await get("/metrics"))[0] == 500
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]


async def test_two_servers_can_show_one_registry(probes):
    registry = CollectorRegistry()
    metrics = Metrics(registry, process=False)
    async with side_server(ANY_PORT, probes, metrics), side_server(ANY_PORT, probes, metrics) as second:
        assert second.port != 0
