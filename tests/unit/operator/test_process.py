"""An operator as a program: exit codes, messages and signals, in processes of their own."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from asyncctl.objects import ConfigMap
from asyncctl.operator import process as module

PROGRAM = """
import asyncio
from asyncctl.objects import ConfigMap
from asyncctl.operator import Operator

operator = Operator("test")

@operator.controller(ConfigMap)
async def reconcile(ctx, obj):
    print("pass", flush=True)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise

operator.run()
"""
ROOT = Path(__file__).parents[3]


def environment(tmp_path, **environ):
    return {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT),
        "ASYNCCTL_HTTP_ADDRESS": "127.0.0.1:0", "ASYNCCTL_DEBUG_ADDRESS": "127.0.0.1:0",
        "ASYNCCTL_LEADER_ELECTION": "false", "ASYNCCTL_LOG_FORMAT": "json",
        "ASYNCCTL_TERMINATION_LOG": str(tmp_path / "termination-log"),
    } | environ  # fmt: skip


def start(tmp_path, program=PROGRAM, **environ):
    return subprocess.Popen(
        [sys.executable, "-c", program], env=environment(tmp_path, **environ), cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process, seconds=20):
    out, err = process.communicate(timeout=seconds)
    assert "Traceback" not in err, err
    return process.returncode, out + err


def kubeconfig(tmp_path, server="http://127.0.0.1:1"):
    path = tmp_path / "kubeconfig"
    path.touch(0o600)
    path.write_text(
        f"clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n"
        "contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\ncurrent-context: c\n"
    )
    return str(path)


def test_help_of_a_program_of_ones_own_lists_its_settings_and_what_is_wrong_with_them(tmp_path):
    own = """
from asyncctl import Settings, setting
from asyncctl.operator import Operator

class WidgetSettings(Settings, prefix="WIDGETS_"):
    size: int = setting(default=3, at_least=1, meaning="parts of a new widget")

Operator("widgets", settings=WidgetSettings).run()
"""
    done = subprocess.run(
        [sys.executable, "-c", own, "--help"], env=environment(tmp_path, WIDGETS_SIZE="0", ASYNCCTL_WORKRES="1"),
        cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^WIDGETS_SIZE +0 \(not usable\) +parts of a new widget", done.stdout, re.MULTILINE)
    assert "did you mean ASYNCCTL_WORKERS?" in done.stdout
    assert "Operator widgets." in done.stdout
    assert "exit code: 0 after SIGTERM" in done.stdout


def test_bad_settings_end_with_2_and_one_message_that_lists_them(tmp_path):
    code, text = ended(
        start(tmp_path, ASYNCCTL_WORKERS="none", ASYNCCTL_LEASE_DURATION="-1", ASYNCCTL_NAMESPACE="team")
    )
    assert code == 2
    assert "ASYNCCTL_WORKERS=none" in text
    assert "ASYNCCTL_LEASE_DURATION=-1" in text
    assert "ASYNCCTL_NAMESPACE is not a setting; did you mean ASYNCCTL_NAMESPACES?" in text


def message(tmp_path):
    return (tmp_path / "termination-log").read_text().splitlines()


def test_bad_settings_are_in_the_termination_message(tmp_path):
    (tmp_path / "termination-log").write_text("what was there before is longer than what comes" * 100)
    code, _ = ended(start(tmp_path, ASYNCCTL_WORKERS="none", ASYNCCTL_RESYNC="never"))
    assert code == 2
    first, second = message(tmp_path)
    assert first == "exit code 2: the settings are not usable:"
    assert "ASYNCCTL_WORKERS=none" in second
    assert "ASYNCCTL_RESYNC=never" in second


def test_where_there_is_no_file_for_the_termination_message_none_is_made(tmp_path):
    code, _ = ended(start(tmp_path))
    assert code == 2
    assert not (tmp_path / "termination-log").exists()


def test_an_error_that_nobody_foresaw_is_in_the_termination_message(tmp_path):
    hook = """
@operator.on_startup
async def fail(running):
    raise RuntimeError("no such luck")

operator.run()
"""
    (tmp_path / "termination-log").touch()
    process = start(tmp_path, PROGRAM.replace("operator.run()", hook), KUBECONFIG=kubeconfig(tmp_path))
    process.communicate(timeout=20)
    assert process.returncode == 1
    assert message(tmp_path) == [
        "exit code 1: ends, because of an error that nobody foresaw", "RuntimeError: no such luck"
    ]  # fmt: skip


async def test_a_lost_lease_is_in_the_termination_message(cluster, tmp_path):
    (tmp_path / "termination-log").touch()
    process = start(
        tmp_path, KUBECONFIG=kubeconfig(tmp_path, cluster.config.server), ASYNCCTL_LEADER_ELECTION="true",
        ASYNCCTL_LEASE_NAMESPACE="default", ASYNCCTL_LEASE_NAME="l", ASYNCCTL_RETRY_PERIOD="100ms",
    )  # fmt: skip
    await asyncio.to_thread(wait_for, process, process.stderr, "became the leader")
    path, other = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l", {"spec": {"holderIdentity": "other"}}
    await cluster.send("PATCH", path, other, content_type="application/merge-patch+json")
    code, text = await asyncio.to_thread(ended, process)
    assert code == 1
    assert "ends, because the Lease is lost" in text
    first, second = message(tmp_path)
    assert first == "exit code 1: ends, because the Lease is lost"
    assert "the Lease" in second


def test_a_stop_that_hangs_is_left_after_its_time(tmp_path):
    hangs = """
from asyncctl.http import Server
from asyncctl.operator import running
Server.stop = lambda self: asyncio.sleep(3600)
running.longest = lambda drain, hooks: 0.5
operator.run()
"""
    (tmp_path / "termination-log").touch()
    process = start(tmp_path, PROGRAM.replace("operator.run()", hangs), KUBECONFIG=kubeconfig(tmp_path))
    wait_for(process, process.stderr, "can't be reached")
    process.send_signal(signal.SIGTERM)
    code, text = ended(process, 10)
    assert code == 1
    assert "the stop takes longer than 0.5 s; the process ends without it" in text
    assert message(tmp_path) == ["exit code 1: the stop takes longer than 0.5 s; the process ends without it"]


def test_no_cluster_ends_with_2_and_names_the_places(tmp_path):
    code, text = ended(start(tmp_path))
    assert code == 2
    assert text.count("no cluster found") == 1
    for place in ("KUBERNETES_SERVICE_HOST is not set", "KUBECONFIG: not set", ".kube/config: does not exist"):
        assert place in text


def test_a_kubeconfig_that_is_no_yaml_ends_with_2(tmp_path):
    bad = tmp_path / "bad"
    bad.write_text("clusters: [")
    code, text = ended(start(tmp_path, KUBECONFIG=str(bad)))
    assert code == 2
    assert "is not YAML" in text


def test_a_ca_that_is_none_ends_with_2(tmp_path):
    ca = tmp_path / "ca.crt"
    ca.write_text("this is no certificate")
    path = Path(kubeconfig(tmp_path, "https://127.0.0.1:1"))
    path.write_text(path.read_text().replace("1'", f"1', certificate-authority: '{ca}'"))
    code, text = ended(start(tmp_path, KUBECONFIG=str(path)))
    assert code == 2
    assert f"the CA file {ca} has no CERTIFICATE in PEM form" in text


def with_plugin(tmp_path, command):
    path = Path(kubeconfig(tmp_path, "https://127.0.0.1:1"))
    plugin = "apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, installHint: brew install it"
    path.write_text(path.read_text().replace("user: {}", f"user: {{exec: {{command: {command}, {plugin}}}}}"))
    return str(path)


def failing_plugin(tmp_path):
    command = tmp_path / "plugin"
    command.write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    command.chmod(0o700)
    return with_plugin(tmp_path, command)


def test_a_plugin_that_is_not_there_ends_with_2_and_how_to_get_it(tmp_path):
    code, text = ended(start(tmp_path, KUBECONFIG=with_plugin(tmp_path, "no-such-plugin")))
    assert code == 2
    assert "the exec plugin no-such-plugin is not found in PATH; brew install it" in text


ASKS = PROGRAM.replace(
    "operator.run()",
    """
@operator.on_startup
async def ask(running):
    await running.client.get(ConfigMap, "x", namespace="default")

operator.run()
""",
)


def test_a_plugin_that_fails_when_a_startup_hook_needs_it_ends_with_2(tmp_path):
    code, text = ended(start(tmp_path, ASKS, KUBECONFIG=failing_plugin(tmp_path)))
    assert code == 2
    assert "failed with exit code 1; it said: no network" in text


def test_a_connection_that_is_cut_while_a_startup_hook_asks_is_no_wrong_configuration(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def cut():
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=cut, name="cuts handshakes")
        thread.start()
        address = f"https://127.0.0.1:{server.getsockname()[1]}"
        code, text = ended(start(tmp_path, ASKS, KUBECONFIG=kubeconfig(tmp_path, address)))
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert code == 1
    assert "ends, because a startup hook got no answer" in text
    assert address in text


def test_a_plugin_that_fails_later_is_no_exit(tmp_path):
    process = start(tmp_path, KUBECONFIG=failing_plugin(tmp_path))
    wait_for(process, process.stderr, "failed with exit code 1; it said: no network")
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    code, text = ended(process, 5)
    assert code == 0
    assert '"msg":"stopped"' in text


def test_a_port_that_is_taken_ends_with_2(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, text = ended(start(tmp_path, KUBECONFIG=kubeconfig(tmp_path), ASYNCCTL_HTTP_ADDRESS=address))
    assert code == 2
    assert f"can't listen on {address}" in text


def test_what_a_listener_is_told_and_can_not_do_ends_with_2_and_one_line(tmp_path):
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    cert.write_text("half a certifi")
    key.touch(0o600)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        pair = {"ASYNCCTL_METRICS_CERT": str(cert), "ASYNCCTL_METRICS_KEY": str(key)}
        told = {
            f"can't listen on {address}: something listens there already; stop it or set ASYNCCTL_METRICS_ADDRESS": {
                "ASYNCCTL_METRICS_ADDRESS": address
            },
            f"can't listen on {address}: something listens there already; stop it or set ASYNCCTL_DEBUG_ADDRESS": {
                "ASYNCCTL_DEBUG_ADDRESS": address
            },
            f"the serving certificate file {cert} has no CERTIFICATE in PEM form": {
                "ASYNCCTL_METRICS_ADDRESS": "127.0.0.1:0"
            }
            | pair,
        }
        processes = [start(tmp_path, KUBECONFIG=kubeconfig(tmp_path), **each) for each in told.values()]
        for line, process in zip(told, processes, strict=True):
            code, text = ended(process, 60)
            assert code == 2
            assert len([each for each in text.splitlines() if '"level":"error"' in each and line in each]) == 1
            assert text.count('"level":"error"') == 1


def wait_for(process, stream, part, seconds=20):
    deadline = time.monotonic() + seconds
    for line in iter(stream.readline, ""):
        if part in line:
            return
        assert time.monotonic() < deadline, line
    pytest.fail(f"it ended without {part!r}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_unreachable_server_is_no_exit_and_a_signal_ends_with_0(tmp_path, number):
    process = start(tmp_path, KUBECONFIG=kubeconfig(tmp_path))
    wait_for(process, process.stderr, "can't be reached")
    assert process.poll() is None
    process.send_signal(number)
    code, text = ended(process, 5)
    assert code == 0
    assert '"msg":"stopped"' in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_startup_hook_ends_the_start_with_0(tmp_path, number):
    hook = """
@operator.on_startup
async def wait(running):
    running.logger.info("in the hook")
    await asyncio.sleep(3600)

operator.run()
"""
    process = start(tmp_path, KUBECONFIG=kubeconfig(tmp_path), program=PROGRAM.replace("operator.run()", hook))
    wait_for(process, process.stderr, "in the hook")
    process.send_signal(number)
    code, _ = ended(process, 5)
    assert code == 0


async def test_a_pass_that_swallows_its_cancellation_does_not_keep_the_process(cluster, tmp_path):
    await cluster.create(ConfigMap, "c")
    (tmp_path / "termination-log").touch()
    process = start(
        tmp_path, KUBECONFIG=kubeconfig(tmp_path, cluster.config.server), ASYNCCTL_DRAIN_TIMEOUT="100ms",
        program=PROGRAM.replace("            raise", "            pass").replace(
            "operator.run()", "import asyncctl.controller.controller as module; module.GIVE_UP = 0.2; operator.run()"
        ),
    )  # fmt: skip
    await asyncio.to_thread(wait_for, process, process.stdout, "pass")
    process.send_signal(signal.SIGTERM)
    code, text = await asyncio.to_thread(ended, process, 5)
    assert code == 1
    assert "the process ends without it" in text
    assert f"pass of configmaps over {cluster.namespace}/c" in (tmp_path / "termination-log").read_text()


@pytest.mark.parametrize("together, exits", [(3600.0, []), (0.0, [128 + signal.SIGTERM])], ids=["together", "later"])
async def test_signals_that_come_together_are_one(monkeypatch, together, exits):
    """As `timeout` sends them: to the process, and to its group."""
    ended = []
    monkeypatch.setattr(module, "TOGETHER", together)
    monkeypatch.setattr(module.os, "_exit", ended.append)
    stop, heard, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, heard.set)  # signals are heard in their order
    module.handle_signals(stop)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        await heard.wait()
    finally:
        for number in (*module.SIGNALS, signal.SIGUSR1):
            loop.remove_signal_handler(number)
    assert ended == exits


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_drain_at_once(cluster, tmp_path, number):
    await cluster.create(ConfigMap, "c")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env=environment(tmp_path, KUBECONFIG=kubeconfig(tmp_path, cluster.config.server)),
    )  # fmt: skip
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"pass\n"
        process.send_signal(number)
        with pytest.raises(TimeoutError):  # the pass runs: it drains
            await asyncio.wait_for(process.wait(), 0.5)
        process.send_signal(number)
        assert await process.wait() == 128 + number
