"""What an author writes about a controller, as type checkers see it."""

# pyright: reportUnnecessaryTypeIgnoreComment=error

from typing import Annotated, assert_type

from asyncctl import Checking, Context, Meta, Operator, Requeue, Resource, Spec
from asyncctl.objects import ConfigMap


class WidgetSpec(Spec):
    size: Annotated[int, Meta(ge=1, le=10)] = 1


class Widget(Resource, group="example.com", version="v1"):
    spec: WidgetSpec


operator = Operator("widgets")


@operator.controller(Widget, owns=[ConfigMap])
async def reconcile(ctx: Context, widget: Widget) -> Requeue | None:
    assert_type(widget.spec.size, int)
    await ctx.apply(ConfigMap(name=widget.name, data={"size": str(widget.spec.size)}))
    return None


@reconcile.finalizer("example.com/widgets")
async def clean_up(ctx: Context, widget: Widget) -> None: ...


operator.needs(ConfigMap, "delete", names=["old"], when=lambda settings: settings.leader_election)


@operator.check("mail server")
async def look(checking: Checking) -> None:
    found = await checking.client.get(ConfigMap, "mail", namespace="team")
    assert_type(found.data, dict[str, str])
    checking.ok("it answers", part="smtp", port=25)


if __name__ == "__main__":
    operator.run()
