import string
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum, StrEnum
from typing import Annotated, Any

import orjson
import pytest
from hypothesis import given, strategies as st

from asyncctl.objects import (
    Condition,
    ConfigMap,
    DecodeError,
    IntOrString,
    JsonObject,
    Meta,
    ObjectMeta,
    OwnerReference,
    Quantity,
    Resource,
    Secret,
    Spec,
    Status,
    Unstructured,
    decode,
    dump,
    encode,
    field,
    from_dict,
    to_dict,
)


class Color(StrEnum):
    RED = "Red"
    BLUE = "Blue"


class Level(Enum):
    LOW = 1
    HIGH = 2


class Part(Spec):
    part_name: str
    port: IntOrString = 80


class EverySpec(Spec):
    size: Annotated[int, Meta(ge=1, le=10)] = 1
    ratio: float = 0.5
    on: bool = False
    title: str | None = None
    color: Color = Color.RED
    level: Level = Level.LOW
    amount: Quantity | None = None
    at: datetime | None = None
    blob: bytes = b""
    cluster_ip: str | None = field(name="clusterIP", default=None)
    tags: set[str] = field(default_factory=set)
    parts: list[Part] = field(default_factory=list)
    amounts: dict[str, Quantity] = field(default_factory=dict)
    extra: JsonObject = field(default_factory=dict)
    anything: Any = None


class Every(Resource, group="example.com", version="v1"):
    spec: EverySpec = field(default_factory=EverySpec)
    status: Status = field(default_factory=Status)


def wire(**spec):
    return orjson.dumps({"metadata": {"name": "a", "namespace": "team"}, "spec": spec})


def test_names_are_camel_case_on_the_wire():
    spec = EverySpec(cluster_ip="10.0.0.1", parts=[Part(part_name="p")])
    written = to_dict(Every(name="a", spec=spec))["spec"]
    assert written["clusterIP"] == "10.0.0.1"
    assert written["parts"] == [{"partName": "p", "port": 80}]


def test_only_none_is_left_out():
    assert to_dict(EverySpec()) == {
        "size": 1,
        "ratio": 0.5,
        "on": False,
        "color": "Red",
        "level": 1,
        "blob": "",
        "tags": [],
        "parts": [],
        "amounts": {},
        "extra": {},
    }


def test_a_null_that_an_author_put_into_a_dict_stays():
    assert to_dict(EverySpec(extra={"off": None}))["extra"] == {"off": None}


def test_an_object_says_what_it_is():
    assert to_dict(Every(name="a")) == {
        "apiVersion": "example.com/v1",
        "kind": "Every",
        "metadata": {"name": "a"},
        "spec": to_dict(EverySpec()),
        "status": {"conditions": []},
    }


def test_types_of_kubernetes_leave_out_what_is_empty():
    assert to_dict(ConfigMap(name="c")) == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    assert to_dict(ConfigMap(name="c", data={"a": ""}, immutable=False)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c"},
        "data": {"a": ""},
        "immutable": False,
    }


def test_bytes_are_base64_on_the_wire():
    secret = Secret(name="s", data={"password": b"\xff\x00"})
    assert to_dict(secret)["data"] == {"password": "/wA="}
    assert decode(Secret, encode(secret)).data == {"password": b"\xff\x00"}


def test_a_time_goes_out_in_utc():
    noon = datetime(2026, 1, 2, 12, tzinfo=timezone(timedelta(hours=2)))
    assert to_dict(EverySpec(at=noon))["at"] == "2026-01-02T10:00:00Z"


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(TypeError, match="2026-01-02T12:00:00 has no zone"):
        encode(EverySpec(at=datetime(2026, 1, 2, 12)))  # noqa: DTZ001


def test_what_has_no_form_in_json_is_refused():
    with pytest.raises(TypeError, match="a complex can't be written as JSON"):
        encode(EverySpec(anything=1j))


def test_a_base_class_can_not_be_written():
    with pytest.raises(TypeError, match="is no kind"):
        encode(Resource(name="x"))


def test_metadata_of_a_server_is_read():
    found = decode(
        ConfigMap,
        b"""{"metadata": {"name": "c", "namespace": "team", "uid": "u", "resourceVersion": "7", "generation": 2,
        "creationTimestamp": "2026-01-02T03:04:05Z", "deletionTimestamp": null, "finalizers": ["example.com/f"],
        "managedFields": [{"manager": "m"}],
        "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "o", "controller": true}]}}""",
    ).metadata
    assert found == ObjectMeta(
        name="c",
        namespace="team",
        uid="u",
        resource_version="7",
        generation=2,
        creation_timestamp=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        finalizers=["example.com/f"],
        owner_references=[OwnerReference(api_version="v1", kind="K", name="n", uid="o", controller=True)],
    )


def test_fields_that_the_class_does_not_know_are_ignored():
    assert decode(Every, wire(size=2, new="x")).spec == EverySpec(size=2)


def test_a_kind_without_a_class_is_a_plain_dict():
    deployment = Unstructured("apps/v1", "Deployment")
    assert decode(deployment, b'{"spec": {"replicas": 1}}') == {"spec": {"replicas": 1}}
    assert from_dict(deployment, {"spec": None}) == {"spec": None}


# The spec that does not fit, and what is said of it after "Every team/a: ".
MISFITS = [
    ({"size": "3"}, 'spec.size: expected int, got str "3"'),
    ({"size": 1.5}, "spec.size: expected int, got float 1.5"),
    ({"size": True}, "spec.size: expected int, got bool true"),
    ({"size": None}, "spec.size: expected int, got null"),
    ({"size": {"a": 1}}, "spec.size: expected int, got object"),
    ({"size": 11}, "spec.size: expected int <= 10, got 11"),
    ({"color": "Green"}, "spec.color: invalid enum value 'Green'"),
    ({"level": 3}, "spec.level: invalid enum value 3"),
    ({"title": 1}, "spec.title: expected str | null, got int 1"),
    ({"clusterIP": 1}, "spec.clusterIP: expected str | null, got int 1"),
    ({"at": "noon"}, 'spec.at: invalid RFC3339 encoded datetime, got "noon"'),
    ({"blob": "%%%"}, 'spec.blob: invalid base64 encoded string, got "%%%"'),
    ({"amount": "ten"}, "spec.amount: 'ten' is not a quantity such as 10Gi, 500m or 2"),
    ({"amount": []}, "spec.amount: expected a quantity, got array"),
    (
        {"amounts": {"cpu": 1, "a.b/c": "x", "m": "y"}},
        "spec.amounts[a.b/c]: 'x' is not a quantity such as 10Gi, 500m or 2",
    ),
    ({"parts": [{"partName": "p"}, {"port": 1}]}, "spec.parts[1].partName: missing, but required"),
    ({"parts": [{"partName": "p", "port": 1.5}]}, "spec.parts[0].port: expected int | str, got float 1.5"),
    ({"title": ["x" * 200]}, "spec.title: expected str | null, got array"),
    ({"size": "x" * 200}, f'spec.size: expected int, got str "{"x" * 76}...'),
]


@pytest.mark.parametrize(("spec", "said"), MISFITS, ids=[said[:40] for _, said in MISFITS])
def test_what_does_not_fit_is_told_by_object_field_and_value(spec, said):
    with pytest.raises(DecodeError) as caught:
        decode(Every, wire(**spec))
    assert str(caught.value) == f"Every team/a: {said}"


@pytest.mark.parametrize(("spec", "said"), MISFITS, ids=[said[:40] for _, said in MISFITS])
def test_a_dict_is_read_as_strictly_as_bytes(spec, said):
    with pytest.raises(DecodeError) as caught:
        from_dict(Every, orjson.loads(wire(**spec)))
    assert str(caught.value) == f"Every team/a: {said}"


def test_an_error_can_be_read_by_a_program():
    with pytest.raises(DecodeError) as caught:
        decode(Every, wire(parts=[{"partName": 1}]))
    error = caught.value
    assert (error.kind, error.namespace, error.name) == ("Every", "team", "a")
    assert (error.path, error.reason) == ("spec.parts[0].partName", "expected str, got int 1")


@pytest.mark.parametrize(
    "data, said",
    [
        (b"{", "Every: not JSON: "),
        (b"", "Every: not JSON: "),
        (b'{"spec": "\xff"}', "Every: not JSON: "),
        (b"[]", "Every: expected object, got array"),
        (b'"x"', "Every: expected object, got str"),
        (b'{"metadata": []}', "Every: metadata: expected object, got array"),
        (b'{"metadata": {"name": 1}}', "Every 1: metadata.name: expected str, got int 1"),
        (
            b'{"metadata": {"name": "c", "labels": {"a": "b", "x": 1}}}',
            "Every c: metadata.labels.x: expected str, got int 1",
        ),
    ],
)
def test_what_is_no_object_is_told_all_the_same(data, said):
    with pytest.raises(DecodeError) as caught:
        decode(Every, data)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("data", [b"[]", b"{", b'"x"'])
def test_a_plain_dict_must_be_one(data):
    with pytest.raises(DecodeError, match=r"^Deployment: "):
        decode(Unstructured("apps/v1", "Deployment"), data)


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"data": {"ok": "aHVudGVyMg==", "password": "hunter2!"}}, "data.password: invalid value"),
        ({"data": {"password": 4711}}, "data.password: expected bytes, got int"),
        ({"type": ["hunter2"]}, "type: expected str, got array"),
        ({"immutable": "hunter2"}, "immutable: expected bool | null, got str"),
    ],
)
def test_no_error_shows_a_value_of_a_secret(fields, said):
    with pytest.raises(DecodeError) as caught:
        decode(Secret, orjson.dumps({"metadata": {"name": "s", "namespace": "team"}, **fields}))
    assert str(caught.value) == f"Secret team/s: {said}"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
WORD = st.text(string.ascii_letters, min_size=1, max_size=8)
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
INTS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
QUANTITIES = st.builds(Quantity, st.one_of(INTS, st.sampled_from(["1Gi", "500m", "1e3", "-2", "0.5"])))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), INTS, FLOATS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)
CONDITIONS = st.builds(
    Condition,
    type=WORD,
    status=st.sampled_from(["True", "False", "Unknown"]),
    reason=WORD,
    message=TEXT,
    observed_generation=st.none() | st.integers(0, 9),
    last_transition_time=st.none() | TIMES,
)
METADATA = st.builds(
    ObjectMeta,
    name=TEXT,
    namespace=TEXT,
    uid=TEXT,
    resource_version=TEXT,
    generation=st.integers(0, 2**62),
    creation_timestamp=st.none() | TIMES,
    deletion_timestamp=st.none() | TIMES,
    labels=st.dictionaries(TEXT, TEXT, max_size=3),
    annotations=st.dictionaries(TEXT, TEXT, max_size=3),
    finalizers=st.lists(TEXT, max_size=2),
    owner_references=st.lists(
        st.builds(
            OwnerReference, api_version=TEXT, kind=TEXT, name=TEXT, uid=TEXT, controller=st.none() | st.booleans()
        ),
        max_size=2,
    ),
)
SPECS = st.builds(
    EverySpec,
    size=st.integers(1, 10),
    ratio=FLOATS,
    on=st.booleans(),
    title=st.none() | TEXT,
    color=st.sampled_from(Color),
    level=st.sampled_from(Level),
    amount=st.none() | QUANTITIES,
    at=st.none() | TIMES,
    blob=st.binary(max_size=8),
    cluster_ip=st.none() | TEXT,
    tags=st.sets(TEXT, max_size=3),
    parts=st.lists(st.builds(Part, part_name=TEXT, port=st.one_of(INTS, TEXT)), max_size=3),
    amounts=st.dictionaries(TEXT, QUANTITIES, max_size=3),
    extra=st.dictionaries(TEXT, JSON, max_size=3),
    anything=JSON,
)
OBJECTS = st.builds(
    Every,
    metadata=METADATA,
    spec=SPECS,
    status=st.builds(
        Status, observed_generation=st.none() | st.integers(0, 9), condition_list=st.lists(CONDITIONS, max_size=3)
    ),
)


@given(OBJECTS)
def test_what_was_written_is_read_back(every):
    assert decode(Every, encode(every)) == every
    assert from_dict(Every, to_dict(every)) == every


@given(OBJECTS)
def test_what_was_read_is_written_the_same(every):
    once = encode(every)
    assert encode(decode(Every, once)) == once


@given(st.builds(Secret, metadata=METADATA, data=st.dictionaries(WORD, st.binary(max_size=8), max_size=3)))
def test_a_secret_is_read_back(secret):
    assert decode(Secret, encode(secret)) == secret


@given(
    st.recursive(JSON, lambda inner: st.dictionaries(st.sampled_from(["metadata", "spec", "size", "labels"]), inner))
)
def test_any_json_is_an_object_or_a_decode_error(value):
    with suppress(DecodeError):
        assert isinstance(decode(Every, orjson.dumps(value)), Every)


# What a careless or hostile sender might write.

ANY = Unstructured("example.com/v1", "Every")


@pytest.mark.parametrize(
    "spec, text",
    [
        ({"size": "3"}, r'spec\.size: expected int, got str "3"'),
        ({"size": 3.0}, r"spec\.size: expected int, got float 3\.0"),
        ({"title": 3}, r"spec\.title: expected str \| null, got int 3"),
        ({"on": "true"}, r'spec\.on: expected bool, got str "true"'),
        ({"on": 1}, r"spec\.on: expected bool, got int 1"),
        ({"parts": [{"partName": "a", "port": 1.5}]}, r"spec\.parts\[0\]\.port: expected int \| str, got float 1\.5"),
        ({"amount": []}, r"spec\.amount: expected a quantity, got array"),
    ],
)
def test_nothing_is_turned_into_the_type_that_is_wanted(spec, text):
    with pytest.raises(DecodeError, match=f"^Every team/a: {text}$"):
        decode(Every, wire(**spec))
    assert decode(ANY, wire(**spec))["spec"] == spec


@pytest.mark.parametrize("number", [2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**53) - 1, -(2**63)])
def test_an_integer_keeps_every_digit_both_ways(number):
    body = b'{"metadata":{},"spec":{"anything":%d,"extra":{"n":[%d]}}}' % (number, number)
    for written in (encode(decode(Every, body)), dump(decode(ANY, body))):
        assert written.count(b"%d" % number) == 2


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30])
def test_an_integer_of_more_than_64_bits_is_read_as_it_is_and_not_written(number):
    body = b'{"spec":{"extra":{"n":[0,%d]}}}' % number
    assert decode(Every, body).spec.extra == decode(ANY, body)["spec"]["extra"] == {"n": [0, number]}
    with pytest.raises(TypeError, match=rf"^spec\.extra\.n\[1\]: the integer {number} has more than 64 bits"):
        encode(decode(Every, body))
    with pytest.raises(TypeError, match=rf"^spec\.extra\.n\[1\]: the integer {number} has more than 64 bits"):
        dump(decode(ANY, body))


@pytest.mark.parametrize(
    "value, text",
    [
        (float("nan"), "nan can't be written"),
        (float("inf"), "inf can't be written"),
        (float("-inf"), "-inf can't be written"),
        ("\ud800", "a string with a lone surrogate"),
        ({1: 2}, "a key has to be a string, not 1"),
        (1j, "a complex can't be written"),
    ],
)
def test_what_json_can_not_say_is_refused_and_never_changed(value, text):
    with pytest.raises(TypeError, match=rf"^a\.b\[1\]: {text}"):
        dump({"a": {"b": [None, value]}})
    assert dump({"a": None, "null": 1.5}) == b'{"a":null,"null":1.5}'


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"0x1", b"01", b"1" * 5000])
def test_what_is_no_number_is_no_json(number):
    with pytest.raises(DecodeError, match=r"^Every: not JSON: "):
        decode(ANY, b'{"a":' + number + b"}")
    with pytest.raises(DecodeError):
        decode(Every, b'{"spec":{"ratio":' + number + b"}}")


def test_of_a_key_that_is_there_twice_the_last_counts_for_both():
    """As for Go, so that we see what the API server sees. Files that people write are held to more,."""
    body = b'{"metadata":{"name":"a","name":"b"},"spec":{"size":1,"size":2,"extra":{"a":1,"a":2}}}'
    typed, plain = decode(Every, body), decode(ANY, body)
    assert (typed.name, typed.spec.size, typed.spec.extra) == ("b", 2, {"a": 2})
    assert plain == {"metadata": {"name": "b"}, "spec": {"size": 2, "extra": {"a": 2}}}


@pytest.mark.parametrize("levels", [10_000, 1_000_000])
@pytest.mark.parametrize("start, end", [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("field", [b"anything", b"unknown"])
def test_what_is_nested_too_deeply_is_an_error_and_no_crash(levels, start, end, field):
    inside = start * levels + (b"1" if start != b"[" else b"") + end * levels
    body = b'{"metadata":{"name":"a"},"spec":{"' + field + b'":' + inside + b"}}"
    for kind in (Every, ANY):
        with pytest.raises(DecodeError, match=r"^Every: nested too deeply$"):
            decode(kind, body)


@pytest.mark.parametrize("levels", [300, 100_000])
def test_what_is_nested_too_deeply_is_not_written(levels):
    value = []
    for _ in range(levels):
        value = [value]
    for write in (lambda: dump({"a": value}), lambda: encode(Every(spec=EverySpec(anything=value)))):
        with pytest.raises(TypeError, match="nested too deeply"):
            write()


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"\xff", b"\xef\xbb\xbf{}", b'{"metadata":{"name":"\xff"}}', b'{"metadata":{"name":"\\ud800"}}',
     b"{", b"{}x", b"{'a':1}", b'{"a":"\x00"}', b"null", b"[]", b'"x"', b"1"],
)  # fmt: skip
def test_what_is_no_object_is_a_decode_error_for_both(body):
    for kind in (Every, ANY):
        with pytest.raises(DecodeError):
            decode(kind, body)


def test_a_nul_and_three_megabytes_are_no_trouble():
    text = "\x00" + "x" * (3 * 2**20)
    body = encode(Every(name="a", spec=EverySpec(title=text)))
    assert decode(Every, body).spec.title == decode(ANY, body)["spec"]["title"] == text
