"""Access, the Lease, and what an author adds."""

import asyncio

import pytest
from aiohttp import web

from asyncctl.check import run, waiting
from asyncctl.client.errors import Fenced
from asyncctl.objects import ConfigMap, Namespace
from asyncctl.operator.checking import NotReached, State
from asyncctl.settings import Settings
from tests.unit.check.conftest import in_front_of, widgets
from tests.unit.support import status

LEASE = "lease controllers/test-leader"


def denying(*denied):
    """Access reviews that deny these (verb, resource, namespace); all others are allowed."""

    def change(request):
        if not request.path.endswith("/selfsubjectaccessreviews"):
            return None
        return answer(request)

    async def answer(request):
        asked = (await request.json())["spec"]["resourceAttributes"]
        key = (asked["verb"], asked["resource"], asked.get("namespace"))
        body = {"kind": "SelfSubjectAccessReview", "status": {"allowed": key not in denied}}
        return web.json_response(body, status=201)

    return change


async def test_a_verb_that_is_missing_is_told_with_the_rule_that_would_allow_it(check, cluster):
    async with in_front_of(cluster.url, denying(("patch", "configmaps", None), ("delete", "configmaps", None))) as url:
        rows = await check(url)
    assert rows.failed() == ["rbac configmaps"]
    assert rows["rbac configmaps"].message == (
        "may not patch, delete (is made for widgets); bind admin to a ClusterRole with the rule "
        "{apiGroups: [''], resources: [configmaps], verbs: [patch, delete]}"
    )
    assert rows["rbac configmaps"].details["missing"] == ["patch", "delete"]


async def test_with_namespaces_each_is_asked_for(check, cluster):
    async with in_front_of(cluster.url, denying(("patch", "configmaps", "b"))) as url:
        rows = await check(url, settings=Settings(namespaces=("a", "b")))
    assert rows.failed() == ["rbac configmaps in b"]
    assert rows["rbac configmaps in a"].state is State.OK
    assert "a Role in namespace b" in rows["rbac configmaps in b"].message


async def test_what_is_optional_is_warned_of(check, cluster):
    async with in_front_of(cluster.url, denying(("create", "events", None))) as url:
        rows = await check(url)
    assert rows.states(State.FAILED, State.WARNING) == {"rbac events.events.k8s.io": "warning"}


async def test_reviews_that_can_not_be_asked_for(check, cluster):
    def closed(request):
        return status(503, "ServiceUnavailable", "no") if "accessreviews" in request.path else None

    async with in_front_of(cluster.url, closed) as url:
        rows = await check(url)
    assert all(row.startswith("rbac ") for row in rows.failed())
    assert "the server can't say" in rows["rbac configmaps"].message


async def test_no_more_than_a_few_reviews_are_asked_for_at_once(check, cluster):
    now = most = 0

    def counted(request):
        return count(request) if "selfsubjectaccessreviews" in request.path else None

    async def count(request):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return web.json_response({"status": {"allowed": True}}, status=201)

    async with in_front_of(cluster.url, counted) as url:
        await check(url, settings=Settings(namespaces=tuple("abcdef")))
    assert 2 <= most <= 8


async def test_a_lease_without_its_namespace(check, cluster):
    rows = await check(cluster.url, settings=Settings(lease_namespace="nowhere"))
    assert rows.failed() == ["lease nowhere/test-leader"]
    assert rows["lease nowhere/test-leader"].message == (
        "namespace nowhere does not exist; create it, or set ASYNCCTL_LEASE_NAMESPACE to another"
    )


async def test_a_lease_is_told_with_who_holds_it(check, cluster):
    path = "/apis/coordination.k8s.io/v1/namespaces/controllers/leases"
    assert (await check(cluster.url))[LEASE].message == "not there yet; the first leader makes it"
    body = {"metadata": {"name": "test-leader"}, "spec": {}}
    await cluster.send("POST", path, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"} | body)
    assert (await check(cluster.url))[LEASE].message == "free"
    await cluster.send(
        "PATCH", f"{path}/test-leader", {"spec": {"holderIdentity": "p_1"}}, "application/merge-patch+json"
    )
    assert (await check(cluster.url))[LEASE].message == "held by p_1"


async def test_without_leader_election_there_is_no_lease_to_look_at(check, cluster):
    rows = await check(cluster.url, settings=Settings(leader_election=False))
    assert rows["lease"].message == "not needed: ASYNCCTL_LEADER_ELECTION is false"
    assert not any("lease" in row.check and row.check != "lease" for row in rows)


@pytest.mark.parametrize("code", [403, 500])
async def test_a_lease_that_can_not_be_read(check, cluster, code):
    def closed(request):
        return (
            status(code, "Forbidden" if code == 403 else "InternalError", "no") if "/leases" in request.path else None
        )

    async with in_front_of(cluster.url, closed) as url:
        rows = await check(url)
    assert rows[LEASE].state is (State.SKIPPED if code == 403 else State.FAILED)


async def test_nothing_is_written_but_reviews_and_a_dry_run(check, cluster):
    sent = []

    def note(request):
        if request.method != "GET":
            sent.append((request.method, request.path.rpartition("/")[2], request.query_string))

    async with in_front_of(cluster.url, note) as url:
        await check(url)
    assert set(sent) == {
        ("POST", "selfsubjectreviews", ""),
        ("POST", "selfsubjectaccessreviews", ""),
        ("POST", "leases", "dryRun=All"),
    }


def with_check(check, name="mail"):
    operator = widgets()
    operator.check(name)(check)
    return operator


async def test_an_author_adds_rows_of_his_own(check, cluster):
    async def look(checking):
        checking.ok("it answers", host="mail.example.com")
        checking.warning("it ends soon", part="certificate")
        checking.failed("it is full", part="queue")
        checking.skipped("nobody asked", part="spool")

    rows = await check(cluster.url, with_check(look))
    assert {name: state for name, state in rows.states().items() if name.startswith("mail")} == {
        "mail": "ok", "mail: certificate": "warning", "mail: queue": "failed", "mail: spool": "skipped",
    }  # fmt: skip
    assert rows["mail"].details == {"host": "mail.example.com"}


async def test_a_check_that_says_nothing_has_passed(check, cluster):
    async def look(checking):
        pass

    assert (await check(cluster.url, with_check(look)))["mail"].state is State.OK


async def test_what_a_check_raises_is_a_row_that_has_failed(check, cluster):
    async def look(checking):
        raise ConnectionRefusedError("mail.example.com refused")

    row = (await check(cluster.url, with_check(look)))["mail"]
    assert (row.state, row.message) == (State.FAILED, "mail.example.com refused")
    assert row.details == {"error": "ConnectionRefusedError"}


async def test_a_check_that_does_not_end_is_ended(check, cluster, monkeypatch):
    monkeypatch.setattr(run, "DEADLINE", 0.02)

    async def look(checking):
        await asyncio.Event().wait()

    row = (await check(cluster.url, with_check(look)))["mail"]
    assert (row.state, row.message) == (State.FAILED, "it has found nothing within 0.02 s")


async def test_a_check_that_takes_long_is_told_while_it_is_waited_for(check, cluster, monkeypatch):
    monkeypatch.setattr(waiting, "PATIENCE", 0.01)
    told = asyncio.Event()

    async def look(checking):
        await told.wait()

    rows = await check(cluster.url, with_check(look), tell=lambda line: told.set() if "the check 'mail'" in line else 0)
    assert rows["mail"].message == "passed"


async def test_a_check_reads_the_cluster_and_can_not_write_there(check, cluster):
    seen = []

    async def look(checking):
        seen.append((await checking.client.get(Namespace, "controllers")).name)
        with pytest.raises(Fenced, match="a check writes nothing"):
            await checking.client.create(ConfigMap(name="c", namespace="controllers"))

    rows = await check(cluster.url, with_check(look))
    assert (rows["mail"].state, seen) == (State.OK, ["controllers"])


async def test_a_check_that_needs_the_cluster_is_skipped_without_it_and_others_are_not(check):
    async def look(checking):
        await checking.client.get(Namespace, "x")

    async def elsewhere(checking):
        checking.ok("there")

    async def waits(checking):
        raise NotReached("not reached because it is Sunday")

    operator = with_check(look)
    operator.check("elsewhere")(elsewhere)
    operator.check("waits")(waits)
    rows = await check("http://127.0.0.1:1", operator)
    assert rows["mail"].state is State.SKIPPED
    assert rows["mail"].message == "not reached because the server can't be reached"
    assert rows["elsewhere"].state is State.OK
    assert rows["waits"].message == "not reached because it is Sunday"


def test_two_checks_of_one_name_are_refused():
    async def look(checking):
        pass

    operator = with_check(look)
    with pytest.raises(ValueError, match="has a check 'mail' already"):
        operator.check("mail")(look)
    with pytest.raises(TypeError, match="plain function"):
        operator.check("other")(lambda checking: None)
