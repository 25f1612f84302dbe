"""What a pass reads and writes, as type checkers see it."""

# pyright: reportUnnecessaryTypeIgnoreComment=error

from collections.abc import Iterator
from typing import Any, assert_type

from asyncctl import Context, Unstructured
from asyncctl.objects import ConfigMap, Secret

DEPLOYMENT = Unstructured("apps/v1", "Deployment")


async def reconcile(ctx: Context, config: ConfigMap) -> None:
    assert_type(ctx.get(Secret, "s"), Secret | None)
    assert_type(ctx.get(DEPLOYMENT, "d"), dict[str, Any] | None)
    assert_type(await ctx.find(Secret, "s"), Secret | None)
    assert_type(await ctx.find(DEPLOYMENT, "d", namespace="team"), dict[str, Any] | None)
    assert_type(ctx.list(Secret, owner=True, labels={"a": "b"}), Iterator[Secret])
    assert_type(ctx.list(Secret, owner=config, namespace="team"), Iterator[Secret])
    assert_type(ctx.list(DEPLOYMENT, owner=config.uid, index=("image", "x")), Iterator[dict[str, Any]])
    ctx.list(Secret, owner=False)  # type: ignore[call-overload]

    made = await ctx.apply(Secret(name="s"), adopt=True)
    assert_type(made, Secret)
    deployment = await ctx.apply({"metadata": {"name": "d"}}, DEPLOYMENT, owned=False)
    assert_type(deployment, dict[str, Any])
    await ctx.apply({"metadata": {"name": "d"}})  # type: ignore[call-overload]
    await ctx.apply({"metadata": {"name": "d"}}, Secret)  # type: ignore[call-overload]

    assert_type(await ctx.prune(Secret, keep=[made, "t"]), list[Secret])
    assert_type(await ctx.prune(DEPLOYMENT, keep=[deployment]), list[dict[str, Any]])
    await ctx.release(made)
    await ctx.release(deployment, DEPLOYMENT)
    await ctx.delete(made)
    await ctx.delete(deployment, DEPLOYMENT)
    await ctx.delete(deployment)  # type: ignore[call-overload]
    assert_type(ctx.owns(deployment), bool)
