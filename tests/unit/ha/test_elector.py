"""Electors against an API server; short leases, real time."""

import asyncio
import threading
import time
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, web

from asyncctl.apiserver import ApiServer
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import Fenced
from asyncctl.client.transport import dial
from asyncctl.clock import SystemClock
from asyncctl.ha.elector import Elector, LeaseSettings
from asyncctl.ha.fence import Fence
from asyncctl.observe.metrics import Metrics
from tests.unit.support import Log, http_server, until

PATH = "/apis/coordination.k8s.io/v1/namespaces/default/leases"


class Server:
    """An embedded API server behind a proxy that may be told to fail, to hang or to lose answers."""

    def __init__(self, url, session):
        self.url = url
        self.session = session
        self.asked = []
        self.fault = None

    async def handle(self, request):
        body = await request.read()
        self.asked.append((time.monotonic(), request.method))
        fault = self.fault and self.fault(request.method)
        if fault == "hang":
            await asyncio.sleep(3600)
        if isinstance(fault, web.Response):
            return fault
        async with self.session.request(
            request.method, self.url + request.path_qs, data=body, headers={"Content-Type": "application/json"}
        ) as answer:
            found = web.Response(status=answer.status, body=await answer.read(), content_type="application/json")
        if fault == "lose":
            request.transport.close()
        return found

    async def lease(self, name="l"):
        async with self.session.get(f"{self.url}{PATH}/{name}") as answer:
            return await answer.json() if answer.status == 200 else None

    async def put(self, method, body=None, name="l"):
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        path = PATH if method == "POST" else f"{PATH}/{name}"
        async with self.session.request(method, self.url + path, json=body, headers={"Content-Type": kind}) as answer:
            assert answer.status < 300, await answer.text()


@pytest.fixture
async def server(backends):
    async with ApiServer() as api, ClientSession() as session:
        backends.have("embedded")
        found = Server(api.url, session)
        async with http_server(found.handle) as found.proxy:
            yield found


class Candidate:
    def __init__(self, server, name, *, beating=True, **settings):
        self.log, self.changes = Log(), []
        clock = SystemClock()
        self.fence = Fence(clock)
        times = {"duration": 3.0, "renew_deadline": 1.0, "retry_period": 0.1, "namespace": "default"} | settings
        self.elector = Elector(
            ClusterConfig(server=server.proxy), LeaseSettings(name="l", **times), self.fence,
            pod_name=name, clock=clock, random=lambda: 0.5, logger=self.log.logger,
            metrics=Metrics(process=False).requests("x"), on_change=self.changes.append,
        )  # fmt: skip
        self.beating = beating

    async def beat(self):
        while True:
            await asyncio.sleep(0.05)
            if self.beating:
                self.elector.heartbeat()

    async def elected(self, seconds=5.0):
        async with asyncio.timeout(seconds):
            await self.elector.elected.wait()

    async def renewed(self, seconds=0.0):
        """Return when the validity ends more than so many seconds later than it does now."""
        before = self.fence._until
        await until(lambda: self.fence._until > before + seconds)

    async def over(self, seconds=8.0):
        async with asyncio.timeout(seconds):
            await self.elector.over.wait()


@asynccontextmanager
async def campaign(server, name="pod", **settings):
    candidate = Candidate(server, name, **settings)
    beat = asyncio.create_task(candidate.beat(), name=f"{name} beats")
    candidate.elector.start()
    try:
        yield candidate
    finally:
        server.fault = None
        async with asyncio.timeout(10):
            await candidate.elector.release()
        beat.cancel()
        await asyncio.gather(beat, return_exceptions=True)


async def test_the_lease_is_taken_renewed_and_given_back(server):
    async with campaign(server) as one:
        await one.elected()
        assert 0 < one.fence() <= 1.0
        first = (await server.lease())["spec"]
        assert first["holderIdentity"] == one.elector.identity
        assert first["holderIdentity"].startswith("pod_")
        assert first["leaseDurationSeconds"] == 3
        await one.renewed(1.2)  # longer than the renew deadline: it is renewed all the while
        assert one.fence() > 0
        assert one.elector.leading
        assert (await server.lease())["spec"]["renewTime"] > first["renewTime"]
    released = (await server.lease())["spec"]
    assert released["holderIdentity"] == ""
    assert one.elector.lost is None
    assert one.changes == [True, False]
    with pytest.raises(Fenced, match="given back"):
        one.fence()


async def test_one_leads_and_the_other_takes_over_as_soon_as_it_is_given_back(server):
    async with campaign(server, "a") as one:
        await one.elected()
        async with campaign(server, "b") as two:
            await until(lambda: two.log.said(f"{one.elector.identity} leads", "info"))
            assert two.elector.problem == f"{one.elector.identity} leads"
            assert not two.elector.leading
            with pytest.raises(Fenced):
                two.fence()
            began = time.monotonic()
            await one.elector.release()
            await two.elected()
            assert time.monotonic() - began < 1.1
            assert (await server.lease())["spec"]["leaseTransitions"] == 1


@pytest.mark.parametrize("how", ["edited", "deleted"])
async def test_a_lease_that_is_taken_away_is_lost_at_once(server, how):
    async with campaign(server) as one:
        await one.elected()
        if how == "edited":
            await server.put("PATCH", {"spec": {"holderIdentity": "other"}})
        else:
            await server.put("DELETE")
        await one.over(2)
        assert "somebody else" in one.elector.lost or "was deleted" in one.elector.lost
        with pytest.raises(Fenced):
            one.fence()
        await until(lambda: one.changes == [True, False])
        if how == "edited":
            assert (await server.lease())["spec"]["holderIdentity"] == "other"


async def test_a_lease_that_is_deleted_is_waited_for_as_if_it_were_there(server):
    """Its holder may not know of it yet, and write."""
    await server.put("POST", {"metadata": {"name": "l"}, "spec": {"holderIdentity": "x"}})
    async with campaign(server, duration=1.0, renew_deadline=0.8) as one:
        await until(lambda: one.elector.problem == "x leads")
        began = time.monotonic()
        await server.put("DELETE")
        await one.elected()
        assert 0.7 < time.monotonic() - began < 2.0


async def test_a_label_on_the_lease_changes_no_leader(server):
    async with campaign(server) as one:
        await one.elected()
        await server.put("PATCH", {"metadata": {"labels": {"a": "b"}}})
        await one.renewed(0.3)
        assert one.elector.leading
        await server.put("PATCH", {"metadata": {"labels": {"a": "c"}}})
    lease = await server.lease()
    assert lease["spec"]["holderIdentity"] == ""
    assert lease["metadata"]["labels"] == {"a": "c"}


@pytest.mark.parametrize("fault", ["hang", "error"])
async def test_the_fence_shuts_at_the_send_time_of_the_last_renewal_plus_the_deadline(server, fault):
    async with campaign(server) as one:
        await one.elected()
        server.fault = lambda method: "hang" if fault == "hang" else web.json_response({}, status=500)
        last = one.fence._until
        await one.over()
        assert one.fence._until <= last + 0.2  # a renewal may have been on its way
        assert SystemClock().boot() - one.fence._until < 0.5
        assert "could not be renewed within 1 s" in one.elector.lost


async def test_a_connection_that_hangs_while_it_is_made_costs_no_leader(server, monkeypatch):
    """A load balancer led it to a machine that is gone; the next one goes to another."""
    connect, hangs = dial._connect, []

    async def hang_once(url):
        if hangs:
            hangs.pop()
            await asyncio.sleep(3600)
        return await connect(url)

    monkeypatch.setattr(dial, "_connect", hang_once)
    async with campaign(server, renew_deadline=3.0, duration=4.0) as one:
        await one.elected()
        hangs.append(1)
        faults = ["lose"]
        server.fault = lambda method: faults.pop() if faults else None
        await until(lambda: not hangs)
        await one.renewed(2.0)
        assert one.elector.leading


async def test_a_short_outage_costs_nothing(server):
    async with campaign(server) as one:
        await one.elected()
        server.fault = lambda method: web.json_response({}, status=503)
        await until(lambda: one.log.said("could not renew", "warning"))
        assert one.elector.problem.startswith("could not renew")
        server.fault = None
        await one.renewed(1.0)
        assert one.elector.problem is None
        assert one.elector.leading


NONE = ["<html>maintenance</html>", "", "[]", "{}", '{"kind":"Status"}', '{"kind":"Lease","metadata":{}}']


@pytest.mark.parametrize("body", NONE)
async def test_an_answer_that_is_no_lease_keeps_a_candidate_waiting_and_no_more(server, body):
    server.fault = lambda method: web.Response(text=body)
    async with campaign(server) as one:
        await until(lambda: one.log.said("the reply is not a Kubernetes object", "warning"))
        assert not one.elector.leading
        server.fault = None
        await one.elected()
        assert not one.log.said("the elector has failed")


@pytest.mark.parametrize("body", NONE)
async def test_an_answer_that_is_no_lease_is_a_short_outage_to_the_leader(server, body):
    async with campaign(server) as one:
        await one.elected()
        server.fault = lambda method: web.Response(text=body)
        await until(lambda: one.log.said("could not renew", "warning"))
        server.fault = None
        await until(lambda: one.elector.problem is None)
        assert one.elector.leading


async def test_a_lost_answer_of_the_first_write_does_not_cost_the_lease_duration(server):
    lost = []

    def lose(method):
        if method == "POST" and not lost:
            return lost.append(1) or "lose"
        return None

    server.fault = lose
    began = time.monotonic()
    async with campaign(server) as one:
        await one.elected()
    assert lost
    assert time.monotonic() - began < 2.5
    assert (await server.lease())["spec"]["leaseTransitions"] == 0


async def test_a_lost_answer_of_a_renewal_is_no_loss_and_the_lease_can_be_given_back(server):
    async with campaign(server) as one:
        await one.elected()
        lost = []
        server.fault = lambda method: "lose" if method == "PUT" and not lost and not lost.append(1) else None
        await until(lambda: lost)
    assert one.elector.lost is None
    assert (await server.lease())["spec"]["holderIdentity"] == ""


async def test_a_blocked_main_loop_loses_the_lease(server, monkeypatch):
    monkeypatch.setattr("asyncctl.ha.elector.DEAF", 0.5)
    async with campaign(server) as one:
        await one.elected()
        one.beating = False
        await one.over()
        assert "the event loop, or a worker, has been stuck" in one.elector.lost
    assert (await server.lease())["spec"]["holderIdentity"] == one.elector.identity  # nobody said goodbye


async def test_renewals_go_on_while_the_heartbeat_is_late(server):
    async with campaign(server) as one:
        await one.elected()
        one.beating = False  # the loop itself has to live: the API server is in it
        await one.renewed(0.3)
        assert one.elector.leading


async def test_a_missing_namespace_is_told_with_advice_once(server):
    async with campaign(server, namespace="nowhere") as one:
        advice = "not found; create the namespace first, or set ASYNCCTL_LEASE_NAMESPACE to one that is there"
        await until(lambda: one.log.said(advice, "warning"))
        assert one.elector.problem.endswith(f'namespaces "nowhere" {advice}')
        await until(lambda: len(server.asked) > 8)
        assert len(one.log.said(advice)) == 1
        assert not one.elector.leading


async def test_missing_rights_are_told_with_advice_once(server):
    body = {"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no"}
    async with campaign(server) as one:
        server.fault = lambda method: web.json_response(body, status=403)
        await until(lambda: len(server.asked) > 5)
        told = one.log.said("needs a Role in namespace 'default' with get, create and update on leases", "warning")
        assert len(told) == 1
        assert "needs a Role" in one.elector.problem
        server.fault = None
        await one.elected()
        assert one.elector.problem is None


async def test_a_campaign_may_be_called_off_before_it_has_begun(server):
    async with campaign(server) as one:
        pass
    assert one.elector.over.is_set()
    assert not one.elector.leading


async def test_a_token_that_was_rotated_does_not_end_the_leader(server, tmp_path):
    token = tmp_path / "token"
    token.write_text("old")
    good = ["old"]
    denied = {"kind": "Status", "code": 401, "reason": "Unauthorized", "message": "Unauthorized"}
    handle = server.handle

    async def guarded(request):
        if request.headers["Authorization"] != f"Bearer {good[-1]}":
            return web.json_response(denied, status=401)
        return await handle(request)

    async with http_server(guarded) as server.proxy:
        candidate = Candidate(server, "pod")
        candidate.elector._config = ClusterConfig(server=server.proxy, token_file=token)
        beat = asyncio.create_task(candidate.beat(), name="beats")
        candidate.elector.start()
        try:
            await candidate.elected()
            token.write_text("new")
            good.append("new")
            await candidate.renewed(1.0)
            assert candidate.elector.leading
        finally:
            await candidate.elector.release()
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)


async def test_a_lease_that_counts_as_lost_is_so_from_that_moment(server):
    async with campaign(server) as one:
        one.elector.lose("too early")  # harmless: it does not lead yet
        await one.elected()
        one.elector.lose("the server has refused a write")
        assert not one.elector.leading
        assert one.elector.lost == "the server has refused a write"
        with pytest.raises(Fenced, match="the server has refused a write"):
            one.fence()
        await one.over(2)
        assert one.changes == [True, False]
        one.elector.lose("again")
        assert one.elector.lost == "the server has refused a write"
    assert (await server.lease())["spec"]["holderIdentity"] == one.elector.identity  # a write may be on its way


async def test_to_lose_what_is_given_back_already_is_harmless(server):
    async with campaign(server) as one:
        await one.elected()
        await one.elector.release()
        one.elector.lose("too late")
        assert one.elector.lost is None


async def test_a_campaign_that_ends_with_an_error_is_lost(server, monkeypatch):
    async def fail(*_):
        raise ValueError("a bug")

    monkeypatch.setattr("asyncctl.ha.campaign.Campaign._hold", fail)
    async with campaign(server) as one:
        await one.over(2)
        assert one.elector.lost == "the elector has failed: ValueError('a bug')"
        assert one.log.said("the elector has failed", "error")
        with pytest.raises(Fenced, match="the elector has failed"):
            one.fence()


async def test_a_release_while_it_waits_for_the_lease_takes_no_time(server):
    async with campaign(server, "a") as one:
        await one.elected()
        async with campaign(server, "b", retry_period=5.0, renew_deadline=7.0, duration=9.0) as two:
            await until(lambda: two.elector.problem)
            began = time.monotonic()
            await two.elector.release()
            assert time.monotonic() - began < 1
            assert two.elector.over.is_set()
            assert two.changes == []
        assert one.elector.leading


async def test_a_release_while_nobody_answers_does_not_wait_for_the_answer(server):
    server.fault = lambda method: "hang"
    async with campaign(server, renew_deadline=60.0, duration=90.0) as one:
        await until(lambda: server.asked)
        began = time.monotonic()
        await one.elector.release()
        assert time.monotonic() - began < 2


async def test_nothing_of_it_is_left_when_it_has_ended(server):
    def threads():
        return [thread for thread in threading.enumerate() if thread.name == "elector"]

    async with campaign(server) as one:
        await one.elected()
        assert len(threads()) == 1
    await until(lambda: not threads(), 5)


async def test_why_it_can_not_even_campaign_is_told_apart_from_another_who_leads(server):
    async with campaign(server, "a") as one, campaign(server, "b", namespace="nowhere") as lost:
        await one.elected()
        assert one.elector.blocked is None
        await until(lambda: lost.elector.blocked)
        assert 'namespaces "nowhere" not found' in lost.elector.blocked
        async with campaign(server, "c") as two:
            await until(lambda: two.elector.problem)
            assert two.elector.blocked is None
