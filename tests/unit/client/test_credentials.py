"""Credentials that go stale: renewed before they end, once for all who ask, and used as long as they do."""

import asyncio
import json
import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from asyncctl.client.config.cluster import ClusterConfig, Impersonation
from asyncctl.client.config.credentials import Credentials, Identity
from asyncctl.client.config.exec_plugin import ExecPlugin
from asyncctl.client.errors import CredentialsError, Target
from asyncctl.client.transport.transport import Lane, Request
from asyncctl.clock import SystemClock
from asyncctl.controller.outcome import Failure, classify
from asyncctl.testing.clock import FakeClock
from tests.unit.support import Log, http_server, make_transport, until

V1 = "client.authentication.k8s.io/v1"


def shows(identity):
    return dict(identity.headers).get("Authorization")


class Setting:
    """Credentials with a clock and a log of their own, closed at the end."""

    def __init__(self, config, clock=None, **options):
        self.clock = clock or FakeClock()
        self.log = Log()
        self.credentials = Credentials(config, self.clock, self.log.logger, **options)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.credentials.aclose()

    async def shown(self):
        return shows(await self.credentials.current())


class Plugin:
    """A real plugin that says what the test wants, and counts how often it was asked."""

    def __init__(self, folder, clock):
        self.answer, self.runs, self.gate = folder / "answer", folder / "runs", folder / "gate"
        self.clock = clock
        script = folder / "plugin"
        script.write_text(
            f'#!/bin/sh\necho $$ >> "{self.runs}"\nwhile [ -e "{self.gate}" ]; do sleep 0.02; done\n. "{self.answer}"\n'
        )
        script.chmod(0o700)
        self.config = ClusterConfig(
            server="https://c", exec_plugin=ExecPlugin(command=str(script), environ=(("PATH", os.defpath),))
        )

    def gives(self, token, lasts=None):
        status = {"token": token}
        if lasts is not None:
            status["expirationTimestamp"] = (self.clock.now() + timedelta(seconds=lasts)).isoformat()
        self.answer.write_text(f"echo '{json.dumps({'kind': 'ExecCredential', 'apiVersion': V1, 'status': status})}'")

    def fails(self, said="no network"):
        self.answer.write_text(f"echo {said} >&2; exit 1")

    @property
    def count(self):
        return len(self.runs.read_text().split()) if self.runs.exists() else 0


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def plugin(tmp_path, clock):
    return Plugin(tmp_path, clock)


# What does not change.


async def test_nobody_and_a_fixed_header_stay_as_they_are():
    async with Setting(ClusterConfig(server="https://c")) as nobody:
        assert await nobody.credentials.current() == Identity()
        assert not await nobody.credentials.refresh()
    async with Setting(ClusterConfig(server="https://c", authorization="Basic x")) as fixed:
        assert await fixed.shown() == "Basic x"
        assert not await fixed.credentials.refresh()
        assert "x" not in repr(await fixed.credentials.current()).replace("Authorization", "")
        assert "Basic" not in repr(fixed.credentials._held)


async def test_whom_to_act_as_is_said_beside_who_we_are():
    config = ClusterConfig(
        server="https://c", authorization="Bearer t", impersonate=Impersonation(user="jane", groups=("dev",))
    )
    async with Setting(config) as setting:
        assert (await setting.credentials.current()).headers == (
            ("Authorization", "Bearer t"), ("Impersonate-User", "jane"), ("Impersonate-Group", "dev"),
        )  # fmt: skip


# Token files.


async def test_a_token_file_is_read_again_after_a_minute_and_not_before(tmp_path, clock):
    file = tmp_path / "token"
    file.write_text("one\n")
    async with Setting(ClusterConfig(server="https://c", token_file=file), clock) as setting:
        assert await setting.shown() == "Bearer one"
        file.write_text("two\n")
        clock.advance(59)
        assert await setting.shown() == "Bearer one"
        clock.advance(1)
        assert await setting.shown() == "Bearer two"


async def test_a_token_file_that_can_not_be_used_keeps_the_last_token_and_is_told_once(tmp_path, clock):
    file = tmp_path / "token"
    file.write_text("good")
    async with Setting(ClusterConfig(server="https://c", token_file=file), clock) as setting:
        await setting.shown()
        file.unlink()
        for _ in range(3):
            clock.advance(60)
            assert await setting.shown() == "Bearer good"
        assert len(setting.log.said("the last one is used", "warning")) == 1
        assert setting.log.said(f"the token file {file} can't be used: No such file or directory")
        file.write_text("better")
        clock.advance(60)
        assert await setting.shown() == "Bearer better"


async def test_without_any_token_it_is_an_error_until_the_file_is_there(tmp_path, clock):
    file = tmp_path / "token"
    async with Setting(ClusterConfig(server="https://c", token_file=file), clock) as setting:
        with pytest.raises(CredentialsError, match=r"token can't be used: No such file"):
            await setting.shown()
        file.write_text("t")
        assert await setting.shown() == "Bearer t"


async def test_a_token_beside_a_token_file_is_for_as_long_as_the_file_has_none(tmp_path, clock):
    file = tmp_path / "token"
    config = ClusterConfig(server="https://c", token_file=file, authorization="Bearer fixed")
    async with Setting(config, clock) as setting:
        assert await setting.shown() == "Bearer fixed"
        file.write_text("read")
        clock.advance(10)
        assert await setting.shown() == "Bearer read"


async def test_a_token_file_that_is_gone_is_not_looked_for_with_each_request(tmp_path, clock, monkeypatch):
    file = tmp_path / "token"
    file.write_text("good")
    looked = []
    real = Path.read_text

    def noting(path, *args):
        looked.append(path)
        return real(path, *args)

    async with Setting(ClusterConfig(server="https://c", token_file=file), clock) as setting:
        used = await setting.credentials.current()
        file.unlink()
        monkeypatch.setattr(Path, "read_text", noting)
        clock.advance(60)
        assert {await setting.shown() for _ in range(100)} == {"Bearer good"}
        assert looked == [file]
        clock.advance(9)
        await setting.shown()
        assert looked == [file]
        file.write_text("better")
        assert await setting.credentials.refresh(used)  # a 401 does not wait
        assert await setting.shown() == "Bearer better"


BROKEN = ["SECRET\nSECRET", "SECRET\r\nX: y", "SECRET\x00", "SECRET\x7f"]


@pytest.mark.parametrize("token", BROKEN)
async def test_a_token_file_with_a_line_end_within_is_told_without_the_token(tmp_path, clock, token):
    file = tmp_path / "token"
    file.write_text(token, newline="")
    async with Setting(ClusterConfig(server="https://c", token_file=file), clock) as setting:
        with pytest.raises(CredentialsError, match=f"the token file {file} can't be used: it has a line end") as caught:
            await setting.shown()
        assert "SECRET" not in f"{caught.value!r} {caught.value.__cause__!r} {setting.log.lines}"
        file.write_text("good")
        assert await setting.shown() == "Bearer good"
        file.write_text(token, newline="")
        clock.advance(60)
        assert await setting.shown() == "Bearer good"
        assert "SECRET" not in str(setting.log.said("the last one is used", "warning"))


@pytest.mark.parametrize("token", BROKEN)
async def test_a_fixed_header_with_a_line_end_within_is_told_at_its_first_use(clock, token):
    config = ClusterConfig(server="https://c", source="the file x", authorization=f"Bearer {token}")
    async with Setting(config, clock) as setting:
        for _ in range(2):
            with pytest.raises(CredentialsError, match="the Authorization of the file x can't be used") as caught:
                await setting.shown()
            assert "SECRET" not in f"{caught.value!r}"


# Plugins.


async def test_a_plugin_is_run_once_and_again_a_minute_before_its_token_ends(plugin, clock):
    plugin.gives("one", lasts=600)
    async with Setting(plugin.config, clock) as setting:
        for _ in range(3):
            assert await setting.shown() == "Bearer one"
        plugin.gives("two", lasts=1200)
        clock.advance(539)
        assert await setting.shown() == "Bearer one"
        assert plugin.count == 1
        clock.advance(1)
        assert await setting.shown() == "Bearer one"  # nobody waits while it is valid
        await until(lambda: setting.credentials._task is None, 20)
        assert await setting.shown() == "Bearer two"
        assert plugin.count == 2


async def test_a_short_credential_is_renewed_when_a_fifth_of_its_life_is_left(plugin, clock):
    plugin.gives("one", lasts=100)
    async with Setting(plugin.config, clock) as setting:
        await setting.shown()
        plugin.gives("two", lasts=1000)
        clock.advance(79)
        await setting.shown()
        assert setting.credentials._task is None
        clock.advance(1)
        await setting.shown()
        await until(lambda: setting.credentials._task is None, 20)
        assert await setting.shown() == "Bearer two"


async def test_a_credential_that_ended_while_the_machine_slept_is_not_shown_again(plugin, clock):
    plugin.gives("one", lasts=600)
    async with Setting(plugin.config, clock) as setting:
        await setting.shown()
        clock.suspend(3600)
        plugin.gives("two", lasts=600)
        assert await setting.shown() == "Bearer two"


async def test_a_credential_without_an_end_is_kept(plugin, clock):
    plugin.gives("one")
    async with Setting(plugin.config, clock) as setting:
        await setting.shown()
        clock.advance(10**8)
        assert await setting.shown() == "Bearer one"
        assert plugin.count == 1


async def test_all_who_ask_at_once_share_one_run(plugin, clock):
    plugin.gives("one")
    async with Setting(plugin.config, clock) as setting:
        assert set(await asyncio.gather(*(setting.shown() for _ in range(50)))) == {"Bearer one"}
        assert plugin.count == 1


async def test_all_who_ask_at_once_share_one_failure_which_is_not_repeated_at_once(plugin, clock):
    plugin.fails()
    async with Setting(plugin.config, clock) as setting:
        found = await asyncio.gather(*(setting.shown() for _ in range(10)), return_exceptions=True)
        assert {type(each) for each in found} == {CredentialsError}
        assert all("failed with exit code 1; it said: no network" in str(each) for each in found)
        assert plugin.count == 1
        plugin.gives("one")
        clock.advance(9)
        with pytest.raises(CredentialsError, match="no network"):
            await setting.shown()
        assert plugin.count == 1
        clock.advance(1)
        assert await setting.shown() == "Bearer one"


async def test_a_plugin_that_fails_in_time_leaves_the_last_credential_in_use_and_is_told_once(plugin, clock):
    plugin.gives("one", lasts=600)
    async with Setting(plugin.config, clock) as setting:
        await setting.shown()
        plugin.fails()
        clock.advance(540)
        for _ in range(3):
            clock.advance(10)
            assert await setting.shown() == "Bearer one"
            await until(lambda: setting.credentials._task is None, 20)
        assert plugin.count == 4
        assert len(setting.log.said("could not be renewed; the last one is used", "warning")) == 1
        clock.advance(30)
        with pytest.raises(CredentialsError, match="no network"):  # it has ended
            await setting.shown()
        plugin.gives("two", lasts=600)
        clock.advance(10)
        assert await setting.shown() == "Bearer two"


async def test_who_is_cancelled_while_waiting_takes_nothing_from_the_others(plugin, clock):
    plugin.gives("one")
    plugin.gate.touch()
    async with Setting(plugin.config, clock) as setting:
        first, second = (asyncio.create_task(setting.shown(), name=name) for name in ("first", "second"))
        await until(lambda: plugin.count, 20)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        plugin.gate.unlink()
        assert await second == "Bearer one"
        assert plugin.count == 1


async def test_closing_ends_a_run_and_those_who_wait_for_it(plugin, clock):
    plugin.gives("one")
    plugin.gate.touch()
    setting = Setting(plugin.config, clock)
    waiting = asyncio.create_task(setting.shown(), name="waiting")
    await until(lambda: plugin.count, 20)
    await setting.credentials.aclose()
    with pytest.raises(CredentialsError, match="the client is closed"):
        await waiting
    with pytest.raises(CredentialsError, match="the client is closed"):
        await setting.shown()  # and no other run is begun
    assert plugin.count == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int(plugin.runs.read_text()), 0)


async def test_a_plugin_that_hangs_is_given_up_at_its_deadline(plugin):
    plugin.gives("one")
    plugin.gate.touch()
    async with Setting(plugin.config, SystemClock(), plugin_deadline=0.2) as setting:
        with pytest.raises(CredentialsError, match=r"did not end within 0.2 s and was killed"):
            await setting.shown()


# After a 401.


async def test_a_401_runs_the_plugin_again_and_tells_whether_that_has_helped(plugin, clock):
    plugin.gives("one")
    async with Setting(plugin.config, clock) as setting:
        used = await setting.credentials.current()
        plugin.gives("two")
        assert await setting.credentials.refresh(used)
        assert await setting.shown() == "Bearer two"
        assert plugin.count == 2


async def test_401s_of_one_moment_share_one_run(plugin, clock):
    plugin.gives("one")
    async with Setting(plugin.config, clock) as setting:
        used = await setting.credentials.current()
        plugin.gives("two")
        assert all(await asyncio.gather(*(setting.credentials.refresh(used) for _ in range(20))))
        assert await setting.credentials.refresh(used)  # a late one: what it had shown is not shown any more
        assert await setting.credentials.refresh()
        assert plugin.count == 2


async def test_the_same_credential_again_is_no_reason_to_try_again_nor_to_run_for_each_401(plugin, clock):
    plugin.gives("one")
    async with Setting(plugin.config, clock) as setting:
        used = await setting.credentials.current()
        clock.advance(60)
        assert not await setting.credentials.refresh(used)
        assert not await setting.credentials.refresh(used)
        assert plugin.count == 2
        clock.advance(10)
        plugin.gives("two")
        assert await setting.credentials.refresh(used)


async def test_a_plugin_that_fails_after_a_401_is_no_reason_to_try_again(plugin, clock):
    plugin.gives("one")
    async with Setting(plugin.config, clock) as setting:
        used = await setting.credentials.current()
        plugin.fails()
        clock.advance(60)
        assert not await setting.credentials.refresh(used)
        assert await setting.shown() == "Bearer one"


async def test_the_api_server_sees_the_new_token_of_a_plugin_after_one_401(tmp_path):
    plugin = Plugin(tmp_path, SystemClock())
    plugin.gives("old")
    seen = []

    async def handler(request):
        seen.append(request.headers["Authorization"])
        if seen[-1] == "Bearer new":
            return web.json_response({})
        plugin.gives("new")
        return web.json_response({"kind": "Status", "code": 401, "reason": "Unauthorized"}, status=401)

    get = Request(target=Target("get", "x"), method="GET", path="/x", lane=Lane.READ)
    async with http_server(handler) as url:
        config = ClusterConfig(server=url, exec_plugin=plugin.config.exec_plugin)
        async with make_transport(config) as transport:
            await transport.request(get)
    assert seen == ["Bearer old", "Bearer new"]


# What it means to the rest.


def test_an_error_of_credentials_says_nothing_of_the_object():
    assert classify(CredentialsError("the plugin hangs")) is Failure.UNCOUNTED


async def test_two_event_loops_have_each_their_own_of_one_configuration(plugin, clock):
    plugin.gives("one")
    found = []

    async def other():
        async with Setting(plugin.config) as setting:
            found.append(await setting.shown())

    thread = threading.Thread(target=lambda: asyncio.run(other()), name="other loop")
    thread.start()
    async with Setting(plugin.config, clock) as setting:
        found.append(await setting.shown())
    await asyncio.to_thread(thread.join)
    assert found == ["Bearer one", "Bearer one"]
    assert plugin.count == 2


async def test_a_token_file_whose_volume_hangs_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("asyncctl.client.config.credentials._FILE", 0.1)
    file = tmp_path / "token"
    os.mkfifo(file)  # that nobody writes to
    credentials = Credentials(ClusterConfig(server="https://a", token_file=file), FakeClock(), Log().logger)
    with pytest.raises(CredentialsError, match=r"the token file .* could not be read within 0\.1 s"):
        await credentials.current()
    await credentials.aclose()
    with file.open("w"):  # lets the thread go that waits for it
        pass
