"""What an author writes with the live client, as type checkers see it."""

# pyright: reportUnnecessaryTypeIgnoreComment=error

from typing import Any, assert_type

from asyncctl import Context
from asyncctl.client.changes import Bookmark, Change
from asyncctl.client.patch import Patch
from asyncctl.objects import ConfigMap, Unstructured

DEPLOYMENT = Unstructured("apps/v1", "Deployment")


async def add(config: ConfigMap) -> None:
    config.data["a"] = "1"


async def every_verb(ctx: Context) -> None:
    client = ctx.client
    config = await client.get(ConfigMap, "a", namespace="team")
    assert_type(config, ConfigMap)
    plain = await client.get(DEPLOYMENT, "a", namespace="team")
    assert_type(plain, dict[str, Any])
    assert_type(await client.get(ConfigMap.resource_type, "a", namespace="team"), bytes)
    assert_type([each async for each in client.list(ConfigMap, labels={"a": "b"})], list[ConfigMap])
    assert_type(await client.list(DEPLOYMENT, namespace="team", fields="metadata.name=a").all(), list[dict[str, Any]])
    async with client.watch(ConfigMap, namespace="team") as events:
        async for event in events:
            assert_type(event, Change[ConfigMap] | Bookmark)
            if event.type != "BOOKMARK":
                assert_type(event.object, ConfigMap)
    assert_type(await client.create(config, dry_run=True, field_validation="Warn"), ConfigMap)
    assert_type(await client.create(plain, DEPLOYMENT), dict[str, Any])
    assert_type(await client.replace(config, subresource="status"), ConfigMap)
    assert_type(await client.apply(plain, DEPLOYMENT, force=True, field_manager="me"), dict[str, Any])
    assert_type(await client.patch(ConfigMap, "a", [], patch=Patch.JSON, namespace="team"), ConfigMap)
    assert_type(await client.update_with_retry(ConfigMap, "a", add, namespace="team"), ConfigMap)
    assert_type(await client.update_with_retry(ConfigMap, "a", lambda one: one.data.pop("a")), ConfigMap)
    assert_type(await client.update_with_retry(DEPLOYMENT, "a", lambda one: one.clear()), dict[str, Any])
    assert_type(await client.delete(ConfigMap, "a", namespace="team", propagation="Foreground"), bool)
    assert_type(await client.delete_all(ConfigMap, namespace="team", labels="a=b"), list[ConfigMap])
    await client.create(plain)  # type: ignore[call-overload]
    await client.create(config, dry_rum=True)  # type: ignore[call-overload]
    await client.create(config, field_validation="Lax")  # type: ignore[call-overload]
    await client.delete(ConfigMap, "a", propagation="foreground")  # type: ignore[arg-type]
