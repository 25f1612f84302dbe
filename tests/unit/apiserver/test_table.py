from datetime import UTC, datetime, timedelta

import pytest

from asyncctl.apiserver import jsonpath
from asyncctl.apiserver.errors import ApiError
from asyncctl.apiserver.printers import age, human_duration
from asyncctl.apiserver.resources import builtins, from_crd
from asyncctl.apiserver.table import partial_metadata, table
from tests.unit.apiserver.golden import cases, definition, kind_at

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
THING = from_crd(definition())[0]
OBJECT = {"metadata": {"name": "a", "resourceVersion": "7", "creationTimestamp": "2026-01-02T03:04:00Z"}, "spec": {}}


def without_descriptions(columns):
    return [{**column, "description": ""} for column in columns]


@pytest.mark.parametrize("case", cases("tables"), ids=lambda case: case["path"])
def test_a_table_is_the_one_of_the_real_server(case):
    kind, objects, want = kind_at(case["path"]), case["objects"], case["table"]
    now = datetime.fromtimestamp(case["now"], UTC)
    if "items" in objects:
        made = table(kind, objects["items"], "", now, meta=objects["metadata"])
    else:
        made = table(kind, [objects], "None", now)
    if not kind.custom:
        # Descriptions of built-in columns are not kept.
        assert without_descriptions(made["columnDefinitions"]) == without_descriptions(want["columnDefinitions"])
        made["columnDefinitions"] = want["columnDefinitions"]
    assert made == want


def test_rows_carry_what_was_asked_for():
    carried = {each: table(THING, [OBJECT], each, NOW)["rows"][0]["object"] for each in ("", "Object", "None")}
    assert carried == {"": partial_metadata(OBJECT), "Object": OBJECT, "None": None}
    with pytest.raises(ApiError, match="Unable to convert to Table as requested: includeObject"):
        table(THING, [OBJECT], "Foo", NOW)


def test_a_table_of_one_object_has_its_version():
    assert table(THING, [OBJECT], "", NOW)["metadata"] == {"resourceVersion": "7"}


def test_later_events_of_a_watch_have_no_columns():
    assert table(THING, [OBJECT], "", NOW, headers=False)["columnDefinitions"] is None


def test_a_custom_kind_without_columns_shows_its_age():
    crd = definition()
    del crd["spec"]["versions"][0]["additionalPrinterColumns"]
    made = table(from_crd(crd)[0], [OBJECT], "None", NOW)
    assert [column["name"] for column in made["columnDefinitions"]] == ["Name", "Age"]
    assert made["rows"][0]["cells"] == ["a", "5s"]


def test_every_built_in_row_has_a_cell_for_each_column():
    for kind in builtins():
        made = table(kind, [OBJECT], "None", NOW)
        assert len(made["rows"][0]["cells"]) == len(made["columnDefinitions"]), kind.resource


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-2, "<invalid>"),
        (-1, "0s"),
        (119, "119s"),
        (120, "2m"),
        (123, "2m3s"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (5 * 3600 + 60, "5h1m"),
        (8 * 3600, "8h"),
        (48 * 3600 - 1, "47h"),
        (76 * 3600, "3d4h"),
        (8 * 86400, "8d"),
        (2 * 365 * 86400 - 1, "729d"),
        (2 * 365 * 86400 + 86400, "2y1d"),
        (9 * 365 * 86400, "9y"),
    ],
)
def test_durations_are_written_as_kubectl_writes_them(seconds, text):
    assert human_duration(seconds) == text


def test_ages_know_offsets_and_nonsense():
    assert age("2026-01-02T04:04:00+01:00", NOW) == "5s"
    assert age(None, NOW) == "<unknown>"
    assert age("yesterday", NOW) == "<invalid>"
    assert age("2026-01-02T03:04:05.5Z", NOW + timedelta(seconds=1)) == "0s"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a.b", [1]),
        (".a['b']", [1]),
        (".a\\.b/c", ["dotted"]),
        (".list[0].n", ["x"]),
        (".list[-1].n", ["y"]),
        (".list[*].n", ["x", "y"]),
        (".list[0:1].n", ["x"]),
        ('.list[?(@.n=="y")].v', [2]),
        (".list[?(@.v>1)].n", ["y"]),
        (".list[?(@.missing)].n", []),
        (".nope.b", []),
        (".a.*", [1]),
        ("", [{"a": {"b": 1}, "a.b/c": "dotted", "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}]}]),
    ],
)
def test_jsonpath(path, found):
    value = {"a": {"b": 1}, "a.b/c": "dotted", "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}]}
    assert jsonpath.find(path, value) == found


@pytest.mark.parametrize("path", ["..a", ".a[", ".a[?(@.b=~1)]", "a"])
def test_what_is_no_jsonpath_is_said(path):
    with pytest.raises(jsonpath.JsonPathError):
        jsonpath.find(path, {})
