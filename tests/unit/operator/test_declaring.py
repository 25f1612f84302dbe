"""What a hurried author declares wrongly, and what he is told: at once, in whose name, and what to write instead."""

from datetime import timedelta

import pytest

from asyncctl import (
    Operator,
    Requeue,
    Settings,
    Unstructured,
    Watch,
    generation_changed,
    labels_changed,
)
from asyncctl.objects import ConfigMap, Secret
from tests.unit.harness import Widget


async def reconcile(ctx, widget):
    pass


async def without_context(widget):
    pass


async def generator(ctx, widget):
    yield


class Reconciler:
    async def reconcile(self, ctx, widget):
        pass


class Misspelt:
    async def reconcil(self, ctx, widget):
        pass


def controller(given=reconcile, kind=Widget, **options):
    return Operator("test").controller(kind, **options)(given)


WRONG = {
    # of a controller
    "no kind": (lambda: Operator("test").controller(reconcile), r"is no kind: declare it as class X\(Resource"),
    "an object": (lambda: controller(kind=Widget(name="w")), "an object of it was given; give its class, Widget"),
    "no list": (lambda: controller(owns=ConfigMap), r"'widgets': owns= takes a list of kinds; write owns=\[…\]"),
    "a Watch, no list": (lambda: controller(reads=Watch(Secret)), r"reads= takes a list of kinds; write reads=\[…\]"),
    "seconds": (lambda: controller(timeout=30), r"'widgets': timeout=30 is no timedelta; write timedelta\(seconds=…\)"),
    "text": (lambda: controller(resync="10h"), "resync='10h' is no timedelta"),
    "workers": (lambda: controller(workers="3"), "'widgets': workers='3' is no number to work with"),
    "rate": (lambda: controller(rate="3"), "'widgets': rate='3' is no number to work with"),
    "a class": (lambda: controller(Reconciler), r"'widgets': Reconciler is a class; give an object of it: R"),
    "another method": (lambda: controller(Misspelt()), "'widgets': Misspelt has no coroutine method `reconcile`"),
    "arguments": (lambda: controller(without_context), r"without_context is called with \(ctx, object\): too many pos"),
    "generator": (lambda: controller(generator), "generator yields, and is called once and awaited"),
    "bare finalizer": (lambda: controller().finalizer(reconcile), r"write @reconcile.finalizer\(.example"),
    "finalizer": (lambda: controller().finalizer("example.com/w")(without_context), r"is called with \(ctx, object\)"),
    # of what wakes it
    "or": (lambda: generation_changed or labels_changed, r"predicates are composed with \|, & and ~, not with `or`"),
    "not": (lambda: controller(when=not generation_changed), r"predicates are composed with \|, & and ~"),
    "async mapper": (lambda: Watch(Secret, to=reconcile), "to is asked in passing and can't wait; write a plain"),
    "class as mapper": (lambda: Watch(Secret, to=Widget), "Watch of v1 Secret: to is the class Widget, and no"),
    "list of labels": (lambda: Watch(Secret, labels=["a"]), r"\['a'\] is no selector: give a map"),
    # around it
    "settings": (lambda: Operator("test", settings=Settings()), "settings= takes a class of settings"),
    "hook": (lambda: Operator("test").on_startup(reconcile), r"on_startup: reconcile is called with \(running\)"),
    "ready check": (lambda: Operator("test").ready_check("mail", "ok"), "ready check 'mail': 'ok' is no function"),
    "bare check": (lambda: Operator("test").check(reconcile), r"write @operator.check\('mail server'\)"),
    "list of verbs": (lambda: Operator("test").needs(Secret, ["get"]), r"\['get'\] is no verb; write needs"),
    # in a pass
    "time as text": (lambda: Requeue(after="5m"), r"Requeue\(after='5m'\): give a timedelta, or seconds as a number"),
}  # fmt: skip


@pytest.mark.parametrize("declare, said", WRONG.values(), ids=WRONG)
def test_what_is_of_the_wrong_type_is_refused_in_words(declare, said):
    with pytest.raises(TypeError, match=said):
        declare()


@pytest.mark.parametrize(
    "declare, said",
    [
        (lambda: Operator(None), "operator None: a name of lower-case letters"),
        (lambda: Unstructured("Deployment", "apps/v1"), "say first the apiVersion, such as 'apps/v1', then the kind"),
        (lambda: Requeue(after=float("nan")), "never comes; return None where there is nothing to wait for"),
    ],
    ids=["no name", "swapped", "never"],
)
def test_what_can_not_be_meant_is_refused_in_words(declare, said):
    with pytest.raises(ValueError, match=said):
        declare()


def test_a_time_that_is_past_is_now():
    assert Requeue(after=timedelta(seconds=-5)).seconds == -5.0
