"""Which changes matter: each predicate alone, composed, and the default of a primary kind."""

import itertools

import orjson
import pytest

from asyncctl import annotations_changed, any_change, generation_changed, labels_changed
from asyncctl.cache.header import read_entry
from asyncctl.controller.sources import Predicate, default_predicate
from asyncctl.objects import ConfigMap
from tests.unit.harness import Widget

OURS, THEIRS = "example.com/ours", "example.com/theirs"
_versions = itertools.count(1)


def header(**metadata):
    known = {"name": "a", "namespace": "team", "uid": "a", "generation": 1, "resourceVersion": str(next(_versions))}
    return read_entry(orjson.dumps({"metadata": known | metadata})).header


CHANGES = {
    "spec": ({}, {"generation": 2}),
    "labels": ({"labels": {"a": "1"}}, {"labels": {"a": "2"}}),
    "annotations": ({"annotations": {"a": "1"}}, {"annotations": {"a": "2"}}),
    "status": ({}, {}),
    "their finalizer put on": ({}, {"finalizers": [THEIRS]}),
    "their finalizer taken off": ({"finalizers": [THEIRS]}, {}),
    "our finalizer put on": ({}, {"finalizers": [OURS]}),
    "our finalizer taken off": ({"finalizers": [OURS]}, {}),
    "deletion": ({"finalizers": [OURS]}, {"finalizers": [OURS], "deletionTimestamp": "2026-01-01T00:00:00Z"}),
}


def matters(predicate):
    """The changes that do."""
    return {name for name, (old, new) in CHANGES.items() if predicate(header(**old), header(**new))}


@pytest.mark.parametrize(
    "predicate, expected",
    [
        (generation_changed, {"spec"}),
        (labels_changed, {"labels"}),
        (annotations_changed, {"annotations"}),
        (any_change, {*CHANGES}),
        (generation_changed | labels_changed, {"spec", "labels"}),
        (any_change & labels_changed, {"labels"}),
        (generation_changed & labels_changed, set()),
        (~annotations_changed, {*CHANGES} - {"annotations"}),
        (any_change & ~(labels_changed | annotations_changed), {*CHANGES} - {"labels", "annotations"}),
        (default_predicate(Widget.resource_type, {OURS}), {*CHANGES} - {"status", "our finalizer put on"}),
        (default_predicate(ConfigMap.resource_type), {*CHANGES}),
    ],
)
def test_what_matters(predicate, expected):
    assert matters(predicate) == expected


@pytest.mark.parametrize("predicate", [generation_changed, ~any_change, labels_changed & ~labels_changed])
def test_what_comes_and_goes_always_matters(predicate):
    assert predicate(None, header())
    assert predicate(header(), None)


def test_an_authors_own_is_composed_like_the_others():
    grown = Predicate(lambda old, new: new.generation > old.generation)
    assert matters(grown & ~labels_changed) == {"spec"}
