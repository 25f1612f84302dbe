"""The whole check, in order: settings, the way to the cluster, what is served there, what may be done, author's checks.

What can't be looked at because of an earlier row is skipped, and says because of what. Nothing raises; every request
and every check has a deadline.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from asyncctl.check.access import check_lease, check_rules
from asyncctl.check.fence import check_fence
from asyncctl.check.kinds import check_kinds, own_kinds
from asyncctl.check.link import Link, link
from asyncctl.check.protection import check_protection, protectable
from asyncctl.check.waiting import Tell, waiting_for
from asyncctl.client.client import Client
from asyncctl.clock import Clock
from asyncctl.generate.rbac import rules
from asyncctl.objects import resource_type_of
from asyncctl.observe.logs import Logger
from asyncctl.operator import Operator
from asyncctl.operator.checking import Check, Checking, NotReached, Row, State
from asyncctl.operator.parts import OUTSIDE_A_POD, lease_name, own_namespace
from asyncctl.settings import Settings

DEADLINE = 30.0  # seconds for each check of an author


async def check_operator(
    operator: Operator,
    settings: Settings,
    environ: Mapping[str, str],
    *,
    clock: Clock,
    logger: Logger,
    tell: Tell = lambda _: None,
) -> list[Row]:
    """Look at everything that `operator` needs to run with `settings`.

    Args:
        operator: What is declared.
        settings: Of the operator's class, and usable.
        environ: The process's environment, where a cluster is searched for.
        clock: Time.
        logger: Where the client says what is no row.
        tell: Called with a line when something is waited for longer than a person would expect.

    Returns:
        The rows, in the order in which they build on one another.
    """
    async with AsyncExitStack() as stack:
        found = await link(stack, settings, environ, clock=clock, logger=logger, tell=tell)
        rows = [_settings(settings, environ), *found.rows]
        with waiting_for("what the server serves and allows", tell):
            rows += await _in_the_cluster(operator, settings, found, clock)
        rows += await _of_the_author(operator, settings, found, clock, logger, tell)
    return rows


def passes(rows: Sequence[Row]) -> bool:
    """Whether nothing that is needed has failed."""
    return all(row.state is not State.FAILED for row in rows)


def _settings(settings: Settings, environ: Mapping[str, str]) -> Row:
    known = [row.variable for row in settings.rows(environ)]
    given = [name for name in known if environ.get(name, "").strip()]
    unknown = settings.unknown(environ)
    said = f"usable; set: {', '.join(given)}" if given else "usable; all by default"
    state = State.WARNING if unknown else State.OK
    return Row("settings", state, "\n".join([said, *unknown]), {"set": given, "unknown": unknown})


async def _in_the_cluster(operator: Operator, settings: Settings, found: Link, clock: Clock) -> list[Row]:
    home = own_namespace(found.config) if found.config else OUTSIDE_A_POD
    namespace = settings.lease_namespace or home
    needed = rules(operator, settings, lease_namespace=home)
    if found.transport is None:
        names = ["api", "crd", *(["protection"] if await protectable(own_kinds(operator)) else []), "rbac"]
        names += ["lease", "fence"] if settings.leader_election else []
        return [Row(name, State.SKIPPED, found.without) for name in names]
    rows = await check_kinds(found.transport, operator, settings, needed)
    rows += await check_protection(found.transport, own_kinds(operator), found.user)
    rows += await check_rules(found.transport, needed, found.user)
    if settings.leader_election:
        lease = lease_name(operator.name, settings)
        rows.append(await check_lease(found.transport, namespace, lease))
        rows.append(await check_fence(found.transport, namespace, lease, settings.pod_name, found.user, clock=clock))
    else:
        rows.append(Row("lease", State.SKIPPED, "not needed: ASYNCCTL_LEADER_ELECTION is false"))
    return rows


async def _of_the_author(
    operator: Operator, settings: Settings, found: Link, clock: Clock, logger: Logger, tell: Tell
) -> list[Row]:
    client = None
    if found.transport is not None:
        declared = operator.declared(settings)
        kinds = [resource_type_of(each.kind) for each in declared]
        kinds += [resource_type_of(watch.kind) for each in declared for watch in each.watches]
        client = Client(
            found.transport,
            field_manager=f"asyncctl-{operator.name}",
            namespaces=settings.namespaces,
            cluster_kinds=frozenset(kind for kind in kinds if not kind.namespaced),
        )

    async def run(name: str, check: Check) -> list[Row]:
        checking = Checking(name, settings=settings, logger=logger, clock=clock, client=client, without=found.without)
        with waiting_for(f"the check {name!r} (at most {DEADLINE:g} s)", tell):
            await _run(checking, check)
        return checking.rows

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(run(name, check), name=f"check {name}") for name, check in operator.checks]
    return [row for task in running for row in task.result()]


async def _run(checking: Checking, check: Check) -> None:
    scope = asyncio.timeout(DEADLINE)
    try:
        async with scope:
            await check(checking)
    except NotReached as error:
        checking.skipped(str(error))
    except Exception as error:  # noqa: BLE001 - whatever an author's check raises is what it has found
        if scope.expired():
            checking.failed(f"it has found nothing within {DEADLINE:g} s")
        else:
            checking.failed(str(error) or repr(error), error=type(error).__name__)
    else:
        if not checking.rows:
            checking.ok("passed")
