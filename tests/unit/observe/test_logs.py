"""What a record looks like when it is written, and what is never written."""

import io
import json
import logging
import os
import pty
import re
import threading
from pathlib import Path

import pytest
import structlog

from asyncctl.observe import make_logger, route_stdlib
from asyncctl.observe.logs import FIRST
from asyncctl.testing.clock import FakeClock


def fail(error):
    raise error


class Stream(io.StringIO):
    def records(self):
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def record(self):
        (record,) = self.records()
        return record


@pytest.fixture
def stream():
    return Stream()


@pytest.fixture
def log(stream):
    return make_logger("info", "json", stream, FakeClock())


def test_a_line_is_one_json_object_with_time_level_and_message(log, stream):
    log.info("started", replicas=2)
    assert stream.getvalue() == ('{"ts":"2026-01-01T00:00:00.000000Z","level":"info","msg":"started","replicas":2}\n')


def test_keys_come_in_the_order_of_the_contract(log, stream):
    log.bind(
        attempt=1, reconcileID="r", name="n", namespace="ns", controllerKind="K", controllerGroup="g", controller="c"
    ).warning("m", zebra=1, apple=2, operation="apply", logger="l")
    assert " ".join(stream.record()) == (
        "ts level msg logger controller controllerGroup controllerKind namespace name reconcileID attempt operation "
        "zebra apple"
    )


def test_below_the_level_nothing_is_written(log, stream):
    log.debug("no")
    assert stream.getvalue() == ""


def test_what_is_bound_stays_and_the_logger_it_came_from_is_unchanged(log, stream):
    bound = log.bind(name="a")
    log.info("one")
    bound.info("two")
    assert [record.get("name") for record in stream.records()] == [None, "a"]


def test_context_variables_are_merged(log, stream):
    with structlog.contextvars.bound_contextvars(reconcileID="r1"):
        log.info("m")
    assert stream.record()["reconcileID"] == "r1"


def test_nothing_is_configured_for_the_whole_process(log):
    log.info("m")
    assert not structlog.is_configured()


# Exceptions


def test_a_traceback_is_one_text_told_once(log, stream):
    try:
        fail(ValueError("no such thing"))
    except ValueError:
        log.exception("failed")
    record = stream.record()
    assert record["level"] == "error"
    assert record["exception"].startswith("Traceback (most recent call last):\n")
    assert record["exception"].endswith("\nValueError: no such thing")
    assert stream.getvalue().count("ValueError: no such thing") == 1
    assert "exc_info" not in record


def test_an_exception_that_is_not_being_handled_can_be_given(log, stream):
    log.error("failed", exc_info=ValueError("x"))
    assert stream.record()["exception"] == "ValueError: x"


def test_an_exception_as_a_value_is_its_type_and_text(log, stream):
    log.warning("again", error=TimeoutError("30s"))
    assert stream.record()["error"] == "TimeoutError: 30s"


def test_exc_info_without_an_exception_is_no_field(log, stream):
    log.error("m", exc_info=True)  # noqa: LOG014  # the mistake that this is about
    assert "exception" not in stream.record()


# Values that are hard to render


class Unshowable:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2**70, str(2**70)),
        ("\ud800", "\ud800"),
        (float("nan"), None),
        ({1: "a"}, {"1": "a"}),
        ({"a"}, "{'a'}"),
        (b"bytes", "b'bytes'"),
        (Unshowable(), "<Unshowable that can't be shown: RuntimeError>"),
        ([Unshowable()], ["<Unshowable that can't be shown: RuntimeError>"]),
    ],
)
def test_no_value_stops_a_record(log, stream, value, shown):
    log.info("m", value=value)
    assert stream.record()["value"] == shown


def test_a_line_break_in_a_value_does_not_break_the_line(log, stream):
    log.info("a\nb", x="c\nd")
    assert len(stream.getvalue().splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["a.", "eyJ-", "://a:", "Bearer ", "SCRAM-SHA-256$", "password '", "password=", "-----BEGIN ", " "]
)
def test_a_huge_value_costs_no_more_than_its_length(log, stream, text):
    log.info("m", value=text * (1_000_000 // len(text)))
    assert stream.record()["msg"] == "m"


# What somebody else wrote

HOSTILE = "a\nb\r\x1b[2J\x1b]0;t\x07\x9b31m\x7f\u2028\u202eend\ufeff"


def odd(text):
    return [each for each in text if not each.isprintable()]


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_text_ends_a_line_or_commands_a_terminal(stream, form):
    log = make_logger("info", form, stream)
    log.info(HOSTILE, bare=HOSTILE, spaced=f"x {HOSTILE}", nested={HOSTILE: [HOSTILE]}, raw=HOSTILE.encode())
    line = stream.getvalue()
    assert line.endswith("\n")
    assert odd(line[:-1]) == []
    assert len(line.splitlines()) == 1


def test_what_is_made_visible_in_json_is_read_as_it_was(log, stream):
    log.info(HOSTILE, nested={HOSTILE: [HOSTILE]})
    assert stream.record()["msg"] == HOSTILE
    assert stream.record()["nested"] == {HOSTILE: [HOSTILE]}


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_exceptions_text_commands_no_terminal_either(stream, form):
    log = make_logger("info", form, stream)
    try:
        fail(ValueError(HOSTILE))
    except ValueError as error:
        log.exception("failed", error=error)
    assert set(odd(stream.getvalue())) <= {"\n"}


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("value", ["x" * 10**6, ["x" * 10**4] * 200, {str(n): n for n in range(10**4)}, b"x" * 10**6])
def test_a_huge_value_is_cut_and_said_to_be(stream, form, value):
    make_logger("info", form, stream).info("m", value=value)
    assert len(stream.getvalue()) < 900_000
    assert " more" in stream.getvalue()


def test_a_huge_exception_keeps_its_beginning_and_its_end(log, stream):
    try:
        fail(ValueError("x" * 10**6 + "the end"))
    except ValueError:
        log.exception("failed")
    text = stream.record()["exception"]
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith("the end")
    assert len(text) < 20_000


def test_a_value_that_can_not_be_shown_stops_no_record_on_a_terminal(stream):
    make_logger("info", "console", stream).info("m", value=Unshowable(), nested=[Unshowable()])
    assert "can't be shown" in stream.getvalue()


# Secrets

SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "key",
    [
        *("password", "adminPassword", "PGPASSWORD", "token", "bearer_token", "verifier", "Authorization", "secret"),
        *("client_secret", "credentials", "Set-Cookie", "private_key", "apiKey", "passphrase", "dsn"),
    ],
)
@pytest.mark.parametrize("form", ["json", "console"])
def test_a_key_that_names_a_secret_hides_its_value(stream, form, key):
    make_logger("info", form, stream).info("m", **{key: SECRET})
    assert SECRET not in stream.getvalue()
    assert "***" in stream.getvalue()


@pytest.mark.parametrize(
    "key", ["secretName", "secret_namespace", "tokenPath", "passwordFile", "secretRef", "name", "key"]
)
def test_a_key_that_only_points_to_a_secret_is_shown(log, stream, key):
    log.info("m", **{key: "team/db"})
    assert stream.record()[key] == "team/db"


@pytest.mark.parametrize(
    "value", [{"headers": {"Authorization": SECRET}}, [{"password": SECRET}], ({"token": [SECRET]},)]
)
def test_secrets_are_hidden_at_any_depth(log, stream, value):
    log.info("m", value=value)
    assert SECRET not in stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "ALTER ROLE a PASSWORD 'SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:hunter2-hunter2='",
        "ALTER ROLE a PASSWORD 'hunter2-hunter2'",
        "postgresql://app:hunter2-hunter2@db:5432/app?sslmode=disable",  # pragma: allowlist secret
        "Authorization: Bearer hunter2-hunter2",  # pragma: allowlist secret
        "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.hunter2-hunter2",  # pragma: allowlist secret
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2/hunter2\n-----END RSA PRIVATE KEY-----",
        "host=db password=hunter2-hunter2 user=app",  # pragma: allowlist secret
        "postgresql:///app?host=db&password=hunter2-hunter2&sslmode=disable",  # pragma: allowlist secret
        '{"password": "hunter2-hunter2"}',  # pragma: allowlist secret
        "x" * 8190 + "postgresql://app:hunter2-hunter2@db/app",  # pragma: allowlist secret
    ],
)
@pytest.mark.parametrize("form", ["json", "console"])
def test_a_secret_that_shows_by_its_form_is_hidden_wherever_it_stands(stream, form, text):
    log = make_logger("info", form, stream)
    log.info(text, other=text, nested={"a": [text]}, odd=2**70)
    try:
        fail(RuntimeError(text))
    except RuntimeError as error:
        log.exception("failed", error=error)
    assert "hunter2" not in stream.getvalue()


def test_what_hides_a_secret_leaves_the_rest_of_the_line_as_it_was(log, stream):
    log.info("connecting to postgresql://app:pw@db:5432/app", namespace="team", url="http://host:80/path?at=a@b")
    record = stream.record()
    assert record["msg"] == "connecting to postgresql://app:***@db:5432/app"
    assert record["namespace"] == "team"
    assert record["url"] == "http://host:80/path?at=a@b"


def test_local_variables_are_not_in_a_traceback(stream):
    log = make_logger("info", "console", stream)
    try:
        password = SECRET
        fail(RuntimeError(len(password)))
    except RuntimeError:
        log.exception("failed")
    assert SECRET not in stream.getvalue()


# Forms


def test_auto_is_json_where_there_is_no_terminal(stream):
    make_logger("info", "auto", stream).info("m")
    assert stream.record()["msg"] == "m"


def test_auto_is_for_people_on_a_terminal():
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stream, os.fdopen(controller, "rb", buffering=0) as screen:
        make_logger("info", "auto", stream, FakeClock()).info("started", replicas=2)
        shown = screen.read(1000).decode()
    assert "\x1b[" in shown
    assert "started" in shown
    assert not shown.startswith("{")


def test_console_without_a_terminal_has_no_colours(stream):
    make_logger("info", "console", stream, FakeClock()).info("started", replicas=2)
    assert stream.getvalue().split() == ["2026-01-01T00:00:00.000000Z", "[info", "]", "started", "replicas=2"]


def test_lines_of_threads_do_not_mix(log, stream):
    threads = [
        threading.Thread(target=lambda name=name: [log.info("m", name=name) for _ in range(200)]) for name in "abc"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stream.records()) == 600


# Libraries


def test_warnings_of_libraries_come_into_the_same_stream_while_routed(log, stream):
    library = logging.getLogger("some.library")
    with route_stdlib(log):
        library.warning("slow: %d ms", 30)
        library.info("chatter")
    library.error("after")
    record = stream.record()
    assert (record["level"], record["msg"], record["logger"]) == ("warning", "slow: 30 ms", "some.library")


def test_a_librarys_exception_keeps_its_traceback(log, stream):
    with route_stdlib(log):
        try:
            fail(ValueError("x"))
        except ValueError:
            logging.getLogger("some.library").exception("failed")
    record = stream.record()
    assert record["level"] == "error"
    assert record["exception"].endswith("ValueError: x")


def test_odd_levels_of_libraries_are_rounded(log, stream):
    with route_stdlib(log):
        logging.getLogger("some.library").log(35, "between")
        logging.getLogger("some.library").log(99, "beyond")
    assert [record["level"] for record in stream.records()] == ["warning", "critical"]


def test_a_librarys_record_whose_arguments_do_not_fit_is_told_all_the_same(log, stream):
    record = logging.LogRecord("some.library", logging.WARNING, "file.py", 1, "%d ms", ("x",), None)
    with route_stdlib(log):
        logging.getLogger().handlers[-1].handle(record)  # alone: pytest's own handlers would raise
    assert stream.record()["msg"] == "%d ms (with arguments that do not fit)"


def test_the_page_names_the_fields_in_their_order():
    page = (Path(__file__).parents[3] / "docs" / "logs.md").read_text()
    fields = page.partition("| field | holds |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", fields, re.MULTILINE) == list(FIRST)
