"""The control plane the other suites count on: true to its version, with RBAC and collection, gone with the run."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.controlplane import build
from tests.controlplane.controlplane import ControlPlane, ControlPlaneError
from tests.controlplane.process import Process

CONFIGMAPS = "/api/v1/namespaces/default/configmaps"


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def ends_within(pid, seconds):
    """Tell whether the process ends in time; one that is over but not yet reaped has ended."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], seconds)[0])
    finally:
        os.close(watched)


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Start a Python program that can import what this file can; it is killed at the latest when the test ends."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # a program that is killed leaves its files
    with contextlib.ExitStack() as stack:

        def start(code, *arguments):
            child = subprocess.Popen(
                [sys.executable, "-c", code, *map(str, arguments)],
                cwd=Path(__file__).parents[2],
                stdout=subprocess.PIPE,
            )
            stack.enter_context(child)
            stack.callback(child.kill)
            return child

        yield start


# What it is


@pytest.mark.skipif("KUBEBUILDER_ASSETS" in os.environ, reason="the version is that of KUBEBUILDER_ASSETS")
def test_it_says_the_version_that_is_pinned(kube):
    assert kube.request("GET", "/version")[1]["gitVersion"] == f"v{build.pinned('k8s.io/kubernetes', 'kubernetes')}"


def test_a_user_without_a_role_is_forbidden(kube):
    code, status = kube.request("GET", "/api/v1/secrets", user="nobody")
    assert (code, status["reason"]) == (403, "Forbidden")


def test_the_admin_is_allowed(kube):
    assert kube.request("GET", "/api/v1/secrets")[0] == 200


def test_what_a_deleted_owner_owned_is_collected(kube):
    _, owner = kube.request("POST", CONFIGMAPS, {"metadata": {"name": "owner"}})
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    kube.request("POST", CONFIGMAPS, {"metadata": {"name": "owned", "ownerReferences": [reference]}})
    kube.request("DELETE", f"{CONFIGMAPS}/owner")
    until(lambda: kube.request("GET", f"{CONFIGMAPS}/owned")[0] == 404)


def test_a_new_namespace_gets_its_service_account(kube):
    kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": "fresh"}})
    until(lambda: kube.request("GET", "/api/v1/namespaces/fresh/serviceaccounts/default")[0] == 200)


def test_a_deleted_namespace_goes_with_all_in_it(kube):
    kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": "gone"}})
    kube.request("POST", "/api/v1/namespaces/gone/configmaps", {"metadata": {"name": "inside"}})
    kube.request("DELETE", "/api/v1/namespaces/gone")
    until(lambda: kube.request("GET", "/api/v1/namespaces/gone")[0] == 404)


def test_a_service_account_gets_a_token_that_is_accepted(kube):
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    code, answer = kube.request("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", request)
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": answer["status"]}
    _, reviewed = kube.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)
    assert (code, reviewed["status"]["user"]["username"]) == (201, "system:serviceaccount:default:default")


def test_a_kubeconfig_is_for_its_owner_only(kube, tmp_path):
    assert kube.kubeconfig(tmp_path / "kubeconfig").stat().st_mode & 0o777 == 0o600


# Its life


def test_an_api_server_that_was_away_comes_back_at_its_address_with_its_objects(kube):
    with ControlPlane(kube.programs) as plane:
        plane.request("POST", CONFIGMAPS, {"metadata": {"name": "kept"}})
        url = plane.url
        plane.stop_apiserver(kill=True)
        with pytest.raises(ConnectionRefusedError):
            plane.request("GET", "/readyz")
        plane.start_apiserver()
        assert (plane.url, plane.request("GET", f"{CONFIGMAPS}/kept")[0]) == (url, 200)


def test_what_was_stopped_leaves_no_process_and_no_file(kube):
    plane = ControlPlane(kube.programs)
    plane.start()
    pids = plane.pids
    plane.stop()
    assert len(pids) == 3
    assert all(ends_within(pid, 0) for pid in pids.values())
    assert not plane.folder.exists()


def test_a_killed_run_leaves_no_process(kube, python):
    run = python(
        "import json, signal, sys, pathlib\n"
        "from tests.controlplane.controlplane import ControlPlane\n"
        "plane = ControlPlane(pathlib.Path(sys.argv[1]))\n"
        "plane.start()\n"
        "print(json.dumps(plane.pids), flush=True)\n"
        "signal.pause()\n",
        kube.programs,
    )
    pids = json.loads(run.stdout.readline())
    assert len(pids) == 3
    run.kill()
    left = {name: pid for name, pid in pids.items() if not ends_within(pid, 10)}
    for pid in left.values():
        os.kill(pid, signal.SIGKILL)
    assert not left


def test_a_program_that_does_not_start_is_reported_with_its_last_words(tmp_path):
    for name in build.PROGRAMS:
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} has no wish to run\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    plane = ControlPlane(tmp_path)
    with pytest.raises(ControlPlaneError, match="has no wish to run"):
        plane.start()
    assert not plane.pids


def test_a_program_that_ignores_sigterm_is_killed(tmp_path):
    code = "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    process = Process([sys.executable, "-c", code], tmp_path / "log")
    until(lambda: process.tail() == "deaf")
    process.stop(deadline=0.1)
    assert ends_within(process.pid, 0)


def test_a_program_outlives_the_thread_that_asked_for_it(tmp_path):
    started = []

    def start():
        started.append(Process(["sh", "-c", "echo up; exec sleep 60"], tmp_path / "log"))
        until(lambda: started[0].tail() == "up")

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    try:
        assert not ends_within(started[0].pid, 0.2)
    finally:
        started[0].stop()


def test_ctrl_c_on_the_terminal_does_not_reach_a_program(tmp_path):
    process = Process(["sleep", "60"], tmp_path / "log")
    try:
        assert os.getpgid(process.pid) != os.getpgrp()
    finally:
        process.stop()


# How it is built


def test_the_elector_to_contend_with_is_of_the_control_planes_version():
    assert (
        build.pinned("k8s.io/client-go", "elector").split(".")[1:]
        == (build.pinned("k8s.io/kubernetes", "kubernetes").split(".")[1:])
    )


def test_two_builds_at_once_build_once(tmp_path):
    made, waiting = [], threading.Event()

    def make(scratch):
        assert waiting.wait(10), "the other did not wait"
        made.append(scratch)

    def other(line):
        waiting.set()

    runs = [threading.Thread(target=build.once, args=(tmp_path / "1.0", make, other)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(20)
    assert len(made) == 1
    assert (tmp_path / "1.0").is_dir()


def test_a_failed_build_is_not_taken_for_a_finished_one(tmp_path):
    def fail(scratch):
        (scratch / "half").touch()
        raise build.BuildFailed

    with pytest.raises(build.BuildFailed):
        build.once(tmp_path / "1.0", fail)
    assert list(build.once(tmp_path / "1.0", lambda scratch: (scratch / "whole").touch()).iterdir()) == [
        tmp_path / "1.0" / "whole"
    ]


def test_after_a_killed_build_the_next_run_builds_anew(tmp_path, python):
    killed = python(
        "import pathlib, signal, sys\n"
        "from tests.controlplane import build\n"
        "def make(scratch):\n"
        "    (scratch / 'half').touch()\n"
        "    print('building', flush=True)\n"
        "    signal.pause()\n"
        "build.once(pathlib.Path(sys.argv[1]), make)\n",
        tmp_path / "1.0",
    )
    assert killed.stdout.readline() == b"building\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait(10)
    folder = build.once(tmp_path / "1.0", lambda scratch: (scratch / "whole").touch())
    assert [file.name for file in folder.iterdir()] == ["whole"]


def test_a_failed_go_build_shows_what_go_said(tmp_path):
    with pytest.raises(build.BuildFailed, match="no-such-package"):
        build.go(["./no-such-package"], build.HERE / "etcd", tmp_path / "log")


def test_without_go_the_reason_says_so(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.Unavailable, match="Go is not on PATH"):
        build.programs()


def test_ready_programs_are_taken_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    for name in build.PROGRAMS:
        (tmp_path / name).touch(0o755)
    assert build.programs() == tmp_path


def test_a_folder_of_ready_programs_that_lacks_one_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    (tmp_path / "etcd").touch(0o755)
    with pytest.raises(build.Unavailable, match="has no kube-apiserver, kube-controller-manager"):
        build.programs()
