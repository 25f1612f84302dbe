"""Kubeconfig files: what is wrong with one and where, how several become one, and that nothing else ever happens."""

import base64
import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings, strategies as st

from asyncctl.client.config.cluster import ClusterConfig, find_config
from asyncctl.client.config.kubeconfig import read
from asyncctl.client.config.kubecontext import resolve
from asyncctl.client.errors import ConfigError

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nnot really\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nnot really\n-----END PRIVATE KEY-----\n"
V1 = "client.authentication.k8s.io/v1"
ENVIRON = {"PATH": os.defpath}


def data(text):
    return base64.b64encode(text.encode()).decode()


def kubeconfig(*, cluster=None, user=None, context=None, **changes):
    found = {
        "clusters": [{"name": "c", "cluster": {"server": "https://c:6443"} | (cluster or {})}],
        "users": [{"name": "u", "user": user or {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"} | (context or {})}],
        "current-context": "x",
    }
    return found | changes


def write(path, content):
    path.touch(0o600)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def resolved(*files, context=None, environ=ENVIRON):
    return resolve(read(files), context, "KUBECONFIG", environ)


def plugin(**changes):
    return {"exec": {"command": "sh", "apiVersion": V1, "interactiveMode": "Never"} | changes}


def provider(name="oidc", **config):
    known = {"idp-issuer-url": "https://idp", "client-id": "me", "id-token": "t"}
    return {"auth-provider": {"name": name, "config": known | config}}


# What is wrong, and where.


@pytest.mark.parametrize(
    "content, said",
    [
        # texts
        ("a: 1\nb: 2\na: 3", "is not YAML: the key 'a' is there twice, line 3, column 1"),
        (
            "users:\n- name: u\n  user: {token: secret-one, token: secret-two}",
            "is not YAML: the key 'token' is there twice, line 3, column 29",
        ),
        ("users: [", "is not YAML: expected the node content, but found '<stream end>', line 1, column 9"),
        ("token: secret-one\n\tx: 1", "line 2, column 1"),
        ("a: \x01", "is not YAML: it has a character that YAML does not allow"),
        ("[" * 1500, "it is nested too deeply"),
        ("a: !!bool secret-one", "a value is not of the kind that it says"),
        ("a: !!int secret-one", "a value is not of the kind that it says"),
        ("a: !!timestamp secret-one", "a value is not of the kind that it says"),
        (f"a: {'9' * 5000}", "a value is not of the kind that it says"),
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor for the tag"),
        ("--- {}\n--- {}", "but found another document"),
        # types
        (kubeconfig(users="secret-one"), "'users' is no list"),
        (kubeconfig(contexts={"x": {}}), "'contexts' is no list"),
        (kubeconfig(clusters=["secret-one"]), "cluster number 1 has no 'name'"),
        (kubeconfig(users=[{"name": "a"}, {"name": 7}]), "user number 2 has no 'name'"),
        (kubeconfig(users=[{"name": "a"}, {"name": "a"}]), "user 'a' is there twice"),
        (kubeconfig(users=[{"name": "a", "user": "secret-one"}]), "user 'a': expected a mapping, got a text"),
        (kubeconfig(**{"current-context": 3}), "'current-context' is no text"),
        (kubeconfig(cluster={"server": ["secret-one"]}), "cluster 'c': 'server': expected a text, got a list"),
        (kubeconfig(cluster={"insecure-skip-tls-verify": "yes"}), "'insecure-skip-tls-verify': expected true or false"),
        (kubeconfig(cluster={"extensions": [{"name": 1}]}), "'extensions[0].name': expected a text, got int"),
        (kubeconfig(context={"namespace": 1}), "context 'x': 'namespace': expected a text, got int"),
        (kubeconfig(user={"token": 123}), "user 'u': 'token': expected a text, got int"),
        (kubeconfig(user={"as-groups": "secret-one"}), "user 'u': 'as-groups': expected a list, got a text"),
        (kubeconfig(user={"as-groups": ["a", None]}), "user 'u': 'as-groups[1]': expected a text, got null"),
        (kubeconfig(user={"as-user-extra": {"a": "b"}}), "user 'u': 'as-user-extra[...]': expected a list"),
        (kubeconfig(user=plugin(args="secret-one")), "user 'u': 'exec.args': expected a list, got a text"),
        (kubeconfig(user=plugin(env=[{"name": "A", "value": 1}])), "user 'u': 'exec.env[0].value': expected a text"),
        (kubeconfig(user={"auth-provider": []}), "user 'u': 'auth-provider': expected a mapping, got a list"),
        (kubeconfig(user=provider(expiry=1)), "user 'u': 'auth-provider.config[...]': expected a text, got int"),
        # what is there and can't be used
        (kubeconfig(cluster={"certificate-authority-data": "?"}), "'certificate-authority-data' is not base64"),
        (kubeconfig(cluster={"certificate-authority-data": data("x")}), "there is no PEM certificate in it"),
        (kubeconfig(user={"client-certificate-data": data("x"), "client-key-data": data(KEY)}), "no PEM certificate"),
        (
            kubeconfig(user={"client-certificate-data": data(CERTIFICATE), "client-key-data": data("x")}),
            "user 'u': 'client-key-data': there is no PEM private key in it",
        ),
        (
            kubeconfig(user={"client-certificate-data": data(CERTIFICATE)}),
            "user 'u': 'client-certificate' has no key; set 'client-key' or 'client-key-data'",
        ),
        (kubeconfig(user={"client-certificate": "gone.crt"}), "gone.crt can't be read: No such file or directory"),
        (kubeconfig(user={"tokenFile": "gone"}), "user 'u': 'tokenFile': "),
        (kubeconfig(user={"tokenFile": "a\0b"}), "user 'u': 'tokenFile': "),
        (kubeconfig(user={"token": "two words"}), "user 'u': 'token' is no bearer token"),
        (kubeconfig(user={"token": "line\nline"}), "user 'u': 'token' is no bearer token"),
        (kubeconfig(cluster={"proxy-url": "ftp://me:hush@proxy"}), "cluster 'c': proxy-url 'ftp://me:***@proxy' is no"),
        (kubeconfig(cluster={"server": "https://c:notaport"}), "is no address of a server"),
        (kubeconfig(user={"as": "a\r\nX-Evil: 1"}), "user 'u': 'as' has a character that no header can have"),
        (kubeconfig(user={"as": "a", "as-user-extra": {"k": ["\n"]}}), "'as-user-extra' has a character"),
        (kubeconfig(cluster={"server": "https://me:hush@c"}), "cluster 'c': 'server' has a user or a password in it"),
        (kubeconfig(cluster={"server": "ftp://me:hush@c"}), "'ftp://me:***@c' is no address of a server"),
        (kubeconfig(user={1: "secret-one"}), "user 'u': 'key': expected a text"),
        # what excludes each other, as in kubectl
        (kubeconfig(user={"as-groups": ["g"]}), "'as-uid', 'as-groups' and 'as-user-extra' need 'as'"),
        (kubeconfig(user={"token": "t", "username": "n"}), "'username' and 'token' exclude each other"),
        (kubeconfig(user={"token": "t", "password": "n"}), "'username' and 'token' exclude each other"),
        (kubeconfig(user={"tokenFile": "t", "username": "n"}), "'username' and 'token' exclude each other"),
        (kubeconfig(user=plugin() | provider()), "'exec' and 'auth-provider' exclude each other"),
        (
            kubeconfig(cluster={"certificate-authority": "a", "certificate-authority-data": "b"}),
            "cluster 'c': 'certificate-authority' and 'certificate-authority-data' exclude each other",
        ),
        (
            kubeconfig(cluster={"insecure-skip-tls-verify": True, "certificate-authority-data": data(CERTIFICATE)}),
            "cluster 'c': 'insecure-skip-tls-verify' and a certificate-authority exclude each other",
        ),
        # exec plugins
        (kubeconfig(user=plugin(command="")), "user 'u': 'exec.command' is missing"),
        (kubeconfig(user=plugin(command="a\0b")), "user 'u': 'exec' has a null character"),
        (kubeconfig(user=plugin(command="no-such-command")), "the exec plugin no-such-command is not found in PATH"),
        (kubeconfig(user=plugin(command="bin/gone")), "bin/gone does not exist, or is no program"),
        (
            kubeconfig(user=plugin(command="no-such-command", installHint="brew\ninstall \x1b[1mit")),
            "the exec plugin no-such-command is not found in PATH; brew install [1mit",
        ),
        (kubeconfig(user=plugin(apiVersion=None)), "'exec.apiVersion': (nothing): it should be one of"),
        (
            kubeconfig(user=plugin(apiVersion="client.authentication.k8s.io/v1alpha1")),
            "v1alpha1: which kubectl 1.24 dropped; update the plugin",
        ),
        (kubeconfig(user=plugin(interactiveMode="Always")), "wants to ask somebody at a terminal"),
        (kubeconfig(user=plugin(interactiveMode="")), "'exec.interactiveMode' should be Never or IfAvailable"),
        (kubeconfig(user=plugin(env=[{"name": "", "value": "x"}])), "'exec.env' has a variable without a name"),
        (kubeconfig(user=plugin(env=[{"name": "A=B", "value": "x"}])), "'exec.env' has a variable without a name"),
        # auth-providers
        (
            kubeconfig(user=provider("gcp")),
            "'gcp' is not supported, by kubectl neither; use the exec plugin gke-gcloud",
        ),
        (
            kubeconfig(user=provider("azure")),
            "'azure' is not supported, by kubectl neither; use the exec plugin kubelog",
        ),
        (kubeconfig(user=provider("odd")), "'odd' is not supported, by kubectl neither; use the exec plugin an exec"),
        (kubeconfig(user=provider(**{"client-id": ""})), "'auth-provider.config.client-id' is missing"),
        (kubeconfig(user=provider(**{"idp-issuer-url": "http://idp"})), "idp-issuer-url' should be an https"),
        (kubeconfig(user=provider(**{"id-token": ""})), "neither an id-token nor a refresh-token; log in again"),
    ],
)
def test_what_is_wrong_is_told_with_its_file_entry_and_key_and_no_value(tmp_path, content, said):
    bad = write(tmp_path / "bad", content)
    with pytest.raises(ConfigError) as caught:
        resolved(bad)
    text = str(caught.value)
    assert said in text
    assert str(bad) in text
    assert "\n" not in text
    assert "secret" not in text
    assert "hush" not in text


def test_a_file_of_any_size_is_not_read(tmp_path):
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(2**25)
    with pytest.raises(ConfigError, match="it has more than 16 MiB"):
        read([large])


def test_a_folder_and_a_path_that_is_none_are_told(tmp_path):
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        read([tmp_path])
    with pytest.raises(ConfigError, match="is no path of a file"):
        read([Path("a\0b")])


def test_a_pipe_is_as_good_as_a_file(tmp_path):
    """`KUBECONFIG=<(kubectl config view --raw)`."""
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "w") as stream:
        stream.write(yaml.safe_dump(kubeconfig()))
        stream.close()
        assert resolved(Path(f"/dev/fd/{reading}")).server == "https://c:6443"


def test_texts_are_what_go_takes_for_texts(tmp_path):
    """A date and a sexagesimal number are numbers in YAML 1.1 as PyYAML has it, and texts in kubectl's."""
    content = "clusters: [{name: 2026-01-01, cluster: {server: 'https://c'}}]\n"
    content += "contexts: [{name: 1:30, context: {cluster: 2026-01-01, namespace: 12:30:45.5}}]\ncurrent-context: 1:30"
    config = resolved(write(tmp_path / "config", content))
    assert (config.server, config.namespace) == ("https://c", "12:30:45.5")


def test_merge_keys_and_anchors_may_be_used(tmp_path):
    content = "x: &base {server: https://base, tls-server-name: t}\n"
    content += "clusters: [{name: c, cluster: {<<: *base, server: 'https://c'}}]\n"
    content += "contexts: [{name: x, context: {cluster: c}}]\ncurrent-context: x"
    config = resolved(write(tmp_path / "config", content))
    assert (config.server, config.tls_server_name) == ("https://c", "t")


@pytest.mark.parametrize(
    "written, server",
    [
        ("https://c:6443/", "https://c:6443"),
        ("HTTPS://c/clusters/7/", "https://c/clusters/7"),
        ("https://c/p?query#part", "https://c/p"),
        ("https://[fd00::1]:6443", "https://[fd00::1]:6443"),
    ],
)
def test_a_server_is_an_address_to_which_paths_are_added(tmp_path, written, server):
    assert resolved(write(tmp_path / "config", kubeconfig(cluster={"server": written}))).server == server


def test_a_plain_http_server_is_one_in_whatever_letters(tmp_path):
    """Nothing is sent to it."""
    file = write(tmp_path / "config", kubeconfig(cluster={"server": "HTTP://c"}, user={"token": "t"}))
    assert resolved(file).authorization is None


def test_a_kubeconfig_costs_no_models_of_kubernetes_asyncio(tmp_path):
    """39 MB of them."""
    file = write(tmp_path / "config", kubeconfig(user=plugin()))
    program = (
        "import asyncio, os, sys\nfrom asyncctl.client.config.cluster import find_config\n"
        "assert asyncio.run(find_config(os.environ)).exec_plugin\nassert 'kubernetes_asyncio' not in sys.modules"
    )
    environ = os.environ | {"KUBECONFIG": str(file)}
    environ.pop("KUBERNETES_SERVICE_HOST", None)
    subprocess.run([sys.executable, "-c", program], env=environ, check=True, timeout=60)


# Who we are.


def test_a_user_and_a_password_are_basic_authorization(tmp_path):
    config = resolved(write(tmp_path / "config", kubeconfig(user={"username": "ü", "password": "p:q"})))
    assert config.authorization == "Basic " + base64.b64encode("ü:p:q".encode()).decode()
    assert "p:q" not in repr(config)


def test_a_token_comes_before_a_plugin_and_an_auth_provider_which_are_not_asked(tmp_path):
    for other in (plugin(command="no-such-command"), provider()):
        config = resolved(write(tmp_path / "config", kubeconfig(user={"token": "t\n"} | other)))
        assert (config.authorization, config.exec_plugin, config.oidc) == ("Bearer t", None, None)


def test_a_client_certificate_comes_before_a_plugin_but_beside_oidc(tmp_path):
    certificate = {"client-certificate-data": data(CERTIFICATE), "client-key-data": data(KEY)}
    assert resolved(write(tmp_path / "a", kubeconfig(user=certificate | plugin()))).exec_plugin is None
    config = resolved(write(tmp_path / "b", kubeconfig(user=certificate | provider())))
    assert config.oidc is not None
    assert config.client_key_data == KEY.encode()


@pytest.mark.parametrize(
    "user, said",
    [
        ({"client-key-data": data(KEY)}, "a client-key and no client-certificate"),
        ({"password": "p"}, "a password and no username"),
    ],
)
def test_half_of_a_credential_is_not_used_and_that_is_told(tmp_path, user, said):
    file = write(tmp_path / "config", kubeconfig(user=user))
    config = resolved(file)
    assert (config.client_key_data, config.authorization) == (None, None)
    assert config.warnings[0] == f"{file}: user 'u' has {said}: it is not used"


def test_a_context_without_a_user_is_anonymous(tmp_path):
    config = resolved(write(tmp_path / "config", kubeconfig(context={"user": ""})))
    assert (config.user, config.authorization) == ("anonymous", None)


def test_whom_to_act_as_becomes_headers_with_keys_that_any_header_may_have(tmp_path):
    user = {
        "as": "jane", "as-uid": "7", "as-groups": ["dev", "ops"],
        "as-user-extra": {"example.com/scope%": ["a", "b"], "É x": ["c"], "Plain-1": ["d"]},
    }  # fmt: skip
    config = resolved(write(tmp_path / "config", kubeconfig(user=user)))
    assert config.impersonate.headers() == (
        ("Impersonate-User", "jane"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "dev"),
        ("Impersonate-Group", "ops"),
        ("Impersonate-Extra-Plain-1", "d"),
        ("Impersonate-Extra-example.com%2Fscope%25", "a"),
        ("Impersonate-Extra-example.com%2Fscope%25", "b"),
        ("Impersonate-Extra-%C3%89%20x", "c"),
    )


def test_a_plugin_is_taken_with_all_that_it_should_be_told(tmp_path):
    (tmp_path / "bin").mkdir()
    command = write(tmp_path / "bin" / "get", "#!/bin/sh\n")
    command.chmod(0o700)
    write(tmp_path / "ca.crt", CERTIFICATE)
    user = plugin(
        command="./bin/get", args=["token", "--x"], env=[{"name": "A", "value": "1"}], provideClusterInfo=True,
        apiVersion="client.authentication.k8s.io/v1beta1", interactiveMode=None,
    )  # fmt: skip
    cluster = {
        "certificate-authority": "ca.crt", "tls-server-name": "n", "proxy-url": "socks5://p",
        "disable-compression": True,
        "extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"audience": 7}}, {"name": "other"}],
    }  # fmt: skip
    found = resolved(write(tmp_path / "config", kubeconfig(user=user, cluster=cluster))).exec_plugin
    assert found.command == str(command)
    assert found.args == ("token", "--x")
    assert dict(found.environ) == ENVIRON | {"A": "1"}
    assert json.loads(found.cluster) == {
        "server": "https://c:6443", "tls-server-name": "n", "proxy-url": "socks5://p",
        "disable-compression": True,
        "certificate-authority-data": data(CERTIFICATE), "config": {"audience": 7},
    }  # fmt: skip


def test_a_plugin_is_told_nothing_of_the_cluster_unless_the_file_says_so(tmp_path):
    assert resolved(write(tmp_path / "config", kubeconfig(user=plugin()))).exec_plugin.cluster is None


# Several files.


def part(name, **kinds):
    """A file that has entries of its own name: `part("a", server=…)`."""
    found = {}
    if "server" in kinds:
        found["clusters"] = [{"name": "c", "cluster": kinds["server"]}]
    if "user" in kinds:
        found["users"] = [{"name": "u", "user": kinds["user"]}]
    if "context" in kinds:
        found["contexts"] = [{"name": "x", "context": kinds["context"]}]
    if "current" in kinds:
        found["current-context"] = kinds["current"]
    return found


WHOLE = part(
    "w", server={"server": "https://w"}, user={"token": "w"}, context={"cluster": "c", "user": "u"}, current="x"
)


@pytest.mark.parametrize(
    "files, server, token, namespace",
    [
        # the first file to name an entry has the whole of it
        ([WHOLE, part("a", server={"server": "https://a"})], "https://w", "w", "default"),
        ([part("a", server={"server": "https://a"}), WHOLE], "https://a", "w", "default"),
        ([part("a", server={"server": "https://a"}), WHOLE, part("b", server={"server": "https://b"})],
         "https://a", "w", "default"),
        ([part("a", user={"token": "a"}), WHOLE], "https://w", "a", "default"),
        ([part("a", user={}), WHOLE], "https://w", None, "default"),
        # and what a later one says beside it is not added
        ([WHOLE, part("a", context={"cluster": "c", "user": "u", "namespace": "team"})], "https://w", "w", "default"),
        ([part("a", context={"cluster": "c", "user": "u", "namespace": "team"}), WHOLE], "https://w", "w", "team"),
        # the first file that sets a current-context decides; an empty one sets none
        ([part("a", current=""), WHOLE], "https://w", "w", "default"),
        ([WHOLE, part("a", current="gone")], "https://w", "w", "default"),
        # parts, and files that are not there
        ([{"current-context": "x"}, {"contexts": WHOLE["contexts"]}, {"users": WHOLE["users"]},
          {"clusters": WHOLE["clusters"]}], "https://w", "w", "default"),
        ([None, WHOLE, None], "https://w", "w", "default"),
        (["", WHOLE], "https://w", "w", "default"),
        # the same file again
        ([WHOLE, WHOLE], "https://w", "w", "default"),
    ],
)  # fmt: skip
def test_several_files_become_one_as_in_kubectl(tmp_path, files, server, token, namespace):
    paths = [tmp_path / str(number) for number in range(len(files))]
    for path, content in zip(paths, files, strict=True):
        if content is not None:
            write(path, content)
    config = resolved(*paths)
    assert (config.server, config.namespace) == (server, namespace)
    assert config.authorization == (f"Bearer {token}" if token else None)
    theirs = kubectl_view(tmp_path, paths)
    if theirs is not None:
        assert theirs["clusters"][0]["cluster"]["server"] == server
        assert (theirs["users"][0]["user"] or {}).get("token") == token
        assert theirs["contexts"][0]["context"].get("namespace", "default") == namespace


def kubectl_view(folder, paths):
    """What kubectl makes of the files, where there is one on this machine."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return None
    view = subprocess.run(
        [kubectl, "config", "view", "--raw", "--minify", "--output=json"],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": os.pathsep.join(map(str, paths))},
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert view.returncode == 0, view.stderr
    return json.loads(view.stdout)


def test_a_broken_file_of_a_list_is_an_error_also_behind_a_good_one(tmp_path):
    good, bad = write(tmp_path / "good", WHOLE), write(tmp_path / "bad", "clusters: 3")
    with pytest.raises(ConfigError, match=r"bad: 'clusters' is no list"):
        read([good, bad])


def test_files_that_are_not_there_are_no_configuration(tmp_path):
    assert read([]) is None
    assert read([tmp_path / "one", tmp_path / "two"]) is None


# Anything at all.

texts = st.text(max_size=8) | st.sampled_from(
    ["c", "u", "x", "https://c", "a\0b", "\n", "é", "-----BEGIN CERTIFICATE-----"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(max_size=4) | st.dates()
KEYS = [
    "clusters", "users", "contexts", "current-context", "name", "cluster", "user", "context", "server", "namespace",
    "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify", "proxy-url", "extensions",
    "extension", "client-certificate", "client-certificate-data", "client-key", "client-key-data", "token", "tokenFile",
    "username", "password", "as", "as-uid", "as-groups", "as-user-extra", "exec", "command", "args", "env", "value",
    "apiVersion", "interactiveMode", "provideClusterInfo", "auth-provider", "config", "idp-issuer-url", "client-id",
    "id-token", "refresh-token", "idp-certificate-authority-data",
]  # fmt: skip
keys = st.sampled_from(KEYS) | scalars
shapes = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
REAL = [
    kubeconfig(cluster={"certificate-authority-data": data(CERTIFICATE), "tls-server-name": "n"}, user={"token": "t"}),
    kubeconfig(user={"client-certificate-data": data(CERTIFICATE), "client-key-data": data(KEY)}),
    kubeconfig(
        cluster={"extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"a": 1}}]},
        user=plugin(args=["a"], env=[{"name": "A", "value": "1"}], provideClusterInfo=True),
    ),
    kubeconfig(user=provider(**{"refresh-token": "r", "client-secret": "s"}), cluster={"proxy-url": "http://p"}),
    kubeconfig(user={"username": "u", "password": "p", "as": "a", "as-groups": ["g"], "as-user-extra": {"k": ["v"]}}),
]


def places(content, path=()):
    """The path of each value in `content`."""
    yield path
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


@st.composite
def mutated(draw):
    """A real kubeconfig in which a few values are something else, or gone, or under another key."""
    content = copy.deepcopy(draw(st.sampled_from(REAL)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in places(content) if path]))
        where = content
        for key in path[:-1]:
            where = where[key]
        match draw(st.sampled_from(["other", "gone", "moved"])):
            case "other":
                where[path[-1]] = draw(shapes)
            case "gone":
                del where[path[-1]]
            case "moved" if isinstance(where, dict):
                where[draw(keys.filter(lambda key: not isinstance(key, bytes)))] = where.pop(path[-1])
    return content


def make_or_refuse(folder, *contents):
    paths = [folder / str(number) for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    try:
        merged = read(paths)
        config = resolve(merged, None, "KUBECONFIG", ENVIRON)
    except ConfigError as error:
        assert str(error)  # noqa: PT017 - either is right
    else:
        assert isinstance(config, ClusterConfig)
        hash(config)
        assert config.describe()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


ANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@ANY
@given(shapes)
@example({"clusters": [{"name": "c", "cluster": {"server": "https://[::1"}}]})
def test_data_of_any_shape_is_a_configuration_or_a_config_error(folder, content):
    make_or_refuse(folder, yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "surrogatepass"))


@ANY
@given(mutated())
def test_a_real_file_with_any_change_is_a_configuration_or_a_config_error(folder, content):
    make_or_refuse(folder, yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "surrogatepass"))


@ANY
@given(st.lists(mutated() | shapes, min_size=2, max_size=3))
def test_any_files_together_are_a_configuration_or_a_config_error(folder, contents):
    make_or_refuse(folder, *(yaml.safe_dump(content).encode("utf-8", "surrogatepass") for content in contents))


@ANY
@given(st.binary(max_size=60) | st.text(alphabet="{}[]:,&*!|>'\"%@`#-? \n\tax1", max_size=40).map(str.encode))
@example(b"clusters: &a [*a]")
@example(b"? {a: 1}\n: 2")
@example(b"!!set {a, b}")
@example(b"!!omap [a: 1]")
@example(b"<<: 3")
@example(b"clusters: [{name: c, cluster: {<<: [1]}}]")
def test_any_bytes_are_a_configuration_or_a_config_error(folder, raw):
    make_or_refuse(folder, raw)


@ANY
@given(st.sampled_from(REAL), st.integers(0, 600), st.binary(max_size=3))
def test_a_real_file_with_a_scratch_is_a_configuration_or_a_config_error(folder, content, at, scratch):
    raw = yaml.safe_dump(content).encode()
    make_or_refuse(folder, raw[:at] + scratch + raw[at + len(scratch) :])


async def test_what_goes_wrong_in_a_file_is_told_with_the_variable_that_named_it(tmp_path):
    bad = write(tmp_path / "bad", kubeconfig(user={"token": 1}))
    with pytest.raises(ConfigError, match=r"^ASYNCCTL_KUBECONFIG: .*bad: user 'u': 'token': expected a text, got int"):
        await find_config({}, kubeconfig=str(bad))
