"""`Warning` headers: every form that a server may send, told once, with who called."""

import pytest
from aiohttp import web
from hypothesis import given, strategies as st

from asyncctl.client.errors import Target
from asyncctl.client.transport import warnings as module
from asyncctl.client.transport.warnings import Warned, Warnings, parse_warnings
from asyncctl.objects import ConfigMap
from asyncctl.observe.metrics import Metrics
from tests.unit.support import Log, connected, http_server

TARGET = Target("list", "configmaps", "team")
OLD = "policy/v1beta1 PodSecurityPolicy is deprecated in v1.21+, unavailable in v1.25+"


def said(text, code=299, agent="-"):
    return Warned(code, agent, text)


@pytest.mark.parametrize(
    "header, expected",
    [
        ('299 - "plain"', [said("plain")]),
        ('299 kube-apiserver/1.36 "plain"', [said("plain", agent="kube-apiserver/1.36")]),
        ('  299 - "spaces around"  ', [said("spaces around")]),
        ('299 - ""', [said("")]),
        ('299 - "a", 299 - "b"', [said("a"), said("b")]),
        ('299 - "a",299 - "b"', [said("a"), said("b")]),
        ('299 - "a", ', [said("a")]),
        ('299 - "one, two, 299 - three"', [said("one, two, 299 - three")]),
        (r'299 - "old \"v1\", gone"', [said('old "v1", gone')]),
        (r'299 - "a \\", 299 - "b"', [said("a \\"), said("b")]),
        (r'299 - "\a\,\ "', [said("a, ")]),
        ('299 - "dated" "Wed, 21 Oct 2026 07:28:00 GMT"', [said("dated")]),
        ('299 - "dated" "Wed, 21 Oct 2026 07:28:00 GMT", 299 - "b"', [said("dated"), said("b")]),
        ('110 proxy:80 "Response is stale"', [said("Response is stale", 110, "proxy:80")]),
        ('299 - "ünïcode ✓"', [said("ünïcode ✓")]),
        ('299 - "ünïcode ✓"'.encode().decode("latin-1"), [said("ünïcode ✓")]),
        ('299 - "\xe4 of Latin-1"', [said("ä of Latin-1")]),
        ('299 - "tab\there"', [said("tab�here")]),
        ('299 - "nul\0 and surrogate\udcff"', [said("nul� and surrogate�")]),
        # What can't be read is told as it is, and ends its header.
        ("no warning at all", [Warned(0, "", "no warning at all")]),
        ('299 "no agent"', [Warned(0, "", '299 "no agent"')]),
        ('29 - "short code"', [Warned(0, "", '29 - "short code"')]),
        ('٢٩٩ - "other digits"', [Warned(0, "", '٢٩٩ - "other digits"')]),
        ("299 - unquoted", [Warned(0, "", "299 - unquoted")]),
        ('299 - "no end', [Warned(0, "", '299 - "no end')]),
        (r'299 - "escaped end\"', [Warned(0, "", r'299 - "escaped end\"')]),
        ('299 - "a", 299 - b, 299 - "c"', [said("a"), Warned(0, "", '299 - b, 299 - "c"')]),
        ('299 - "a" junk', [Warned(0, "", '299 - "a" junk')]),
        ('299 - "a" "no end of the date', [Warned(0, "", '299 - "a" "no end of the date')]),
        ("", []),
        ("   ", []),
    ],
)
def test_forms_of_the_header(header, expected):
    assert list(parse_warnings([header])) == expected


def test_a_header_that_cannot_be_read_hides_no_other():
    assert list(parse_warnings(["299 - broken", '299 - "fine"']))[1] == said("fine")


def test_a_long_text_is_cut():
    (warned,) = parse_warnings([f'299 - "{"x" * 5000}"'])
    assert len(warned.text) == module.LONGEST
    assert warned.text.endswith("…")


@given(st.lists(st.text(), max_size=4))
def test_whatever_comes_is_read_in_the_end_and_can_be_logged(values):
    for warned in parse_warnings(values):
        assert warned.text.isprintable()
        warned.text.encode()


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Zl", "Zp", "Zs"]), min_size=1), min_size=1, max_size=5))
def test_what_is_quoted_comes_back(texts):
    escaped = [text.replace("\\", "\\\\").replace('"', '\\"') for text in texts]
    header = ", ".join(f'299 - "{text}"' for text in escaped)
    sent = header.encode().decode("latin-1")  # as headers are read: what was UTF-8 is known again
    assert list(parse_warnings([sent])) == [said(text) for text in texts]


@pytest.fixture
def told():
    """Warnings, their log, and a way to read the counter."""
    log, metrics = Log(), Metrics(process=False)
    warnings = Warnings(log.logger, metrics.requests("h"))
    warnings.count = lambda: metrics.registry.get_sample_value("asyncctl_api_warnings_total", {"host": "h"})
    return warnings, log


def test_a_text_is_logged_once_with_the_first_to_call_and_counted_each_time(told):
    warnings, log = told
    warnings.note(['299 - "old"', '299 - "odd"'], TARGET, "widgets")
    warnings.note(['299 - "old"'], TARGET, "others")
    first, second = log.said("the API server warns", "warning")
    assert (first["warning"], first["controller"], first["request"]) == ("old", "widgets", "list configmaps team")
    assert second["warning"] == "odd"
    assert warnings.count() == 3


def test_without_a_controller_none_is_named(told):
    warnings, log = told
    warnings.note(['299 - "old"'], TARGET)
    (line,) = log.said("the API server warns")
    assert "controller" not in line


@pytest.mark.parametrize(
    "text, api_version, kind",
    [
        (OLD, "policy/v1beta1", "PodSecurityPolicy"),
        ("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice", "v1", "Endpoints"),
        ("example.com/v1alpha1 Widget is deprecated", "example.com/v1alpha1", "Widget"),
        ("policy/v1beta1 Eviction is deprecated; use policy/v1 Eviction", "policy/v1beta1", "Eviction"),
    ],
)
def test_a_deprecated_api_version_is_told_as_one(told, text, api_version, kind):
    warnings, log = told
    warnings.note([f'299 - "{text}"'], TARGET, "widgets")
    (line,) = log.said("a deprecated API version is used")
    assert (line["api_version"], line["kind"], line["controller"]) == (api_version, kind, "widgets")
    assert line["warning"] == text


@pytest.mark.parametrize(
    "text",
    [
        "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use kubernetes.io/os instead",
        'unknown field "spec.policy/v1 Widget is deprecated"',
        "this Widget is deprecated",
    ],
)
def test_other_words_are_not_taken_for_a_deprecated_version(told, text):
    warnings, log = told
    warnings.note([f'299 - "{text.replace(chr(34), chr(92) + chr(34))}"'], TARGET)
    assert log.said("deprecated API version") == []
    assert len(log.said("the API server warns")) == 1


@pytest.mark.parametrize(
    "header",
    ['299 - "metadata.finalizers: \\"x\\": prefer a domain-qualified finalizer name"', '299 - ""', '110 - "x"'],
)
def test_what_nobody_can_act_on_is_counted_only(told, header):
    warnings, log = told
    warnings.note([header], TARGET)
    assert log.lines == []
    assert warnings.count() == 1


def test_memory_is_bounded_and_the_texts_still_heard_are_kept(told, monkeypatch):
    monkeypatch.setattr(module, "KNOWN", 3)
    warnings, log = told
    for text in ("a", "b", "c", "a", "d", "a", "b"):
        warnings.note([f'299 - "{text}"'], TARGET)
    assert [line["warning"] for line in log.lines] == ["a", "b", "c", "d", "b"]
    assert len(warnings._told) == 3


async def test_a_client_made_for_a_controller_names_it():
    async def handler(request):
        headers = [("Warning", f'299 - "{OLD}"'), ("Warning", '299 - "second header"')]
        body = {"kind": "ConfigMap", "metadata": {"name": "a"}}
        answer = web.json_response(body)
        answer.headers.extend(headers)
        return answer

    log = Log()
    async with http_server(handler) as url, connected(url, log=log) as client:
        named = client.with_caller("widgets").with_audit_id("1")
        await named.get(ConfigMap, "a", namespace="team")
        await client.get(ConfigMap, "a", namespace="team")
    assert [line["controller"] for line in log.lines] == ["widgets", "widgets"]
