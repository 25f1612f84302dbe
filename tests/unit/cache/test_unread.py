"""An object that can't be read is told of, keeps its last known state, and hides no other."""

import msgspec
import orjson
import pytest
from aiohttp import web
from hypothesis import given, strategies as st

from asyncctl.cache.event import NoEvent, read_any_event, read_event
from asyncctl.cache.unread import identify, split_event, split_page
from tests.unit.cache.scripted import EXPIRED, HANG, Api, Watch, bookmark, event, item, page, reflecting
from tests.unit.support import until

DEEP = b"[" * 5000 + b"]" * 5000
END = {"k8s.io/initial-events-end": "true"}


def whole(**metadata):
    return orjson.dumps({"metadata": item("bad", 10)["metadata"] | metadata})


BAD = {
    "no number as its version": whole(resourceVersion="x10"),
    "labels that are no texts": whole(labels={"a": 1}),
    "a generation that is no number": whole(generation="1"),
    "nested too deeply": whole()[:-1] + b',"spec":' + DEEP + b"}",
}


def line(kind, raw):
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), raw)


def listed(version, *raws):
    body = b'{"metadata":{"resourceVersion":"%d"},"items":[%s]}' % (version, b",".join(raws))
    return lambda: web.Response(body=body)


def raw(*args):
    return orjson.dumps(item(*args))


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("form", ["page", "stream", "watch"])
async def test_one_that_cannot_be_read_is_named_and_the_others_are_there(bad, form):
    good = [raw("a", 1), raw("z", 2)]
    api = {
        "page": lambda: Api(lists=[listed(9, good[0], bad, good[1])]),
        "stream": lambda: Api(
            streams=[
                Watch(line("ADDED", good[0]) + line("ADDED", bad), line("ADDED", good[1]) + bookmark(9, END), HANG)
            ]
        ),
        "watch": lambda: Api(
            lists=[page(8)],
            watches=[Watch(line("ADDED", raw("a", 9)), line("ADDED", bad) + line("ADDED", raw("z", 11)), HANG)],
        ),
    }[form]()
    async with reflecting(api) as running:
        await running.names("a", "z")
        await running.informer.wait_synced()
        assert running.informer.problem is None
        (told,) = running.log.said("an object can't be read", "warning")
        assert told["object"] == "team/bad"
        assert told["cause"]


async def test_one_without_a_name_is_told_of_all_the_same():
    api = Api(lists=[listed(9, raw("a", 1), b'{"metadata":{"name":7}}', b"7", raw("z", 2))])
    async with reflecting(api) as running:
        await running.names("a", "z")
        (told,) = running.log.said("an object can't be read")
        assert told["object"] == "one whose name can't be made out"


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_its_last_known_state_is_kept_until_it_can_be_read_or_is_gone(bad):
    relisted = Watch(line("ADDED", bad) + bookmark(20, END) + line("DELETED", bad), event("ADDED", item("c", 22)), HANG)
    api = Api(
        streams=[
            Watch(event("ADDED", item("bad", 1)) + bookmark(9, END), line("MODIFIED", bad), bookmark(11)),
            relisted,
        ],
        watches=[Watch(event("ERROR", EXPIRED))],
    )
    async with reflecting(api) as running:
        await running.names("c")
        assert running.heard == [("add", "bad", 1), ("delete", "bad", 1), ("add", "c", 22)]
        assert running.heard.initial == [True, False, False], "the list took nothing away"


@pytest.mark.parametrize("form", ["changed", "gone", "made anew", "listed anew"])
async def test_what_is_known_last_is_what_the_list_itself_has_shown(form):
    """A stream tells changes too, before the bookmark that ends its list."""
    good, bad = event("ADDED", item("bad", 10)), BAD["labels that are no texts"]
    anew = whole(labels={"a": 1}, uid="another")
    then = {
        "changed": good + line("MODIFIED", bad),
        "gone": good + line("DELETED", bad),
        "made anew": good + line("DELETED", whole()) + line("ADDED", anew),
        "listed anew": line("ADDED", anew),
    }[form]
    streams = [
        Watch(event("ADDED", item("bad", 1)) + bookmark(9, END)), Watch(then + bookmark(20, END), HANG),
    ]  # fmt: skip
    async with reflecting(Api(streams=streams, watches=[Watch(event("ERROR", EXPIRED))])) as running:
        await until(lambda: running.informer._stores[None].progress == 20)
        known = running.informer.get(("team", "bad"))
        assert (known and known.header.version) == (10 if form == "changed" else None)


async def test_a_namesake_that_can_not_be_read_ends_what_was_known():
    anew = line("ADDED", whole(labels={"a": 1}, uid="another"))
    api = Api(lists=[page(9, item("bad", 1))], watches=[Watch(anew, event("ADDED", item("c", 22)), HANG)])
    async with reflecting(api) as running:
        await running.names("c")
        assert running.heard == [("add", "bad", 1), ("delete", "bad", 1), ("add", "c", 22)]


async def test_it_is_told_of_once_until_the_next_list():
    bad = line("MODIFIED", BAD["labels that are no texts"])
    api = Api(
        lists=[page(9), page(20)],
        watches=[Watch(bad, bad, bad, event("ERROR", EXPIRED)), Watch(bad, event("ADDED", item("a", 21)), HANG)],
    )
    async with reflecting(api) as running:
        await running.names("a")
        assert len(running.log.said("an object can't be read")) == 2


async def test_what_is_no_json_in_the_shape_of_an_event_ends_the_stream():
    api = Api(lists=[page(9), page(20)], watches=[Watch(line("ADDED", b'{"metadata":{"name":"a"}'))])
    async with reflecting(api) as running:
        await until(lambda: len(api.of("list")) == 2)
        assert running.log.said("is no event", "warning")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6) | st.sampled_from(['",{', "}]", "\\", ':"']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
SPACES = st.booleans()


def written(value, spaced):
    return msgspec.json.format(orjson.dumps(value), indent=2 if spaced else -1)


@given(st.lists(JSON, max_size=4), JSON, SPACES)
def test_a_page_is_taken_apart_as_a_decoder_would(items, more, spaced):
    body = written({"x": more, "items": items, "metadata": {"resourceVersion": "7", "continue": 'a"b'}}, spaced)
    found = split_page(body)
    assert [orjson.loads(bytes(each)) for each in found.items] == items
    assert (found.resource_version, found.continue_token) == ("7", 'a"b')


@given(JSON, SPACES)
def test_an_event_is_taken_apart_as_a_decoder_would(value, spaced):
    kind, found = split_event(written({"type": "ADDED", "object": value}, spaced))
    assert (kind, orjson.loads(found)) == ("ADDED", value)


@given(st.binary(max_size=40) | JSON.map(orjson.dumps))
def test_whatever_it_is_something_is_made_of_it(garbage):
    assert identify(garbage).version >= 0
    split_page(garbage)
    split_event(garbage)


@given(st.sampled_from(["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]), JSON, SPACES)
def test_an_object_that_is_cut_out_is_the_one_that_a_decoder_finds(kind, value, spaced):
    text = orjson.dumps({"type": kind, "object": {"x": value}})
    text = b" ".join([text, b""]) if spaced else text
    assert [*map(bytes, map(_bytes, read_event(text)))] == [*map(bytes, map(_bytes, read_any_event(text)))]


def _bytes(part):
    return part.encode() if isinstance(part, str) else part


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED", "DELETED"])
def test_the_object_of_an_ordinary_event_is_cut_out_without_a_parser(kind, monkeypatch):
    monkeypatch.setattr("asyncctl.cache.event.read_any_event", None)
    assert read_event(line(kind, b'{"a":{}}').rstrip()) == (kind, b'{"a":{}}')


def test_a_line_that_is_nested_too_deeply_and_is_no_event_is_none():
    with pytest.raises(NoEvent, match="nested too deeply"):
        read_event(b'{"x":' + DEEP + b"}")
