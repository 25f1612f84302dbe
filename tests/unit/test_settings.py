"""What an environment makes of settings, and what is said when it makes nothing of them."""

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, strategies as st

from asyncctl.settings import Address, Duration, Settings, SettingsError, format_duration, setting


class WidgetSettings(Settings, prefix="WIDGETS_"):
    size: int = setting(default=3, at_least=1, meaning="parts of a new widget")
    colours: tuple[str, ...] = ()
    pause: Duration | None = None
    token: str = setting(default="none", secret=True, meaning="of the shop")
    resync: Duration = 60.0
    own: str = setting(default="", variable="THE_WIDGETS_OWN")

    def check(self):
        yield from super().check()
        if len(self.colours) > self.size:
            yield self.problem("colours", "size", must="not be more than {1}")


class NeedySettings(Settings, prefix="NEEDY_"):
    shop: str = setting(meaning="address of the shop")


def problems(environ, kind=Settings):
    with pytest.raises(SettingsError) as error:
        kind.from_environment(environ)
    first, *lines = str(error.value).splitlines()
    assert first == "the settings are not usable:"
    return [line.removeprefix("  ") for line in lines]


def read(variable, text, kind=Settings):
    return kind.from_environment({variable: text})


# Reading


def test_an_empty_environment_gives_the_documented_defaults():
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.namespaces == ()
    assert (settings.qps, settings.burst) == (50, 100)
    assert (settings.request_timeout, settings.reconcile_timeout, settings.resync) == (30, 300, 36_000)
    assert (settings.retry_base, settings.retry_max, settings.retry_limit) == (5, 60, 10)
    assert (settings.lease_duration, settings.renew_deadline, settings.retry_period) == (15, 10, 2)
    assert settings.lease_name is None  # the program's own
    assert settings.http_address == Address("0.0.0.0", 8080)
    assert settings.pod_name
    assert (settings.log_level, settings.log_format, settings.drain_timeout) == ("info", "auto", 25)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("10h", 36_000),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("45", 45),
        ("0.5", 0.5),
    ],
)
def test_durations(text, seconds):
    assert read("ASYNCCTL_REQUEST_TIMEOUT", text).request_timeout == seconds


@pytest.mark.parametrize("text", ["soon", "5 m", "m", "30m1h", "-5s", "1e3", "nan", "inf", "5d", "٣s", "9" * 400])
def test_what_is_no_duration(text):
    assert problems({"ASYNCCTL_REQUEST_TIMEOUT": text}) == [
        f"ASYNCCTL_REQUEST_TIMEOUT={text}: must be a duration such as 30s, 5m, 1h30m, or seconds, at least 0.001s"
    ]


@given(st.integers(1, 10**7))
def test_a_duration_is_read_as_it_is_written(seconds):
    assert read("ASYNCCTL_RESYNC", format_duration(seconds)).resync == seconds


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("Yes", True), ("FALSE", False), ("0", False), ("off", False)]
)
def test_booleans(text, value):
    assert read("ASYNCCTL_LEADER_ELECTION", text).leader_election is value


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        (":9090", ("0.0.0.0", 9090)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_addresses(text, address):
    assert read("ASYNCCTL_HTTP_ADDRESS", text).http_address == address


@pytest.mark.parametrize("text", ["8080", "host", "host:", "host:65536", "::1:80", "http://host:80", "a b:80", "h:-1"])
def test_what_is_no_address(text):
    assert problems({"ASYNCCTL_HTTP_ADDRESS": text}) == [
        f"ASYNCCTL_HTTP_ADDRESS={text}: must be an address such as 0.0.0.0:8080 or [::]:8080"
    ]


@given(st.ip_addresses().map(str), st.integers(0, 65535))
def test_an_address_is_read_as_it_is_written(host, port):
    assert read("ASYNCCTL_HTTP_ADDRESS", str(Address(host, port))).http_address == (host, port)


def test_lists_are_cut_at_commas_and_trimmed():
    assert read("ASYNCCTL_NAMESPACES", " team-a, team-b ,,").namespaces == ("team-a", "team-b")


def test_a_word_of_a_set_is_read_in_any_case():
    assert read("ASYNCCTL_LOG_LEVEL", "DEBUG").log_level == "debug"


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_variable_leaves_the_default(text):
    assert read("ASYNCCTL_WORKERS", text).workers == 10


def test_settings_cannot_be_changed():
    with pytest.raises(AttributeError):
        Settings().workers = 3


# Refusing


def test_one_message_lists_every_bad_variable_with_value_and_what_is_allowed():
    assert problems(
        {
            "ASYNCCTL_WORKERS": "many",
            "ASYNCCTL_LEADER_ELECTION": "perhaps",
            "ASYNCCTL_LOG_LEVEL": "loud",
            "ASYNCCTL_NAMESPACES": "team-a,Team_B",
            "ASYNCCTL_RETRY_LIMIT": "0",
            "ASYNCCTL_DRAIN_TIMEOUT": "5m",
        }
    ) == [
        "ASYNCCTL_NAMESPACES=team-a,Team_B: must be names of namespaces, separated by commas",
        "ASYNCCTL_WORKERS=many: must be a whole number, at least 1",
        "ASYNCCTL_RETRY_LIMIT=0: must be a whole number, at least 1",
        "ASYNCCTL_LEADER_ELECTION=perhaps: must be true or false",
        "ASYNCCTL_LOG_LEVEL=loud: must be one of debug, info, warning, error",
    ]


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        (
            {"ASYNCCTL_LEASE_DURATION": "10s"},
            "ASYNCCTL_LEASE_DURATION=10s: must be longer than ASYNCCTL_RENEW_DEADLINE=10s",
        ),
        (
            {"ASYNCCTL_RETRY_PERIOD": "8.4"},
            "ASYNCCTL_RENEW_DEADLINE=10s: must be longer than 1.2 times ASYNCCTL_RETRY_PERIOD=8.4s",
        ),
        (
            {"ASYNCCTL_LEASE_DURATION": "15.5s"},
            "ASYNCCTL_LEASE_DURATION=15.5s: must be whole seconds: the Lease's record knows no others",
        ),
        ({"ASYNCCTL_BURST": "0"}, "ASYNCCTL_BURST=0: must be at least 1 while ASYNCCTL_QPS=50 is more than 0"),
        ({"ASYNCCTL_RETRY_MAX": "1s"}, "ASYNCCTL_RETRY_MAX=1s: must not be less than ASYNCCTL_RETRY_BASE=5s"),
    ],
)
def test_values_that_do_not_go_together(environ, told):
    assert problems(environ) == [told]


def test_no_burst_is_needed_without_a_limit():
    assert Settings.from_environment({"ASYNCCTL_QPS": "0", "ASYNCCTL_BURST": "0"}).burst == 0


def test_a_bad_value_is_told_once_and_the_others_are_compared_all_the_same():
    assert problems({"ASYNCCTL_LEASE_DURATION": "x", "ASYNCCTL_RENEW_DEADLINE": "99s", "ASYNCCTL_BURST": "0"}) == [
        "ASYNCCTL_LEASE_DURATION=x: must be a duration such as 30s, 5m, 1h30m, or seconds, at least 1s",
        "ASYNCCTL_BURST=0: must be at least 1 while ASYNCCTL_QPS=50 is more than 0",
    ]


IN_THE_CLEAR = "tokens would cross the network in the clear"
ON_LOOPBACK = "must be on loopback, such as 127.0.0.1:8082: whoever reaches it may read; use kubectl port-forward"
METRICS = {"ASYNCCTL_METRICS_ADDRESS": "0.0.0.0:8443"}
WITHOUT = "must be left out: ASYNCCTL_METRICS_ADDRESS is empty"


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"ASYNCCTL_METRICS_TLS": "false"}, f"ASYNCCTL_METRICS_TLS=false: {WITHOUT}"),
        ({"ASYNCCTL_METRICS_AUTH": "none"}, f"ASYNCCTL_METRICS_AUTH=none: {WITHOUT}"),
        ({"ASYNCCTL_METRICS_KEY": "/tls/key"}, f"ASYNCCTL_METRICS_KEY=/tls/key: {WITHOUT}"),
        (
            METRICS | {"ASYNCCTL_METRICS_TLS": "false"},
            f"ASYNCCTL_METRICS_AUTH=token: must be none while ASYNCCTL_METRICS_TLS=false: {IN_THE_CLEAR}",
        ),
        (
            METRICS | {"ASYNCCTL_METRICS_CERT": "/tls/crt"},
            "ASYNCCTL_METRICS_CERT=/tls/crt: must come with ASYNCCTL_METRICS_KEY, its other half",
        ),
        (
            METRICS | {"ASYNCCTL_METRICS_KEY": "/tls/key"},
            "ASYNCCTL_METRICS_KEY=/tls/key: must come with ASYNCCTL_METRICS_CERT, its other half",
        ),
        (
            METRICS
            | {"ASYNCCTL_METRICS_TLS": "no", "ASYNCCTL_METRICS_AUTH": "none", "ASYNCCTL_METRICS_CERT": "/tls/crt"},
            "ASYNCCTL_METRICS_CERT=/tls/crt: must be left out while ASYNCCTL_METRICS_TLS=false",
        ),
        (
            {"ASYNCCTL_METRICS_ADDRESS": "0.0.0.0:8080"},
            "ASYNCCTL_METRICS_ADDRESS=0.0.0.0:8080: must not be that of ASYNCCTL_HTTP_ADDRESS=0.0.0.0:8080",
        ),
        (
            {"ASYNCCTL_DEBUG_ADDRESS": ":8082"},
            f"ASYNCCTL_DEBUG_ADDRESS=0.0.0.0:8082: {ON_LOOPBACK}",
        ),
    ],
)
def test_listeners_that_do_not_go_together(environ, told):
    assert problems(environ) == [told]


@pytest.mark.parametrize(
    "environ",
    [
        METRICS,
        METRICS | {"ASYNCCTL_METRICS_AUTH": "none", "ASYNCCTL_METRICS_TLS": "false"},
        METRICS | {"ASYNCCTL_METRICS_CERT": "/tls/crt", "ASYNCCTL_METRICS_KEY": "/tls/key"},
        {"ASYNCCTL_DEBUG_ADDRESS": "[::1]:8082"},
        {"ASYNCCTL_DEBUG_ADDRESS": "localhost:0", "ASYNCCTL_HTTP_ADDRESS": "localhost:0"},
    ],
)
def test_listeners_that_go_together(environ):
    Settings.from_environment(environ)


def test_an_empty_variable_is_none_where_there_is_something_by_default_that_can_be_left_out():
    off = {"ASYNCCTL_DEBUG_ADDRESS": ""}
    assert Settings.from_environment({}).debug_address == Address("127.0.0.1", 8082)
    assert Settings.from_environment(off).debug_address is None
    (row,) = [row for row in Settings.rows(off) if row.variable == "ASYNCCTL_DEBUG_ADDRESS"]
    assert (row.default, row.in_force) == ("127.0.0.1:8082", "-")


class EarlySettings(Settings, prefix="EARLY_"):
    wings: int = setting(default=2, not_yet=True)


@pytest.mark.parametrize("text", ["2", "3"])
def test_what_is_not_built_yet_is_refused_when_it_is_asked_for(text):
    assert problems({"EARLY_WINGS": text}, EarlySettings) == [
        f"EARLY_WINGS={text}: not yet: this version has nothing that acts on it; leave it out"
    ]
    assert EarlySettings.rows({})[-1].meaning.endswith("(not yet)")


def test_a_secret_is_not_shown_among_what_is_in_force():
    class Sealed(Settings, prefix="SEALED_"):
        word: str = setting(default="", secret=True)

    shown = Sealed(word="open sesame").in_force()
    assert shown["SEALED_WORD"] == "***"
    assert shown["ASYNCCTL_RESYNC"] == "10h"


def test_values_given_in_code_are_checked_the_same_way():
    with pytest.raises(SettingsError, match="ASYNCCTL_WORKERS=0: must be a whole number, at least 1"):
        Settings(workers=0)
    with pytest.raises(SettingsError, match="ASYNCCTL_METRICS_TLS=false: must be left out"):
        Settings(metrics_tls=False)
    with pytest.raises(SettingsError, match="ASYNCCTL_LEASE_DURATION=5s: must be longer"):
        Settings(lease_duration=5)
    with pytest.raises(SettingsError) as error:
        Settings(lease_duration=0)
    assert len(error.value.problems) == 1


def test_a_value_ends_no_line_of_the_message_and_is_not_told_at_any_length():
    (told,) = problems({"ASYNCCTL_WORKERS": "3\n\x1b[2J"})
    assert told == r"ASYNCCTL_WORKERS=3\n\x1b[2J: must be a whole number, at least 1"
    (told,) = problems({"ASYNCCTL_WORKERS": "x" * 100_000})
    assert len(told) < 600


# A program's own


def test_a_program_reads_its_own_variables_beside_the_common_ones():
    settings = WidgetSettings.from_environment(
        {"WIDGETS_SIZE": "5", "WIDGETS_COLOURS": "red,blue", "WIDGETS_PAUSE": "2m", "ASYNCCTL_WORKERS": "2"}
    )
    assert (settings.size, settings.colours, settings.pause, settings.workers) == (5, ("red", "blue"), 120, 2)


def test_a_field_declared_again_keeps_its_variable_and_changes_its_default():
    assert WidgetSettings.from_environment({}).resync == 60
    assert WidgetSettings.from_environment({"ASYNCCTL_RESYNC": "2m"}).resync == 120
    assert Settings.from_environment({}).resync == 36_000


def test_a_variable_can_be_named():
    assert WidgetSettings.from_environment({"THE_WIDGETS_OWN": "x"}).own == "x"


def test_a_name_clash_with_the_common_ones_is_solved_by_the_prefix_in_the_field():
    class DatabaseSettings(Settings, prefix="ASYNCCTL_"):
        database_servers: Path | None = None
        database_resync: Duration = setting(default=300.0, at_least=1)

    settings = DatabaseSettings.from_environment(
        {"ASYNCCTL_DATABASE_RESYNC": "1m", "ASYNCCTL_DATABASE_SERVERS": "/etc/servers.yaml"}
    )
    assert (settings.database_resync, settings.resync) == (60, 36_000)
    assert settings.database_servers == Path("/etc/servers.yaml")


def test_two_fields_cannot_be_read_from_one_variable():
    with pytest.raises(TypeError, match="ASYNCCTL_WORKERS"):

        class Bad(Settings, prefix="BAD_"):
            hands: int = setting(default=1, variable="ASYNCCTL_WORKERS")


def test_a_type_that_cannot_be_read_is_told():
    class Odd(Settings, prefix="ODD_"):
        number: complex = 1j

    with pytest.raises(TypeError, match=r"Odd\.number: a setting can't be of type"):
        Odd.from_environment({})


def test_a_programs_own_checks_are_in_the_same_message():
    assert problems({"WIDGETS_SIZE": "1", "WIDGETS_COLOURS": "a,b", "ASYNCCTL_WORKERS": "x"}, WidgetSettings) == [
        "ASYNCCTL_WORKERS=x: must be a whole number, at least 1",
        "WIDGETS_COLOURS=a,b: must not be more than WIDGETS_SIZE=1",
    ]


def test_a_setting_without_default_is_required():
    assert problems({"ASYNCCTL_WORKERS": "0"}, NeedySettings) == [
        "ASYNCCTL_WORKERS=0: must be a whole number, at least 1",
        "NEEDY_SHOP is not set: must be a text",
    ]
    assert NeedySettings.from_environment({"NEEDY_SHOP": "here"}).shop == "here"


def test_a_secret_is_shown_nowhere():
    settings = WidgetSettings.from_environment({"WIDGETS_TOKEN": "hunter2"})
    assert settings.token == "hunter2"
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in WidgetSettings.describe({"WIDGETS_TOKEN": "hunter2"})


def test_a_bad_secret_is_not_shown_either():
    class Pin(Settings, prefix="SAFE_"):
        pin: int = setting(default=0, secret=True)

    assert problems({"SAFE_PIN": "hunter2"}, Pin) == ["SAFE_PIN=***: must be a whole number"]
    assert "hunter2" not in Pin.describe({"SAFE_PIN": "hunter2"})


def test_string_annotations_are_understood():
    namespace = {"Settings": Settings, "Literal": Literal, "__name__": __name__}
    exec(  # as in a module that says `from __future__ import annotations`
        "from __future__ import annotations\n"
        "class Late(Settings, prefix='LATE_'):\n"
        "    mode: Literal['a', 'b'] = 'a'\n",
        namespace,
    )
    sys.modules[__name__].__dict__.setdefault("Literal", Literal)
    assert namespace["Late"].from_environment({"LATE_MODE": "b"}).mode == "b"


# Telling


def test_an_unknown_variable_names_the_nearest_known():
    assert Settings.unknown({"ASYNCCTL_WORKRES": "3", "PATH": "/bin", "ASYNCCTL_WORKERS": "3"}) == [
        "ASYNCCTL_WORKRES is not a setting; did you mean ASYNCCTL_WORKERS?"
    ]


def test_an_unknown_variable_near_to_nothing_is_told_without_advice():
    assert Settings.unknown({"ASYNCCTL_FROBNICATE_THE_QUUX": ""}) == ["ASYNCCTL_FROBNICATE_THE_QUUX is not a setting"]


def test_a_programs_own_prefix_is_known_too():
    assert WidgetSettings.unknown({"WIDGETS_SIZ": "3", "ASYNCCTL_QP": "1", "WIDGETS_SIZE": "3"}) == [
        "ASYNCCTL_QP is not a setting; did you mean ASYNCCTL_QPS?",
        "WIDGETS_SIZ is not a setting; did you mean WIDGETS_SIZE?",
    ]
    assert Settings.unknown({"WIDGETS_SIZ": "3"}) == []


def test_what_kubernetes_adds_for_a_service_of_that_name_is_no_warning():
    added = ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR"]
    assert Settings.unknown({f"ASYNCCTL_{name}": "x" for name in added}) == []


def test_what_tests_are_told_is_no_warning():
    assert Settings.unknown({"ASYNCCTL_TEST_POSTGRES": "x"}) == []


def test_the_table_shows_default_and_what_is_in_force():
    rows = {row.variable: row for row in WidgetSettings.rows({"ASYNCCTL_RETRY_BASE": "7", "WIDGETS_SIZE": "0"})}
    assert rows["ASYNCCTL_RETRY_BASE"][1:] == ("5s", "7s", "wait before the first retry")
    assert rows["ASYNCCTL_NAMESPACES"].default == "all"
    assert rows["ASYNCCTL_HTTP_ADDRESS"].in_force == "0.0.0.0:8080"
    assert rows["WIDGETS_SIZE"][1:] == ("3", "0 (not usable)", "parts of a new widget")
    assert {row.variable for row in NeedySettings.rows({}) if row.default == "(required)"} == {"NEEDY_SHOP"}


def test_the_table_is_one_line_for_each_setting_where_nobody_says_how_wide():
    head, *lines = Settings.describe({}).splitlines()
    assert head.split() == ["VARIABLE", "IN", "FORCE", "MEANING"]
    assert len(lines) == len(Settings.rows({}))
    column = head.index("MEANING")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines)


def test_the_table_says_the_default_where_another_value_is_in_force():
    told = WidgetSettings.describe({"ASYNCCTL_WORKERS": "3", "ASYNCCTL_RETRY_LIMIT": "10"}).splitlines()
    (workers,) = (line for line in told if "ASYNCCTL_WORKERS" in line)
    (limit,) = (line for line in told if "ASYNCCTL_RETRY_LIMIT" in line)
    assert workers.split()[1] == "3"
    assert workers.endswith("(default: 10)")
    assert "default" not in limit


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_the_table_fits_a_terminal_and_loses_no_word(width):
    told = Settings.describe({"ASYNCCTL_WORKERS": "many"}, width)
    assert max(map(len, told.splitlines())) <= width
    words = told.split()
    for row in Settings.rows({"ASYNCCTL_WORKERS": "many"}):
        assert row.variable in words
        assert " ".join(row.meaning.split()[:3]) in " ".join(words)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25s"), (30, "30s"), (60, "1m"), (90, "1m30s"), (5400, "1h30m")]
)
def test_durations_are_written_as_people_do(seconds, text):
    assert format_duration(seconds) == text


def test_import_reads_no_environment():
    code = "import asyncctl.settings as s; print(s.Settings.from_environment({}).workers)"
    done = subprocess.run([sys.executable, "-c", code], env={"ASYNCCTL_WORKERS": "x"}, capture_output=True, check=True)
    assert done.stdout == b"10\n"
