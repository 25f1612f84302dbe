"""The embedded API server judges a `Database` by its schema as the real one does; it evaluates no rules."""

import pytest

from asyncctl.apiserver import ApiServer
from asyncctl.client.errors import Invalid
from asyncctl.database.types import Database
from asyncctl.generate import crd
from asyncctl.objects import Namespace, Unstructured
from tests.manifests.rules import EVERYTHING, refused_by_schema
from tests.unit.support import connected

DATABASE = Unstructured("apps.example.com/v1", "Database")
WANTED = crd(Database)
DEFINITION = Unstructured("apiextensions.k8s.io/v1", "CustomResourceDefinition", namespaced=False)


@pytest.fixture
async def create(backends):
    """Return what tries to create an object with this spec, and leaves none."""
    async with ApiServer() as server, connected(server.url) as client:
        backends.have("embedded")
        await client.create(WANTED, DEFINITION)
        await client.create(Namespace(name="team"))
        head = {"apiVersion": "apps.example.com/v1", "kind": "Database"}

        async def post(spec):
            wanted = head | {"metadata": {"name": "orders", "namespace": "team"}, "spec": spec}
            await client.create(wanted, DATABASE, dry_run=True)

        yield post


async def test_what_the_schema_refuses_is_refused_in_the_same_words_and_the_nearest_is_not(create):
    for case in {(each.field, each.keyword): each for each in refused_by_schema()}.values():
        with pytest.raises(Invalid) as caught:
            await create(case.bad)
        said = [cause.message for cause in caught.value.causes if cause.field == case.field]
        assert any(case.said in each for each in said), (case, caught.value.server_message)
        await create(case.good)


async def test_everything_at_once_is_accepted(create):
    await create(EVERYTHING)
