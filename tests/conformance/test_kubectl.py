"""kubectl against both servers: what a person types must do what it does on a real cluster, and say so."""

import asyncio
import json
import os
import shutil

import pytest
import yaml

from tests.conformance.conftest import WIDGETS

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")


class Kubectl:
    def __init__(self, backend, namespace, folder):
        self.folder = folder
        self._backend = backend
        self._namespace = namespace
        self._config = folder / "config"
        user = {"token": backend.token} if backend.token else {}
        cluster = {"server": backend.url}
        if backend.ca:
            cluster["certificate-authority"] = backend.ca
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
            "current-context": "x",
        }
        self._config.write_text(yaml.safe_dump(config))

    async def start(self, *arguments):
        environment = {**os.environ, "KUBECONFIG": str(self._config), "HOME": str(self.folder)}
        return await asyncio.create_subprocess_exec(
            "kubectl", *arguments, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )

    async def __call__(self, *arguments, code=0):
        """Run kubectl; return what it printed. It must end with `code` and, if that is 0, with no word on stderr."""
        async with asyncio.timeout(60):
            process = await self.start(*arguments)
            out, error = await process.communicate()
        assert process.returncode == code, (out, error)
        assert code or not error, error
        return (out if not code else error).decode()

    def write(self, name, *objects):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump_all(objects))
        return str(path)


@pytest.fixture
async def kubectl(backend, client, tmp_path):
    return Kubectl(backend, client.names.values["ns"], tmp_path)


def widget(name="w", **spec):
    return {
        "apiVersion": "conformance.example.com/v1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": {"size": 3, **spec},
    }


def named(text):
    return [line.split()[0] for line in text.splitlines()[1:]]


async def test_apply_is_created_then_unchanged_then_configured(kubectl):
    path = kubectl.write("w.yaml", widget())
    assert await kubectl("apply", "-f", path) == "widget.conformance.example.com/w created\n"
    assert await kubectl("apply", "-f", path) == "widget.conformance.example.com/w unchanged\n"
    kubectl.write("w.yaml", widget(size=4))
    assert await kubectl("apply", "-f", path) == "widget.conformance.example.com/w configured\n"


async def test_server_side_apply(kubectl):
    path = kubectl.write("w.yaml", widget())
    assert await kubectl("apply", "--server-side", "-f", path) == (
        "widget.conformance.example.com/w serverside-applied\n"
    )
    kubectl.write("w.yaml", widget(size=5))
    error = await kubectl("apply", "--server-side", "--field-manager", "other", "-f", path, code=1)
    assert 'conflict with "kubectl": .spec.size' in error


async def test_apply_refuses_an_unknown_field(kubectl):
    error = await kubectl("apply", "-f", kubectl.write("w.yaml", widget(bogus=1)), code=1)
    assert 'strict decoding error: unknown field "spec.bogus"' in error


async def test_a_folder_of_definitions_and_a_sample(kubectl, client):
    group = f"{client.names.values['ns']}.example.com"
    definition = json.loads(json.dumps(WIDGETS).replace("conformance.example.com", group))
    definition["spec"]["names"] = {"plural": "widgets", "kind": "Gadget"}
    kubectl.write("crds/widgets.yaml", definition)
    folder = str(kubectl.folder / "crds")
    name = f"customresourcedefinition.apiextensions.k8s.io/widgets.{group}"
    assert await kubectl("apply", "-f", folder) == f"{name} created\n"
    await kubectl("wait", "--for=condition=Established", f"crd/widgets.{group}", "--timeout=20s")
    assert await kubectl("apply", "-f", folder) == f"{name} unchanged\n"
    sample = {"apiVersion": f"{group}/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": {"size": 1}}
    path = kubectl.write("g.yaml", sample)
    for _ in range(50):  # a real server serves a definition a moment after it is established
        process = await kubectl.start("apply", "-f", path)
        await process.communicate()
        if process.returncode == 0:
            break
    assert named(await kubectl("get", f"widgets.{group}")) == ["g"]
    assert name.partition("/")[2] in await kubectl("delete", "-f", folder)


async def test_get_prints_the_columns(kubectl):
    await kubectl("apply", "-f", kubectl.write("w.yaml", widget()))
    assert (await kubectl("get", "widgets")).splitlines()[0].split() == ["NAME", "SIZE", "PHASE", "AGE"]
    head, row = (await kubectl("get", "wd", "-o", "wide")).splitlines()
    assert head.split() == ["NAME", "SIZE", "PHASE", "AGE", "COLOR"]
    assert row.split()[:2] == ["w", "3"]
    assert row.split()[-1] == "red"
    assert await kubectl("get", "widget", "w", "-o", "jsonpath={.spec.color}") == "red"
    assert await kubectl("get", "all", "-o", "name") == "widget.conformance.example.com/w\n"


async def test_get_watch_sees_a_change(kubectl):
    path = kubectl.write("w.yaml", widget())
    await kubectl("apply", "-f", path)
    process = await kubectl.start("get", "widgets", "-w")
    try:
        async with asyncio.timeout(30):
            assert (await process.stdout.readline()).split()[0] == b"NAME"
            assert (await process.stdout.readline()).split()[:2] == [b"w", b"3"]
            kubectl.write("w.yaml", widget(size=7))
            await kubectl("apply", "-f", path)
            assert (await process.stdout.readline()).split()[:2] == [b"w", b"7"]
    finally:
        process.terminate()
        _, error = await process.communicate()
    assert not error


async def test_describe_shows_the_object_and_its_events(kubectl, ask):
    await kubectl("apply", "-f", kubectl.write("w.yaml", widget()))
    uid = await kubectl("get", "widget", "w", "-o", "jsonpath={.metadata.uid}")
    about = {"kind": "Widget", "namespace": "$ns", "name": "w", "uid": uid, "apiVersion": "conformance.example.com/v1"}
    event = {
        "metadata": {"name": "e"},
        "involvedObject": about,
        "reason": "Grown",
        "message": "it has grown",
        "type": "Normal",
        "source": {"component": "tests"},
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "count": 1,
    }
    assert (await ask("POST /api/v1/namespaces/$ns/events", event))[0] == 201
    text = await kubectl("describe", "widget", "w")
    assert "Size:" in text
    assert "it has grown" in text
    assert "it has grown" in await kubectl("events", "--for", "widget/w")


async def test_wait_for_a_condition(kubectl, ask):
    await kubectl("apply", "-f", kubectl.write("w.yaml", widget()))
    waiting = asyncio.create_task(kubectl("wait", "--for=condition=Ready", "widget/w", "--timeout=30s"))
    status = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    path = "PATCH /apis/conformance.example.com/v1/namespaces/$ns/widgets/w/status"
    assert (await ask(path, status, patch="merge"))[0] == 200
    assert await waiting == "widget.conformance.example.com/w condition met\n"


async def test_delete_waits_until_it_is_gone(kubectl):
    path = kubectl.write("w.yaml", widget(), widget("v"))
    await kubectl("apply", "-f", path)
    assert 'widget.conformance.example.com "w" deleted' in await kubectl("delete", "widget", "w")
    assert 'widget.conformance.example.com "v" deleted' in await kubectl("delete", "-f", path, "--ignore-not-found")
    error = await kubectl("get", "widget", "w", code=1)
    assert error == 'Error from server (NotFound): widgets.conformance.example.com "w" not found\n'


async def test_the_small_edits(kubectl):
    await kubectl("apply", "-f", kubectl.write("w.yaml", widget(replicas=1)))
    name = "widget.conformance.example.com/w"
    assert await kubectl("scale", "widget/w", "--replicas=3") == f"{name} scaled\n"
    assert await kubectl("label", "widget", "w", "a=b") == f"{name} labeled\n"
    assert await kubectl("annotate", "widget", "w", "a=b") == f"{name} annotated\n"
    assert await kubectl("patch", "widget", "w", "--type=merge", "-p", '{"spec":{"size":5}}') == f"{name} patched\n"
    patch = '[{"op":"replace","path":"/spec/size","value":6}]'
    assert await kubectl("patch", "widget", "w", "--type=json", "-p", patch) == f"{name} patched\n"
    status = '{"status":{"phase":"X"}}'
    assert await kubectl("patch", "widget", "w", "--subresource=status", "--type=merge", "-p", status) == (
        f"{name} patched\n"
    )
    shown = json.loads(await kubectl("get", "widget", "w", "-o", "json"))
    assert (shown["spec"]["replicas"], shown["spec"]["size"], shown["status"]) == (3, 6, {"phase": "X"})
    assert shown["metadata"]["labels"] == {"a": "b"}
    shown["spec"]["size"] = 7
    assert await kubectl("replace", "-f", kubectl.write("r.yaml", shown)) == f"{name} replaced\n"


async def test_built_in_kinds(kubectl):
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "1"}}
    assert await kubectl("create", "-f", kubectl.write("c.yaml", config, secret)) == (
        "configmap/c created\nsecret/s created\n"
    )
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "d"}, "data": {"a": "1"}}
    path = kubectl.write("d.yaml", config)
    assert await kubectl("apply", "-f", path) == "configmap/d created\n"
    config["data"] = {"b": "2"}
    kubectl.write("d.yaml", config)
    assert await kubectl("apply", "-f", path) == "configmap/d configured\n"
    assert await kubectl("get", "configmap", "d", "-o", "jsonpath={.data}") == '{"b":"2"}'
    assert await kubectl("patch", "configmap", "d", "-p", '{"data":{"c":"3"}}') == "configmap/d patched\n"
    assert "a:\n----\n1\n" in await kubectl("describe", "configmap", "c")
    assert await kubectl("delete", "configmap", "c", "d") == ('configmap "c" deleted\nconfigmap "d" deleted\n')


async def test_discovery_commands(kubectl):
    text = await kubectl("api-resources", "--api-group=conformance.example.com", "--no-headers")
    assert [line.split() for line in text.splitlines()] == [
        ["boxes", "conformance.example.com/v1", "false", "Box"],
        ["widgets", "wd", "conformance.example.com/v1", "true", "Widget"],
    ]
    assert "conformance.example.com/v1" in (await kubectl("api-versions")).splitlines()
    explained = await kubectl("explain", "widget.spec")
    assert "What is wanted." in explained
    assert "size\t<integer> -required-" in explained
