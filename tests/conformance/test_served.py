"""Our own discovery against an API server, embedded and real, in either of its forms."""

from dataclasses import replace

import pytest

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.discovery import discover, server_version
from asyncctl.objects import Namespace, Unstructured
from tests.unit.support import make_transport

WIDGET = Unstructured("conformance.example.com/v1", "Widget").resource_type


@pytest.fixture
async def transport(backend):
    token = f"Bearer {backend.token}" if backend.token else None
    config = ClusterConfig(server=backend.url, ca_file=backend.ca or None, authorization=token)
    async with make_transport(config) as transport:
        yield transport


async def test_a_custom_kind_and_its_subresources(transport):
    served = await discover(transport, groups={"conformance.example.com"})
    found = served.resource(WIDGET)
    assert (found.kind, found.namespaced) == ("Widget", True)
    assert {name: sorted(verbs) for name, verbs in found.subresources.items()} == {
        "status": ["get", "patch", "update"],
        "scale": ["get", "patch", "update"],
    }
    assert served.groups["conformance.example.com"].preferred == "v1"


async def test_all_is_told_without_a_problem(transport):
    served = await discover(transport)
    assert served.problems == {}
    assert {"", "apps", "coordination.k8s.io", "events.k8s.io"} <= served.groups.keys()
    assert not served.resource(Namespace.resource_type).namespaced


async def test_both_forms_tell_the_same(transport):
    groups = {"", "apps", "conformance.example.com", "coordination.k8s.io"}
    aggregated = await discover(transport, groups=groups)
    send = transport.request

    async def plain(request):
        return await send(replace(request, accept="application/json"))

    transport.request = plain
    found = await discover(transport, groups=groups)
    assert _told(found) == _told(aggregated)


def _told(served):
    return {
        (name, version.version): {each.plural: each for each in version.resources}
        for name, group in served.groups.items()
        for version in group.versions
    }


async def test_the_version_is_one_that_can_be_compared(transport):
    version, _ = await server_version(transport)
    assert version.release >= (1, 29)
