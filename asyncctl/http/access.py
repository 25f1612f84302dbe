"""Who may read a page: whoever's token the API server knows, and whom it allows to get that path.

The token of `Authorization: Bearer` is reviewed (TokenReview), and its user's right to the path (SubjectAccessReview),
as controller-runtime's `pkg/metrics/filters` does it. What was found is remembered for a while, by a digest of the
token: the token itself is kept no longer than its review takes. Reviews are bounded in number and in time, so that who
tries one token after the other costs the API server little and the program's other requests nothing. While the API
server can't be asked, who was let in before is let in, for ten minutes. A review changes nothing in the cluster: it is
no write, asks no fence, and a standby makes it too.
"""

import asyncio
import enum
import hashlib
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass

import orjson
from aiohttp import web

from asyncctl.client.errors import (
    CredentialsError,
    Forbidden,
    KubernetesError,
    StatusError,
    Target,
    not_an_object,
)
from asyncctl.client.transport.transport import Lane, Request, Transport
from asyncctl.clock import Clock
from asyncctl.http.server import text
from asyncctl.objects.json import JsonObject
from asyncctl.observe.logs import Logger
from asyncctl.queue.token_bucket import TokenBucket

__all__ = ["Access"]

KNOWN = 60.0  # seconds for which it is remembered that a token is good and its user allowed
DENIED = 30.0  # that its user is not allowed
UNKNOWN = 10.0  # that it is no token
STALE = 600.0  # for which who was allowed stays so, while nobody can be asked
AGAIN = 10.0  # until the API server is asked again, when it could not be asked
DEADLINE = 5.0  # for one token, both reviews: less than a scrape's timeout
_AT_ONCE = 4  # tokens under review
_RATE, _BURST = 5.0, 20  # tokens reviewed in a second, and at once
_ALLOWED, _REFUSED = 256, 1024  # of whom is remembered that they are, and are not, allowed
_RIGHTS = (
    "bind this program's user to a ClusterRole with create on tokenreviews.authentication.k8s.io and "
    "subjectaccessreviews.authorization.k8s.io, or set ASYNCCTL_METRICS_AUTH=none"
)
_HEADER = re.compile(r"[Bb]earer +([A-Za-z0-9._~+/-]+=*)", re.ASCII)
_TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
_ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class _Verdict(enum.Enum):
    ALLOWED = KNOWN
    DENIED = DENIED
    UNKNOWN = UNKNOWN


@dataclass(slots=True)
class _Found:
    verdict: _Verdict
    user: str
    at: float
    """When it was found."""
    until: float
    """Until when nobody is asked again."""


class _CannotAsk(Exception):
    """There was no review; the text says why, and holds nothing that a stranger may not read."""


class Access:
    """Lets a request pass, or refuses it. Call it with a request; `connect` it to an API server first.

    Args:
        path: What is read, as RBAC's `nonResourceURLs` has it.
        clock: Time.
        logger: For what is wrong on our side, once for each thing.
    """

    def __init__(self, path: str, *, clock: Clock, logger: Logger) -> None:
        self._path = path
        self._clock = clock
        self._logger = logger
        self._transport: Transport | None = None
        self._salt = secrets.token_bytes(16)  # so that a digest says nothing outside of this process
        self._allowed: OrderedDict[bytes, _Found] = OrderedDict()
        self._refused: OrderedDict[bytes, _Found] = OrderedDict()
        self._under_review: dict[bytes, asyncio.Task[_Found]] = {}
        self._rate = TokenBucket(_RATE, _BURST, clock)
        self._problem = ""

    def connect(self, transport: Transport) -> None:
        """From now on ask by `transport`."""
        self._transport = transport

    async def aclose(self) -> None:
        """End the reviews that are under way."""
        tasks = list(self._under_review.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __call__(self, request: web.BaseRequest) -> web.Response | None:
        """None: it may pass. Else the answer: 401, 403 with the user's name, or 503 when nobody could be asked."""
        given = _HEADER.fullmatch(request.headers.get("Authorization", "").strip())
        if given is None:
            return _unauthorized("a token is needed: Authorization: Bearer …")
        digest = hashlib.blake2b(given[1].encode(), key=self._salt, digest_size=32).digest()
        found = self._remembered(digest)
        if found is None:
            if self._transport is None:  # no news for the log: who scrapes comes again
                return text(503, "the process is only starting: come again\n", Retry_After="1")
            try:
                found = await self._review(digest, given[1])
            except _CannotAsk as error:
                return text(503, f"{error}\n", Retry_After=f"{AGAIN:g}")
        match found.verdict:
            case _Verdict.ALLOWED:
                return None
            case _Verdict.DENIED:
                return text(
                    403,
                    f"{found.user} may not get {self._path}: bind it to a ClusterRole with "
                    f'{{"nonResourceURLs": ["{self._path}"], "verbs": ["get"]}}\n',
                )
            case _Verdict.UNKNOWN:
                return _unauthorized("the API server does not know this token")

    def _remembered(self, digest: bytes) -> _Found | None:
        now = self._clock.monotonic()
        for known in (self._allowed, self._refused):
            found = known.get(digest)
            if found is not None and now < found.until:
                known.move_to_end(digest)
                return found
        return None

    async def _review(self, digest: bytes, token: str) -> _Found:
        """Ask, or wait for the one who asks about the same token already."""
        task = self._under_review.get(digest)
        if task is None:
            if len(self._under_review) >= _AT_ONCE or not self._rate.take():
                return self._as_before(digest, "too many tokens are being reviewed: come again")
            task = self._under_review[digest] = asyncio.create_task(self._ask(digest, token), name="access review")
            task.add_done_callback(lambda done: self._reviewed(digest, done))
        await asyncio.wait({task})  # who asked may go, others may wait for the same
        if task.cancelled():
            raise _CannotAsk("the process is stopping")
        return task.result()

    def _reviewed(self, digest: bytes, done: "asyncio.Task[_Found]") -> None:
        del self._under_review[digest]
        if not done.cancelled():
            done.exception()  # who waited for it may be gone

    async def _ask(self, digest: bytes, token: str) -> _Found:
        try:
            async with asyncio.timeout(DEADLINE):
                verdict, user = await self._asked(token)
        except (KubernetesError, TimeoutError) as error:
            short, whole = _told(error)
            if self._problem != short:  # the whole has audit ids and counts, which differ each time
                self._problem = short
                self._logger.warning("access to metrics can't be reviewed", cause=whole)
            return self._as_before(digest, short)
        if self._problem:
            self._problem = ""
            self._logger.info("access to metrics is reviewed again")
        now = self._clock.monotonic()
        found = _Found(verdict, user, now, now + verdict.value)
        self._allowed.pop(digest, None)
        known, most = (
            (self._allowed, _ALLOWED) if verdict is _Verdict.ALLOWED else (self._refused, _REFUSED)
        )  # who guesses tokens can't make us forget who is good
        known[digest] = found
        known.move_to_end(digest)
        while len(known) > most:
            known.popitem(last=False)
        return found

    def _as_before(self, digest: bytes, why: str) -> _Found:
        """Who was allowed not long ago is; raises `_CannotAsk` for everybody else."""
        found, now = self._allowed.get(digest), self._clock.monotonic()
        if found is None or now >= found.at + STALE:
            raise _CannotAsk(why)
        found.until = min(now + AGAIN, found.at + STALE)
        return found

    async def _asked(self, token: str) -> tuple[_Verdict, str]:
        """The verdict, and the user's name."""
        status = await self._post(
            "tokenreviews.authentication.k8s.io", _TOKEN_REVIEWS, "authentication.k8s.io/v1", "TokenReview",
            {"token": token},
        )  # fmt: skip
        user = status.get("user")
        if status.get("authenticated") is not True or not isinstance(user, dict):
            return _Verdict.UNKNOWN, ""
        name = str(user.get("username") or "")
        spec: JsonObject = {
            "nonResourceAttributes": {"path": self._path, "verb": "get"},
            "user": name, "groups": user.get("groups") or [], "uid": user.get("uid") or "",
            "extra": user.get("extra") or {},
        }  # fmt: skip
        status = await self._post(
            "subjectaccessreviews.authorization.k8s.io", _ACCESS_REVIEWS, "authorization.k8s.io/v1",
            "SubjectAccessReview", spec,
        )  # fmt: skip
        return (_Verdict.ALLOWED if status.get("allowed") is True else _Verdict.DENIED), name

    async def _post(self, resource: str, path: str, version: str, kind: str, spec: JsonObject) -> JsonObject:
        assert self._transport is not None
        target = Target("create", resource)
        request = Request(
            target=target, method="POST", path=path, lane=Lane.REVIEW, repeatable=True, timeout=DEADLINE,
            body=orjson.dumps({"apiVersion": version, "kind": kind, "spec": spec}),
        )  # fmt: skip
        reply = await self._transport.request(request)
        try:
            answer = orjson.loads(reply.body)
        except orjson.JSONDecodeError:
            answer = None
        status = answer.get("status") if isinstance(answer, dict) else None
        if not isinstance(status, dict):
            raise not_an_object(target, b"")  # the body may be an echo, with the token in it
        found: JsonObject = status
        return found


def _unauthorized(said: str) -> web.Response:
    return text(401, f"{said}\n", WWW_Authenticate='Bearer realm="metrics"')


def _told(error: Exception) -> tuple[str, str]:
    """Why there was no review: for a stranger, and for the log."""
    if isinstance(error, TimeoutError):
        said = f"the API server did not answer within {DEADLINE:g} s"
        return said, said
    if isinstance(error, Forbidden):
        return (
            "this program may not review tokens: its log says which rule it needs",
            f"{error}; {_RIGHTS}",
        )
    if isinstance(error, CredentialsError):
        return "this program has no credentials for the API server now: see its log", str(error)
    if isinstance(error, StatusError):
        return f"the API server can't review tokens now: it answers {error.code}", str(error)
    return "the API server can't be reached", str(error)
