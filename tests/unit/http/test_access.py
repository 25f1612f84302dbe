"""Who may read metrics: reviews by a server that counts them, over the real transport."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from aiohttp import web
from multidict import CIMultiDict

from asyncctl.client.errors import Fenced
from asyncctl.http import Access, access as module
from asyncctl.testing.clock import FakeClock
from tests.unit.support import Log, http_server, make_transport, status, until

TOKEN_REVIEWS, ACCESS_REVIEWS = "tokenreviews", "subjectaccessreviews"
PROMETHEUS = "system:serviceaccount:monitoring:prometheus"


class ApiServer:
    """Knows `good` and `other`, allows `good` alone, and counts what it is asked."""

    def __init__(self):
        self.asked = []
        self.specs = []
        self.wait = None
        self.answer = None

    async def __call__(self, request):
        what, spec = request.path.rpartition("/")[2], (await request.json())["spec"]
        self.asked.append(what)
        self.specs.append(spec)
        if self.wait is not None:
            await self.wait.wait()
        if self.answer is not None:
            return self.answer()
        if what == ACCESS_REVIEWS:
            return web.json_response({"spec": spec, "status": {"allowed": spec["user"] == PROMETHEUS}}, status=201)
        user = {"good": PROMETHEUS, "other": "system:serviceaccount:team:app"}.get(spec["token"])
        found = {"authenticated": True, "user": {"username": user, "groups": ["g"], "extra": {"k": ["v"]}}}
        return web.json_response({"spec": spec, "status": found if user else {}}, status=201)

    def times(self, what):
        return self.asked.count(what)


def refuse():
    raise Fenced("not leading")


@pytest.fixture
def api():
    return ApiServer()


@pytest.fixture
async def parts(api):
    """A guard, connected to `api` as a standby is, whose fence lets no write pass."""
    log, clock = Log(), FakeClock()
    async with http_server(api) as url, make_transport(url, log, fence=refuse) as transport:
        access = Access("/metrics", clock=clock, logger=log.logger)
        access.connect(transport)
        yield SimpleNamespace(access=access, log=log, clock=clock, transport=transport)
        await access.aclose()


async def ask(access, token="good", header=None):
    headers = CIMultiDict({"Authorization": f"Bearer {token}"} if header is None else header)
    answer = await access(SimpleNamespace(headers=headers))
    return (200, "", {}) if answer is None else (answer.status, answer.text, answer.headers)


async def code(access, token="good"):
    return (await ask(access, token))[0]


async def test_whom_the_api_server_allows_is_let_in_and_not_asked_about_again_for_a_minute(parts, api):
    for _ in range(5):
        assert await code(parts.access) == 200
    assert api.asked == [TOKEN_REVIEWS, ACCESS_REVIEWS]
    assert api.specs[1] == {
        "nonResourceAttributes": {"path": "/metrics", "verb": "get"}, "user": PROMETHEUS, "groups": ["g"], "uid": "",
        "extra": {"k": ["v"]},
    }  # fmt: skip
    parts.clock.advance(module.KNOWN)
    assert await code(parts.access) == 200
    assert api.times(TOKEN_REVIEWS) == 2


@pytest.mark.parametrize(
    "header",
    [{}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}, {"Authorization": "Bearer a b"}],
    ids=["none", "basic", "empty", "two words"],
)
async def test_without_a_token_it_is_401_and_nobody_is_asked(parts, api, header):
    answer = await ask(parts.access, header=header)
    assert answer[0] == 401
    assert answer[2]["WWW-Authenticate"] == 'Bearer realm="metrics"'
    assert not api.asked


async def test_a_token_that_is_none_is_401_and_remembered_for_a_short_while(parts, api):
    for _ in range(3):
        assert await code(parts.access, "bad") == 401
    assert api.asked == [TOKEN_REVIEWS]
    parts.clock.advance(module.UNKNOWN)
    assert await code(parts.access, "bad") == 401
    assert api.times(TOKEN_REVIEWS) == 2


async def test_a_user_who_may_not_is_named_with_what_would_allow_it(parts, api):
    for _ in range(2):
        answer, said, _ = await ask(parts.access, "other")
        assert answer == 403
        assert said.startswith("system:serviceaccount:team:app may not get /metrics: bind it to a ClusterRole with")
        assert '"nonResourceURLs": ["/metrics"]' in said
    assert api.asked == [TOKEN_REVIEWS, ACCESS_REVIEWS]
    parts.clock.advance(module.DENIED)
    await ask(parts.access, "other")
    assert api.times(ACCESS_REVIEWS) == 2


async def test_before_there_is_an_api_server_to_ask_it_is_503_and_no_news():
    log = Log()
    answer, said, headers = await ask(Access("/metrics", clock=FakeClock(), logger=log.logger))
    assert (answer, headers["Retry-After"]) == (503, "1")
    assert "only starting" in said
    assert log.lines == []


async def test_while_the_api_server_is_away_who_was_let_in_is_and_others_are_told(parts, api):
    assert await code(parts.access) == 200
    api.answer = lambda: web.Response(status=503, text="no etcd")
    asked = len(api.asked)
    assert await code(parts.access, "other") == 503
    parts.clock.advance(module.KNOWN)
    for _ in range(5):
        assert await code(parts.access) == 200
    assert len(api.asked) - asked <= 2 * 5  # each asked once, with the transport's own tries
    (line,) = parts.log.said("access to metrics can't be reviewed", "warning")
    assert "503" in line["cause"]
    parts.clock.advance(module.STALE - module.KNOWN)
    assert await code(parts.access) == 503
    api.answer = None
    assert await code(parts.access) == 200
    assert parts.log.said("reviewed again", "info")


async def test_a_program_without_the_right_says_which_it_needs_once(parts, api):
    api.answer = lambda: status(403, "Forbidden", "tokenreviews.authentication.k8s.io is forbidden")
    for _ in range(3):
        answer, said, _ = await ask(parts.access)
        assert answer == 503
        assert "its log says which rule it needs" in said
    (line,) = parts.log.said("can't be reviewed", "warning")
    assert "create on tokenreviews.authentication.k8s.io" in line["cause"]


async def test_many_who_come_with_one_token_are_reviewed_once(parts, api):
    api.wait = asyncio.Event()
    waiting = [asyncio.create_task(code(parts.access)) for _ in range(30)]
    await until(lambda: api.asked)
    waiting[0].cancel()  # who asked first goes
    api.wait.set()
    assert await asyncio.gather(*waiting[1:]) == [200] * 29
    assert api.asked == [TOKEN_REVIEWS, ACCESS_REVIEWS]


async def test_who_guesses_tokens_costs_few_reviews_and_shuts_nobody_out(parts, api):
    assert await code(parts.access) == 200
    answers = [await code(parts.access, f"guess-{number}") for number in range(2000)]
    assert api.times(TOKEN_REVIEWS) <= 1 + module._BURST
    assert answers.count(503) >= 2000 - module._BURST
    parts.clock.advance(0.1)
    assert await code(parts.access) == 200  # still known
    assert len(parts.access._refused) <= module._REFUSED


async def test_no_more_tokens_are_under_review_at_once_than_a_few(parts, api):
    api.wait = asyncio.Event()
    waiting = [asyncio.create_task(code(parts.access, f"guess-{number}")) for number in range(10)]
    await until(lambda: api.asked)
    assert len(parts.access._under_review) == module._AT_ONCE
    api.wait.set()
    assert sorted(await asyncio.gather(*waiting)) == [401] * module._AT_ONCE + [503] * (10 - module._AT_ONCE)


async def test_what_is_remembered_is_bounded_and_the_good_are_not_forgotten_for_the_bad(parts, monkeypatch):
    monkeypatch.setattr(module, "_REFUSED", 3)
    assert await code(parts.access) == 200
    for number in range(10):
        parts.clock.advance(1.0)
        assert await code(parts.access, f"guess-{number}") == 401
    assert len(parts.access._refused) == 3
    assert len(parts.access._allowed) == 1


async def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_the_deadline(parts, api, monkeypatch):
    monkeypatch.setattr(module, "DEADLINE", 0.2)
    api.wait = asyncio.Event()
    answer, said, _ = await ask(parts.access)
    api.wait.set()
    assert answer == 503
    assert "did not answer within 0.2 s" in said


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"status": []}', '{"status": {"authenticated": "yes"}}'])
async def test_an_answer_that_is_no_review_lets_nobody_in(parts, api, body):
    api.answer = lambda: web.Response(status=201, text=body)
    assert await code(parts.access) in {401, 503}


async def test_no_token_stays_in_memory_or_gets_into_the_log(parts, api):
    token = "eyJhbGciOi.secret-token.of-somebody"
    assert await code(parts.access, token) == 401
    api.answer = lambda: web.Response(status=201, text=json.dumps({"spec": {"token": "x-secret-token"}, "status": 1}))
    assert await code(parts.access, "x-secret-token") == 503
    kept = repr([parts.access._allowed, parts.access._refused, parts.access._under_review])
    assert "secret" not in kept
    assert not parts.log.said("secret-token")
