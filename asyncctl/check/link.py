"""Whether there is a cluster to talk to: which one, by what TLS, how far away, of which version, as whom, at what time.

One row each, in the order in which they build on one another: after the first that fails the rest are skipped.
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import msgspec
import orjson

from asyncctl.check.tls import check_tls
from asyncctl.check.waiting import Tell, answer_of, waiting_for
from asyncctl.client.config.cluster import ClusterConfig, find_config
from asyncctl.client.discovery import ServerVersion, server_version
from asyncctl.client.errors import (
    ConfigError,
    CredentialsError,
    Fenced,
    Forbidden,
    KubernetesError,
    NotFound,
    StatusError,
    Target,
    TLSError,
    TooManyRequests,
    Unauthorized,
    not_an_object,
)
from asyncctl.client.reply import start_of
from asyncctl.client.transport.dial import CONNECT_TIMEOUT
from asyncctl.client.transport.transport import Lane, Request, Transport
from asyncctl.clock import Clock
from asyncctl.objects.json import JsonObject
from asyncctl.observe.logs import Logger
from asyncctl.observe.metrics import Metrics
from asyncctl.operator.checking import Row, State
from asyncctl.settings import Settings

REQUEST = 2 * CONNECT_TIMEOUT + 5.0  # seconds for one request: a handshake that hangs is told as that
OLDEST, TRIED = (1, 29), (1, 36)
"""Kubernetes: from where on CRDs' validation rules are there for good; the newest that the tests run against."""
FAR = 1.0  # seconds: a Lease that is renewed each two can't be kept over a longer way
SKEW_NOTED = 2.0  # seconds, and the way: an HTTP date has whole seconds
SKEW_BAD = 30.0  # seconds: a token or certificate that runs out is renewed by this clock, some seconds before
_PROBES = 3
_STEPS = ("configuration", "tls", "api-server", "version", "user", "clock")


@dataclass
class Link:
    """What was found. `transport` is there when the server knows us; else `without` says why it is not."""

    rows: list[Row] = field(default_factory=list)
    config: ClusterConfig | None = None
    transport: Transport | None = None
    user: str = ""
    without: str = ""

    def say(self, check: str, state: State, message: str, **details: object) -> None:
        """Add a row."""
        self.rows.append(Row(check, state, message, details))

    def end(self, why: str) -> "Link":
        """Skip what is left, because of `why`."""
        self.without = f"not reached because {why}"
        self.transport = None
        said = {row.check for row in self.rows}
        self.rows += [Row(step, State.SKIPPED, self.without) for step in _STEPS if step not in said]
        self.rows.sort(key=lambda row: _STEPS.index(row.check))
        return self


@dataclass(frozen=True, slots=True)
class _Probe:
    version: ServerVersion
    date: str | None
    sent: datetime
    seconds: float


async def link(
    stack: AsyncExitStack,
    settings: Settings,
    environ: Mapping[str, str],
    *,
    clock: Clock,
    logger: Logger,
    tell: Tell,
) -> Link:
    """Find a cluster and talk to it; what was opened is closed with `stack`."""
    found = Link()
    try:
        config = await find_config(environ, kubeconfig=settings.kubeconfig, context=settings.context)
    except ConfigError as error:
        found.say("configuration", State.FAILED, str(error))
        return found.end("there is no cluster configuration")
    found.config = config
    seconds = min(REQUEST, settings.request_timeout)
    try:
        transport = _transport(config, seconds, clock, logger)
    except ConfigError as error:
        found.say("configuration", State.FAILED, str(error))
        return found.end("there is no address of a server")
    found.rows.append(_configuration(config))
    best: _Probe | None = None
    forbidden: Forbidden | None = None
    try:
        await stack.enter_async_context(transport)
        with waiting_for(answer_of(config, seconds), tell):
            best = min([await _probe(transport, clock) for _ in range(_PROBES)], key=lambda probe: probe.seconds)
    except Forbidden as error:  # it answers, and who we are is the next question
        forbidden = error
    except TLSError as error:
        found.say("tls", State.FAILED, str(error))
        return found.end("TLS fails")
    except (ConfigError, CredentialsError, ValueError) as error:  # none to be had, or none that can be sent
        found.say("user", State.FAILED, str(error))
        return found.end("there are no credentials to use")
    except StatusError as error:
        found.rows.append(await check_tls(config, clock.now()))
        found.say("api-server", State.OK, f"{config.server} answers")
        if isinstance(error, Unauthorized):
            found.say("user", State.FAILED, _unauthorized(config, error))
            return found.end("the server does not accept the credentials")
        found.say("version", State.FAILED, str(error))
        if isinstance(error, TooManyRequests) or error.code >= 500:
            return found.end(f"the server answers {error.code} now: see version")
        return found.end("the server does not answer as a Kubernetes API server does")
    except KubernetesError as error:
        found.say("api-server", State.FAILED, str(error))
        return found.end("the server can't be reached")
    found.rows.append(await check_tls(config, clock.now()))
    if best is not None:
        found.rows += [_distance(config, best.seconds), _version(best.version)]
    else:
        found.say("api-server", State.OK, f"{config.server} answers")
        found.say("version", State.WARNING, f"it may not be read, and is not known: {forbidden}")
    with waiting_for(answer_of(config, seconds), tell):
        trouble = await _user(found, transport, config)
    found.rows.append(_clock(best))
    if trouble:
        return found.end(trouble)
    found.transport = transport
    return found


def _transport(config: ClusterConfig, seconds: float, clock: Clock, logger: Logger) -> Transport:
    def refuse() -> float:
        raise Fenced("a check writes nothing")

    return Transport(
        config, clock=clock, random=lambda: 0.0, logger=logger,
        metrics=Metrics(process=False).requests(urlsplit(config.server).netloc),
        fence=refuse, timeout=seconds, qps=0.0, tries=1,
    )  # fmt: skip


async def _probe(transport: Transport, clock: Clock) -> _Probe:
    sent, began = clock.now(), clock.monotonic()
    version, reply = await server_version(transport)
    return _Probe(version, reply.headers.get("Date"), sent, clock.monotonic() - began)


async def ask(
    transport: Transport, method: str, path: str, target: Target, body: JsonObject | None = None
) -> JsonObject:
    """Send one request that changes nothing, and return its answer, a JSON object. Raises as `Transport.request`."""
    request = Request(
        target=target, method=method, path=path, lane=Lane.READ, repeatable=True,
        body=None if body is None else orjson.dumps(body),
    )  # fmt: skip
    reply = await transport.request(request)
    try:
        found = orjson.loads(reply.body)
    except orjson.JSONDecodeError as error:
        raise not_an_object(target, reply.body) from error
    if not isinstance(found, dict):
        raise not_an_object(target, reply.body)
    return found


def _configuration(config: ClusterConfig) -> Row:
    described = config.describe()
    said = "; ".join(f"{key} {value}" for key, value in described.items())
    state = State.WARNING if config.warnings else State.OK
    return Row("configuration", state, "\n".join([said, *config.warnings]), dict(described))


def _distance(config: ClusterConfig, seconds: float) -> Row:
    milliseconds = round(1000 * seconds, 1)
    details: JsonObject = {"server": config.server, "milliseconds": milliseconds}
    text = f"{config.server} answers in {milliseconds:g} ms"
    if seconds > FAR:
        return Row("api-server", State.WARNING, f"{text}: too far, or too busy, to renew a Lease in time", details)
    return Row("api-server", State.OK, text, details)


def _version(version: ServerVersion) -> Row:
    details: JsonObject = {"version": version.text}
    oldest, tried = (".".join(map(str, release)) for release in (OLDEST, TRIED))
    if version.release is None:
        text = f"{version.text!r} is no version of Kubernetes that can be compared; {oldest} or newer is needed"
        return Row("version", State.WARNING, text, details)
    if version.release < OLDEST:
        text = f"{version.text} is older than {oldest}, the oldest that is supported; what follows may be wrong"
        return Row("version", State.WARNING, text, details)
    newer = f"; newer than {tried}, the newest that was tried" if version.release > TRIED else ""
    return Row("version", State.OK, f"{version.text}{newer}", details)


class _UserInfo(msgspec.Struct):
    username: str
    groups: list[str] | None = None
    extra: dict[str, list[str]] | None = None


class _ReviewStatus(msgspec.Struct, rename="camel"):
    user_info: _UserInfo


class _SelfReview(msgspec.Struct):
    status: _ReviewStatus


_REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_EXTRA = "authentication.kubernetes.io/"


async def _user(found: Link, transport: Transport, config: ClusterConfig) -> str:
    """Say who we are; returns why nothing more can be asked, if so."""
    target = Target("create", "selfsubjectreviews.authentication.k8s.io")
    body: JsonObject = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = await ask(transport, "POST", _REVIEWS, target, body)
        user = _reviewed(config, answer)
    except NotFound:
        found.say("user", State.WARNING, "the server can't say who we are: it is older than Kubernetes 1.28")
        return ""
    except Forbidden as error:
        found.say("user", State.FAILED, _forbidden(config, error))
        return "the server does not know us"
    except Unauthorized as error:
        found.say("user", State.FAILED, _unauthorized(config, error))
        return "the server does not accept the credentials"
    except CredentialsError as error:
        found.say("user", State.FAILED, str(error))
        return "there are no credentials to use"
    except (KubernetesError, ValueError) as error:
        found.say("user", State.FAILED, str(error))
        return ""
    found.user = user.username
    extra = user.extra or {}
    pod, node = (next(iter(extra.get(_EXTRA + key) or ()), "") for key in ("pod-name", "node-name"))
    groups = [group for group in user.groups or () if group]
    said = f"{user.username}; groups {', '.join(groups) or 'none'}"
    if pod:
        said += f"; bound to pod {pod}" + (f" on node {node}" if node else "")
    found.say("user", State.OK, said, username=user.username, groups=groups, pod=pod, node=node)
    return ""


def _reviewed(config: ClusterConfig, answer: JsonObject) -> _UserInfo:
    try:
        return msgspec.convert(answer, _SelfReview).status.user_info
    except msgspec.ValidationError as error:
        raise ValueError(
            f"{config.server} answers something else than a SelfSubjectReview when it is asked who we are: "
            f"{start_of(orjson.dumps(answer))}; is it a Kubernetes API server, or a proxy before one?"
        ) from error


def _forbidden(config: ClusterConfig, error: StatusError) -> str:
    """Who is known may ask who he is (the ClusterRole system:basic-user); so nobody's rights are the trouble."""
    own = (config.token_file, config.authorization, config.exec_plugin, config.oidc, config.client_certificate,
           config.client_certificate_data)  # fmt: skip
    if any(own):
        return (
            f"the server does not let us ask who we are ({error.server_message}); if it takes us for somebody else, "
            f"such as system:anonymous, the credentials of {config.source} do not reach it: is there a proxy between, "
            "or are they another cluster's?"
        )
    if config.server.startswith("http:"):
        missing, fix = (
            f"no credential is sent to {config.server}, since it is plain HTTP",
            "use its https:// address with",
        )
    else:
        missing, fix = f"there is no credential in {config.source}", "configure"
    return (
        f"{missing}, and the server lets nobody do anything without one ({error.server_message}); {fix} a token, "
        f"tokenFile, client-certificate with client-key, or exec of the user {config.user}"
    )


def _unauthorized(config: ClusterConfig, error: StatusError) -> str:
    where = f"the token in {config.token_file}" if config.token_file else f"the credentials of {config.source}"
    return (
        f"the server does not accept {where} ({error.server_message}): they may have expired, or be another cluster's"
    )


def _clock(probe: _Probe | None) -> Row:
    """Server minus ours: its date has whole seconds, and was made somewhere on the way there and back."""
    try:
        date = parsedate_to_datetime((probe and probe.date) or "")
    except ValueError:
        date = None
    if probe is None or date is None:
        return Row("clock", State.SKIPPED, "the server's answer has no date to compare with")
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    skew = (date - probe.sent).total_seconds() + 0.5 - probe.seconds / 2
    details: JsonObject = {"skewSeconds": round(skew, 1), "uncertaintySeconds": round(0.5 + probe.seconds / 2, 3)}
    if abs(skew) <= SKEW_NOTED + probe.seconds:
        return Row("clock", State.OK, "this machine and the server agree, within 2 s", details)
    which = "ahead of" if skew < 0 else "behind"
    text = f"this machine's clock is {abs(skew):.0f} s {which} the server's; synchronise both (NTP)"
    if abs(skew) > SKEW_BAD:
        return Row("clock", State.FAILED, f"{text}: tokens and certificates are judged and renewed by it", details)
    return Row("clock", State.WARNING, text, details)
