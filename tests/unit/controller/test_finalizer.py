"""What is known of an object whose finalizer was taken off."""

import pytest

from asyncctl.controller.finalizer import was_last


@pytest.mark.parametrize(
    ("metadata", "gone"),
    [
        (b'{"name":"w","deletionTimestamp":"2026-01-01T00:00:00Z","deletionGracePeriodSeconds":0}', True),
        (b'{"name":"w","deletionTimestamp":"2026-01-01T00:00:00Z"}', True),
        (b'{"name":"w","deletionGracePeriodSeconds":0,"finalizers":["others.example.com/x"]}', False),
        (b'{"name":"p","deletionTimestamp":"2026-01-01T00:00:30Z","deletionGracePeriodSeconds":30}', False),
    ],
)
def test_an_object_is_gone_with_its_last_finalizer_unless_it_has_a_grace_period(metadata, gone):
    assert was_last(b'{"kind":"Widget","apiVersion":"example.com/v1","metadata":' + metadata + b"}") is gone
