"""A line of a watch: its type, and its object cut out of it."""

import pytest

from asyncctl.cache import event
from asyncctl.cache.event import read_event


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED", "DELETED"])
def test_the_object_of_a_line_as_servers_write_it_is_cut_out_and_the_line_is_not_read_twice(kind, monkeypatch):
    monkeypatch.setattr(event, "_decode_event", None)
    line = f'{{"type":"{kind}","object":{{"metadata":{{"name":"a"}}}}}}'.encode()
    assert read_event(line) == (kind, b'{"metadata":{"name":"a"}}')


@pytest.mark.parametrize(
    "line",
    [
        b'{"object":{"metadata":{"name":"a"}},"type":"MODIFIED"}',
        b'{"type": "MODIFIED", "object": {"metadata":{"name":"a"}}}',
        b'{"type":"MODIFIED","object":{"metadata":{"name":"a"}} }',
        b'{"type":"MODIFIED","object":{"metadata":{"name":"a"}}}\r',
    ],
)
def test_a_line_that_is_written_otherwise_is_read_all_the_same(line):
    kind, raw = read_event(line)
    assert (kind, bytes(raw)) == ("MODIFIED", b'{"metadata":{"name":"a"}}')
