"""What a cache, and an operator on it, does when its kind, rights or namespaces are taken away and given back.

They say so and why, they tell what is gone, they come back by themselves, and nothing else is held up by it.
"""

import asyncio
import contextlib
import itertools

import pytest

from asyncctl.client.errors import AlreadyExists, Forbidden, NotFound
from asyncctl.objects import ConfigMap, Namespace, Resource, Secret, Spec, field
from asyncctl.operator import Operator
from tests.conformance.between import between
from tests.conformance.cached import Listener, caching
from tests.conformance.test_cache import define
from tests.unit.harness import CRDS, Cluster, working
from tests.unit.support import answered, connected, informer_of, until

RBAC = "/apis/rbac.authorization.k8s.io/v1"
_numbers = itertools.count(1)


class ThingSpec(Spec):
    size: int = 1


class Changing(Resource, group="loss.example.com", version="v1"):
    spec: ThingSpec = field(default_factory=ThingSpec)


class Vanishing(Resource, group="loss.example.com", version="v1"):
    spec: ThingSpec = field(default_factory=ThingSpec)


@pytest.fixture
async def cluster(backend):
    """The backend, as somebody else sees it, with a namespace of the test's own."""
    async with connected(backend.config()) as client:
        cluster = Cluster(backend.config(), client, f"loss-{next(_numbers)}")
        await client.create(Namespace(name=cluster.namespace))
        yield cluster
        with contextlib.suppress(NotFound):
            await client.delete(Namespace.resource_type, cluster.namespace)


@pytest.fixture(scope="module", autouse=True)
async def doomed(backend):
    """A cache of two namespaces, of which one is being deleted while other tests run: the real server takes 5 s to."""
    async with connected(backend.config()) as client:
        namespaces = tuple(f"loss-{backend.name}-{name}" for name in ("kept", "doomed"))
        for namespace in namespaces:
            await client.create(Namespace(name=namespace))
        await client.create(Secret(name="stays", namespace=namespaces[0]))
        for name in "ab":
            await client.create(Secret(name=name, namespace=namespaces[1]))
        async with caching(backend.config(), Secret, namespaces=namespaces) as cache:
            await cache.has("stays", "a", "b")
            before = {key: header for key, header in cache.listener.known.items() if key[0] == namespaces[1]}
            await client.delete(Namespace.resource_type, namespaces[1])
            yield cache, namespaces[1], before
        for namespace in namespaces:
            with contextlib.suppress(NotFound):  # where no test has made it again
                await client.delete(Namespace.resource_type, namespace)


async def make(cluster, kind, name):
    """Make an object without waiting: the real server holds up POSTs of a kind that is new, but no patches."""
    return await cluster.client.apply(kind(name=name, namespace=cluster.namespace))


class Prompt:
    """Random numbers for the jitter of an operator that a test waits for."""

    def random(self):
        return 0.02


@contextlib.asynccontextmanager
async def watching(cluster, monkeypatch, *kinds, config=None):
    """An operator with a controller for each kind; `passes` names what they reconciled, in order."""
    monkeypatch.setattr("asyncctl.operator.running.system_random.SystemRandom", Prompt)
    operator = Operator("test")
    passes = []
    for kind in kinds:

        def declare(kind):
            @operator.controller(kind, name=kind.__name__.lower())
            async def reconcile(ctx, given):
                passes.append(given.name)

        declare(kind)
    if config is not None:
        cluster = Cluster(config, cluster.client, cluster.namespace)
    async with working(operator, cluster) as running:
        running.passes = passes
        yield running


def listening(running, kind):
    listener = Listener()
    informer_of(running, kind.resource_type).subscribe(listener)
    return listener


def metric(running, kind):
    """Whether the kind's cache is current, as a scrape tells it."""
    return running.metrics.registry.get_sample_value("asyncctl_cache_synced", {"resource": kind.resource_type.resource})


async def test_a_definition_that_changes_ends_the_watches_and_forgets_their_place(backend, cluster):
    """The server makes a new storage for it: what is kept is kept, and none of it is said to be gone."""
    await define(cluster, Changing)
    await make(cluster, Changing, "a")
    async with caching(backend.config(), Changing, namespaces=(cluster.namespace,)) as cache:
        await cache.has("a")
        before = await cluster.client.list_page(Changing.resource_type, namespace=cluster.namespace)
        column = {"name": "Size", "type": "integer", "jsonPath": ".spec.size"}
        change = [{"op": "add", "path": "/spec/versions/0/additionalPrinterColumns", "value": [column]}]
        name = Changing.resource_type.resource
        await cluster.send("PATCH", f"{CRDS}/{name}", change, "application/json-patch+json")
        await until(lambda: cache.restarts("expired"))
        await make(cluster, Changing, "b")
        await cache.has("a", "b")
        await cache.agrees(cluster.client, cluster.namespace)
        assert cache.gone() == []
        page = await cluster.client.list_page(
            Changing.resource_type, namespace=cluster.namespace, resource_version=before.resource_version
        )
        assert len(page.items) == 1  # an old list is had from etcd itself
    await cluster.send("DELETE", f"{CRDS}/{name}")


async def test_a_definition_that_is_deleted_and_made_again(backend, cluster, monkeypatch):
    await define(cluster, Vanishing)
    await make(cluster, Vanishing, "a")
    name = Vanishing.resource_type.resource
    async with watching(cluster, monkeypatch, Vanishing, ConfigMap) as running:
        informer, listener = informer_of(running, Vanishing.resource_type), listening(running, Vanishing)
        await make(cluster, Vanishing, "b")  # which a watch shows: it is open
        await until(lambda: {"a", "b"} <= set(running.passes))
        before = dict(listener.known)
        await cluster.send("DELETE", f"{CRDS}/{name}")
        await until(lambda: informer.problem)
        assert (
            f"404 NotFound: the server has no such path; install the CustomResourceDefinition {name}"
            in informer.problem
        )
        await until(lambda: len(listener.gone) == 2)
        assert {header.key: header for header in listener.gone} == before
        assert informer.problem in running.probes.readyz(verbose=True).text
        await cluster.create(ConfigMap, "meanwhile")
        await until(lambda: "meanwhile" in running.passes)
        assert (metric(running, Vanishing), metric(running, ConfigMap)) == (0, 1)
        await define(cluster, Vanishing)
        made = await make(cluster, Vanishing, "c")
        await until(lambda: "c" in running.passes)
        assert (informer.problem, metric(running, Vanishing)) == (None, 1)
        assert [entry.header.uid for entry in informer.entries()] == [made.metadata.uid]
        assert len(listener.gone) == 2
        assert listener.wrong == []
        assert running.log.said("the cache is not current", "warning")
        assert running.log.said("the cache is current again")
    await cluster.send("DELETE", f"{CRDS}/{name}")


class Account:
    """A ServiceAccount of the test's namespace, whose rights to each kind are given and taken by themselves."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.path = f"{RBAC}/namespaces/{cluster.namespace}"

    async def token(self):
        """Make the account; return a token of it."""
        accounts = f"/api/v1/namespaces/{self.cluster.namespace}/serviceaccounts"
        await self.cluster.send("POST", accounts, {"metadata": {"name": "operator"}})
        request = {"spec": {"expirationSeconds": 3600}}
        return (await self.cluster.send("POST", f"{accounts}/operator/token", request))["status"]["token"]

    async def give(self, *kinds):
        for kind in kinds:
            name = kind.resource_type.plural
            rule = {"apiGroups": [kind.resource_type.group], "resources": [name], "verbs": ["get", "list", "watch"]}
            with contextlib.suppress(AlreadyExists):
                await self.cluster.send("POST", f"{self.path}/roles", {"metadata": {"name": name}, "rules": [rule]})
            subject = {"kind": "ServiceAccount", "name": "operator", "namespace": self.cluster.namespace}
            role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
            binding = {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]}
            await self.cluster.send("POST", f"{self.path}/rolebindings", binding)

    async def take(self, kind):
        await self.cluster.send("DELETE", f"{self.path}/rolebindings/{kind.resource_type.plural}")

    async def until_it(self, config, kind, may):
        """Return when the server, which hears of its own rules a moment later, lets it read `kind`, or does not."""
        async with connected(config) as client:

            async def lets_it():
                try:
                    await client.list_page(kind.resource_type, namespace=self.cluster.namespace, limit=1)
                except Forbidden:
                    return False
                return True

            await answered(lets_it, lambda found: found is may)


class Doorman(Account):
    """In front of the embedded API server, which lets everybody do everything: the proxy refuses."""

    def __init__(self, cluster, proxy):
        super().__init__(cluster)
        self.proxy = proxy

    async def give(self, *kinds):
        self.proxy.forbidden -= {kind.resource_type.plural for kind in kinds}

    async def take(self, kind):
        self.proxy.forbidden.add(kind.resource_type.plural)


async def test_rights_that_are_taken_away_and_given_back(backend, cluster, monkeypatch):
    async with between(backend) as proxy:
        account = Account(cluster) if backend.name == "kube" else Doorman(cluster, proxy)
        token = await account.token()
        await account.give(ConfigMap, Secret)
        for name in ("stays", "goes"):
            await cluster.create(Secret, name, data={"n": b"0"})
        config = backend.config(proxy.url, authorization=f"Bearer {token}")
        await account.until_it(config, Secret, may=True)
        await account.until_it(config, ConfigMap, may=True)
        async with watching(cluster, monkeypatch, Secret, ConfigMap, config=config) as running:
            informer, listener = informer_of(running, Secret.resource_type), listening(running, Secret)
            before = dict(listener.known)
            await account.take(Secret)
            await account.until_it(config, Secret, may=False)
            proxy.sever()  # a watch that is open goes on, whatever became of the right to it
            proxy.mend()
            await until(lambda: "403 Forbidden" in (informer.problem or ""))
            assert "a cache needs the verbs list and watch" in informer.problem
            assert informer.problem in running.probes.readyz(verbose=True).text
            assert running.log.said("the cache is not current", "warning")
            await cluster.delete(Secret, "goes")
            await cluster.create(Secret, "new")
            await cluster.create(ConfigMap, "meanwhile")
            await until(lambda: "meanwhile" in running.passes)
            assert listener.known == before
            assert (metric(running, Secret), metric(running, ConfigMap)) == (0, 1)
            assert "new" not in running.passes
            await account.give(Secret)
            await until(lambda: "new" in running.passes)
            assert (informer.problem, metric(running, Secret)) == (None, 1)
            assert [header.name for header in listener.gone] == ["goes"]
            assert listener.wrong == []
            assert running.log.said("the cache is current again")


async def test_a_namespace_that_is_deleted_and_made_again(backend, cluster, doomed):
    """Its objects are gone, those of others are not; what is made in its namesake is seen."""
    cache, namespace, before = doomed
    await until(lambda: len(cache.gone()) == 2, 20)
    assert {header.key: header for header in cache.listener.gone} == before
    assert cache.names() == {"stays"}
    await again(cluster, namespace)
    made = await cluster.client.create(Secret(name="a", namespace=namespace))
    await cache.has("stays", "a")
    assert cache.informer.get((namespace, "a")).header.uid == made.metadata.uid
    assert cache.informer.problem is None
    assert len(cache.gone()) == 2


async def test_namespaces_that_are_added_and_removed_while_a_cache_is_at_work(backend, cluster):
    """What goes with one is told as gone once; the others notice nothing, and one that comes back is as new."""
    first, second = cluster.namespace, f"{cluster.namespace}-second"
    await cluster.client.create(Namespace(name=second))
    for namespace in (first, second):
        await cluster.client.create(Secret(name=f"of-{namespace}", namespace=namespace))
    async with between(backend) as proxy:
        async with caching(backend.config(proxy.url), Secret, namespaces=(first,)) as cache:
            await cache.has(f"of-{first}")
            informer = cache.informer
            informer.add_namespace(second)
            assert not informer.filling(first)
            assert informer.filling(second)
            async with asyncio.timeout(30):
                await informer.wait_synced()
            await cache.has(f"of-{first}", f"of-{second}")
            before = dict(cache.listener.known)
            informer.remove_namespace(second)
            await cache.has(f"of-{first}")
            assert [before[second, f"of-{second}"]] == cache.listener.gone
            await cluster.client.delete(Secret.resource_type, f"of-{second}", namespace=second)
            await cluster.client.create(Secret(name="unseen", namespace=second))
            await cluster.create(Secret, "later")
            await cache.has(f"of-{first}", "later")
            informer.add_namespace(second)
            await cache.has(f"of-{first}", "later", "unseen")
            assert len(cache.gone()) == 1
        assert len([line for line in proxy.watches() if f"/namespaces/{first}/" in line]) == 1
        assert len([line for line in proxy.watches() if f"/namespaces/{second}/" in line]) == 2
    await cluster.client.delete(Namespace.resource_type, second)


async def again(cluster, namespace):
    """Make a namespace as soon as the old one of that name is gone."""
    return await answered(lambda: cluster.client.create(Namespace(name=namespace)), but=(AlreadyExists,))
