"""Where a cluster is looked for, and what is said of each place that did not do."""

import base64
import json
import os
from pathlib import Path

import pytest
import yaml

from asyncctl.client.config.cluster import Impersonation, find_config
from asyncctl.client.errors import ConfigError

KEY = "-----BEGIN PRIVATE KEY-----\nnot really\n-----END PRIVATE KEY-----\n"
CA = "-----BEGIN CERTIFICATE-----\nnot really\n-----END CERTIFICATE-----\n"


def data(text):
    return base64.b64encode(text.encode()).decode()


def token(**claims):
    """A JSON Web Token that nobody has signed."""
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


@pytest.fixture
def places(tmp_path):
    """The three places, none of them furnished."""

    class Places:
        service_account = tmp_path / "serviceaccount"
        home = tmp_path / "home"
        in_pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}  # noqa: RUF012

        async def find(self, environ=None, **options):
            return await find_config(environ or {}, service_account=self.service_account, home=self.home, **options)

        def mount(self, *left_out):
            self.service_account.mkdir()
            for name, content in (("token", "secret"), ("ca.crt", CA), ("namespace", "team\n")):
                if name not in left_out:
                    (self.service_account / name).write_text(content)

        def at_home(self, **changes):
            (self.home / ".kube").mkdir(parents=True)
            return write(self.home / ".kube" / "config", kubeconfig(**changes))

    return Places()


def kubeconfig(name="c", *, cluster=None, user=None, context=None, **changes):
    found = {
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}:6443"} | (cluster or {})}],
        "users": [{"name": name, "user": {"token": "secret"} if user is None else user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name} | (context or {})}],
        "current-context": name,
    }
    return {key: value for key, value in (found | changes).items() if value is not None}


def write(path, content):
    path.touch(0o600)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


async def test_in_a_pod_the_service_account_is_used_before_all_else(places, tmp_path):
    places.mount()
    places.at_home()
    given = write(tmp_path / "given", kubeconfig("given"))
    config = await places.find(places.in_pod | {"KUBECONFIG": str(given)})
    assert (config.source, config.server, config.namespace) == ("in-cluster", "https://10.0.0.1:6443", "team")
    assert config.token_file == places.service_account / "token"
    assert config.ca_file == str(places.service_account / "ca.crt")
    assert "secret" not in repr(config)


async def test_an_ipv6_service_host_stands_in_brackets(places):
    places.mount("namespace")
    config = await places.find({"KUBERNETES_SERVICE_HOST": "fd00::1"})
    assert config.server == "https://[fd00::1]:443"
    assert config.namespace == "default"


@pytest.mark.parametrize("missing", ["token", "ca.crt"])
async def test_a_service_account_that_is_mounted_by_half_is_told(places, missing):
    places.mount(missing)
    places.at_home()
    with pytest.raises(ConfigError, match=rf"{missing} is missing; is automountServiceAccountToken off"):
        await places.find(places.in_pod)


async def test_an_override_is_looked_at_alone(places, tmp_path):
    places.mount()
    given = write(tmp_path / "given", kubeconfig("given"))
    config = await places.find(places.in_pod, kubeconfig=str(given))
    assert config.server == "https://given:6443"
    assert config.source == f"ASYNCCTL_KUBECONFIG ({given}), context given"
    with pytest.raises(ConfigError, match=r"ASYNCCTL_KUBECONFIG .*: no such file"):
        await places.find(places.in_pod, kubeconfig=str(tmp_path / "absent"))


async def test_kubeconfig_comes_before_home(places, tmp_path):
    places.at_home()
    given = write(tmp_path / "given", kubeconfig("given"))
    assert (await places.find({"KUBECONFIG": str(given)})).server == "https://given:6443"
    assert (await places.find({"KUBECONFIG": ""})).server == "https://c:6443"


async def test_home_is_the_last_resort(places):
    places.at_home()
    config = await places.find()
    assert (config.server, config.authorization, config.user) == ("https://c:6443", "Bearer secret", "c")
    assert config.source.startswith("~/.kube/config")
    assert "secret" not in repr(config)
    assert "secret" not in str(config.describe())


@pytest.mark.parametrize("half", ["host", "folder", "neither"])
async def test_nothing_found_names_each_place_and_what_was_missing(places, half):
    if half == "folder":
        places.mount()
    with pytest.raises(ConfigError) as caught:
        await places.find(places.in_pod if half == "host" else {})
    text = str(caught.value)
    assert ("KUBERNETES_SERVICE_HOST is not set" in text) == (half != "host")
    assert (f"{places.service_account} does not exist" in text) == (half != "folder")
    assert "KUBECONFIG: not set" in text
    assert f"{places.home / '.kube' / 'config'}: does not exist" in text


async def test_a_context_is_looked_for_in_kubeconfigs_also_in_a_pod(places):
    places.mount()
    places.at_home()
    assert (await places.find(places.in_pod, context="c")).server == "https://c:6443"
    with pytest.raises(ConfigError, match="context 'x' does not exist; the file has 'c'"):
        await places.find(places.in_pod, context="x")


# Broken files.


@pytest.mark.parametrize(
    "content, said",
    [
        ("clusters: [", "is not YAML"),
        ("\tx: 1", "is not YAML"),
        ("just words", "is not a kubeconfig"),
        ("- 1", "is not a kubeconfig"),
        ("", "is not a kubeconfig"),
        ("clusters: 3\ncurrent-context: c", "check the file"),
        (kubeconfig(**{"current-context": None}), "no current-context is set; choose one with ASYNCCTL_CONTEXT"),
        (kubeconfig(**{"current-context": "gone"}), "context 'gone' does not exist; the file has 'c'"),
        (kubeconfig(contexts=[{"name": "c", "context": {"cluster": "x", "user": "c"}}]), "cluster 'x' does not exist"),
        (kubeconfig(contexts=[{"name": "c", "context": {"cluster": "c", "user": "x"}}]), "user 'x' does not exist"),
        (kubeconfig(contexts=[{"name": "c", "context": {"user": "c"}}]), "'cluster' is missing"),
        (kubeconfig(clusters=[{"name": "c", "cluster": {}}]), "'server' is missing"),
        (kubeconfig(clusters=[{"name": "c"}]), "'server' is missing"),
        (kubeconfig(clusters=[{"cluster": {"server": "https://x"}}]), "check the file"),
        (kubeconfig(clusters=None), "is not a kubeconfig"),
        (kubeconfig(cluster={"server": "localhost:8080"}), "'localhost:8080' is no address of a server"),
        (kubeconfig(cluster={"server": "https://[::1"}), "is no address of a server"),
        (kubeconfig(cluster={"certificate-authority-data": "YWJ"}), "check the file"),
        (kubeconfig(cluster={"certificate-authority": "absent.crt"}), "absent.crt"),
    ],
)
async def test_a_file_that_can_not_be_used_is_told_in_one_line(places, tmp_path, content, said):
    bad = write(tmp_path / "bad", content)
    with pytest.raises(ConfigError) as caught:
        await places.find({"KUBECONFIG": str(bad)})
    assert said in str(caught.value)
    assert str(bad) in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_bytes_that_are_no_text_are_told(places, tmp_path):
    bad = tmp_path / "bad"
    bad.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not YAML"):
        await places.find({"KUBECONFIG": str(bad)})


# Lists of files.


async def test_a_list_is_merged_and_the_first_to_name_something_wins(places, tmp_path):
    one = write(tmp_path / "one", kubeconfig("one", context={"namespace": "team"}))
    two = write(tmp_path / "two", kubeconfig("two"))
    same = write(tmp_path / "same", kubeconfig("one", cluster={"server": "https://other"}))
    listed = {"KUBECONFIG": os.pathsep.join(map(str, (tmp_path / "absent", one, two, same)))}
    config = await places.find(listed)
    assert (config.server, config.namespace) == ("https://one:6443", "team")
    assert (await places.find(listed, context="two")).server == "https://two:6443"


async def test_files_of_a_list_may_have_a_part_each(places, tmp_path):
    whole = kubeconfig()
    parts = [write(tmp_path / key, {key: whole[key]}) for key in ("current-context", "contexts", "users", "clusters")]
    empty = write(tmp_path / "empty", "")
    listed = os.pathsep.join(map(str, (empty, *parts)))
    assert (await places.find({"KUBECONFIG": listed})).server == "https://c:6443"


async def test_a_relative_path_starts_from_the_file_that_has_it(places, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "ca.crt", CA)
    one = write(tmp_path / "a" / "config", kubeconfig("one", cluster={"certificate-authority": "ca.crt"}))
    write(tmp_path / "b" / "token", "t")
    two = write(
        tmp_path / "b" / "config",
        kubeconfig("two", cluster={"certificate-authority": "ca.crt"}, user={"tokenFile": "token"}),
    )
    listed = {"KUBECONFIG": f"{one}{os.pathsep}{two}"}
    assert (await places.find(listed)).ca_file == str(tmp_path / "a" / "ca.crt")
    config = await places.find(listed, context="two")
    assert config.ca_file == str(tmp_path / "b" / "ca.crt")
    assert config.token_file == tmp_path / "b" / "token"


async def test_data_in_the_file_is_as_good_as_a_file(places, tmp_path):
    key = "-----BEGIN PRIVATE KEY-----\nnot really\n-----END PRIVATE KEY-----\n"
    ca_data, key_data = (base64.b64encode(text.encode()).decode() for text in (CA, key))
    given = write(
        tmp_path / "given",
        kubeconfig(
            cluster={"certificate-authority-data": ca_data, "tls-server-name": "name"},
            user={"client-certificate-data": ca_data, "client-key-data": key_data},
        ),
    )
    config = await places.find({"KUBECONFIG": str(given)})
    assert (config.ca_file, config.client_certificate, config.client_key) == (None, None, None)
    assert (config.ca_data, config.client_certificate_data, config.client_key_data) == (
        CA.encode(), CA.encode(), key.encode(),
    )  # fmt: skip
    assert config.tls_server_name == "name"
    assert "not really" not in repr(config)


async def test_a_token_file_comes_before_a_token(places, tmp_path):
    """As in client-go: the token is for as long as the file can't be read."""
    given = write(tmp_path / "given", kubeconfig(user={"token": "old", "tokenFile": "/x"}))
    config = await places.find({"KUBECONFIG": str(given)})
    assert (str(config.token_file), config.authorization) == ("/x", "Bearer old")


# Warnings.


async def test_a_file_that_others_may_read_is_warned_of(places, tmp_path):
    given = write(tmp_path / "given", kubeconfig(user={}))
    assert (await places.find({"KUBECONFIG": str(given)})).warnings == ()
    given.chmod(0o644)
    (warning,) = (await places.find({"KUBECONFIG": str(given)})).warnings
    assert warning == f"{given} is readable by others (mode 0644); run: chmod 600 {given}"


async def test_an_unverified_server_is_warned_of(places, tmp_path):
    given = write(tmp_path / "given", kubeconfig(cluster={"insecure-skip-tls-verify": True}))
    config = await places.find({"KUBECONFIG": str(given)})
    assert not config.verify
    assert "insecure-skip-tls-verify" in config.warnings[0]


@pytest.mark.parametrize(
    "user, named",
    [
        ({"token": "opaque"}, "token"),
        ({"token": token(sub="x")}, "token"),
        ({"username": "u", "password": "p"}, "password"),
        ({"client-certificate-data": data(CA), "client-key-data": data(KEY)}, "client-key-data"),
        ({"client-certificate-data": data(CA), "client-key-data": data(KEY), "token": "t"}, "client-key-data, token"),
        ({"token": token(exp=4_000_000_000)}, None),
        ({}, None),
    ],
)
async def test_a_long_lived_credential_in_the_file_is_noted_once_with_what_is_better(places, tmp_path, user, named):
    given = write(tmp_path / "given", kubeconfig(user=user))
    note = (
        f"{given}: user 'c' has long-lived credentials in the file ({named}); better: an exec plugin, or a short-lived "
        "token of `kubectl create token`"
    )
    expected = () if named is None else (note,)
    assert (await places.find({"KUBECONFIG": str(given)})).warnings == expected


async def test_to_a_plain_http_server_no_credential_is_sent_and_that_is_told(places, tmp_path):
    user = {"token": "t", "as": "root"}
    given = write(tmp_path / "given", kubeconfig(cluster={"server": "http://c:8080"}, user=user))
    config = await places.find({"KUBECONFIG": str(given)})
    assert config.authorization is None
    assert config.impersonate == Impersonation(user="root")
    assert config.warnings == (
        "http://c:8080 is plain HTTP: the credentials of user 'c' are not sent, as in kubectl",
    )  # fmt: skip


# What is told of what was chosen.


async def test_the_line_for_the_log_has_whom_and_through_what_but_no_password(places, tmp_path):
    given = write(
        tmp_path / "given",
        kubeconfig(cluster={"proxy-url": "http://me:hush@proxy:3128"}, user={"token": "t", "as": "root"}),
    )
    config = await places.find({"KUBECONFIG": str(given)})
    assert config.proxy == "http://me:hush@proxy:3128"
    assert config.describe() == {
        "source": f"KUBECONFIG ({given}), context c", "server": "https://c:6443", "user": "c",
        "proxy": "http://me:***@proxy:3128", "impersonates": "root",
    }  # fmt: skip
    assert "hush" not in repr(config)


async def test_a_pod_goes_through_the_proxy_of_its_environment(places):
    places.mount()
    proxy = {"HTTPS_PROXY": "http://proxy:3128"}
    assert (await places.find(places.in_pod | proxy)).proxy == "http://proxy:3128"
    assert (await places.find(places.in_pod | proxy | {"NO_PROXY": "10.0.0.0/8"})).proxy is None


# All that can be the matter with the three places at once.

ABSENT, PRESENT, BROKEN = "absent", "present", "broken"
IN_CLUSTER, LISTED, AT_HOME = "in-cluster", "KUBECONFIG (", "~/.kube/config ("
HALF = "serviceaccount/token is missing"
BAD_LISTED, BAD_HOME = "KUBECONFIG: ", "~/.kube/config: "
NOTHING = "no cluster found"


@pytest.mark.parametrize(
    "pod, listed, home, source, error",
    [
        (PRESENT, PRESENT, PRESENT, IN_CLUSTER, None),
        (PRESENT, PRESENT, ABSENT, IN_CLUSTER, None),
        (PRESENT, PRESENT, BROKEN, IN_CLUSTER, None),
        (PRESENT, ABSENT, PRESENT, IN_CLUSTER, None),
        (PRESENT, ABSENT, ABSENT, IN_CLUSTER, None),
        (PRESENT, ABSENT, BROKEN, IN_CLUSTER, None),
        (PRESENT, BROKEN, PRESENT, IN_CLUSTER, None),
        (PRESENT, BROKEN, ABSENT, IN_CLUSTER, None),
        (PRESENT, BROKEN, BROKEN, IN_CLUSTER, None),
        (ABSENT, PRESENT, PRESENT, LISTED, None),
        (ABSENT, PRESENT, ABSENT, LISTED, None),
        (ABSENT, PRESENT, BROKEN, LISTED, None),
        (ABSENT, ABSENT, PRESENT, AT_HOME, None),
        (ABSENT, ABSENT, ABSENT, None, NOTHING),
        (ABSENT, ABSENT, BROKEN, None, BAD_HOME),
        (ABSENT, BROKEN, PRESENT, None, BAD_LISTED),
        (ABSENT, BROKEN, ABSENT, None, BAD_LISTED),
        (ABSENT, BROKEN, BROKEN, None, BAD_LISTED),
        (BROKEN, PRESENT, PRESENT, None, HALF),
        (BROKEN, PRESENT, ABSENT, None, HALF),
        (BROKEN, PRESENT, BROKEN, None, HALF),
        (BROKEN, ABSENT, PRESENT, None, HALF),
        (BROKEN, ABSENT, ABSENT, None, HALF),
        (BROKEN, ABSENT, BROKEN, None, HALF),
        (BROKEN, BROKEN, PRESENT, None, HALF),
        (BROKEN, BROKEN, ABSENT, None, HALF),
        (BROKEN, BROKEN, BROKEN, None, HALF),
    ],
)
async def test_the_search_in_each_state_of_each_place(places, tmp_path, pod, listed, home, source, error):
    environ = {}
    if pod != ABSENT:
        places.mount(*(["token"] if pod == BROKEN else []))
        environ |= places.in_pod
    if listed != ABSENT:
        content = kubeconfig("listed") if listed == PRESENT else "clusters: ["
        environ["KUBECONFIG"] = str(write(tmp_path / "listed", content))
    if home != ABSENT:
        at_home = places.at_home()
        if home == BROKEN:
            at_home.write_text("clusters: [")
    if source is not None:
        assert (await places.find(environ)).source.startswith(source)
        return
    with pytest.raises(ConfigError) as caught:
        await places.find(environ)
    text = str(caught.value)
    assert error in text
    assert ("is not YAML" in text) == (error in {BAD_LISTED, BAD_HOME})


async def test_a_kubeconfig_variable_that_leads_nowhere_is_told_with_the_other_two_places(places, tmp_path):
    places.at_home()
    listed = f"{tmp_path / 'one'}{os.pathsep}{tmp_path / 'two'}"
    with pytest.raises(ConfigError) as caught:
        await places.find({"KUBECONFIG": listed})
    text = str(caught.value)
    assert "in-cluster: KUBERNETES_SERVICE_HOST is not set" in text
    assert f"KUBECONFIG ({listed}): no such file" in text
    assert f"{places.home / '.kube' / 'config'}: not looked at, because KUBECONFIG is set" in text


async def test_without_a_home_folder_that_is_what_is_said(places, monkeypatch):
    """A container's user whose number is in no list of users."""

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ConfigError, match=r"~/\.kube/config: this user has no home folder"):
        await find_config({}, service_account=places.service_account)


# A pod whose mount is not whole.


@pytest.mark.parametrize("name", ["token", "ca.crt"])
@pytest.mark.parametrize(
    "change, said",
    [
        (lambda file: file.write_text(" \n"), "is empty; is the node out of disk"),
        (lambda file: (file.unlink(), file.mkdir()), "can't be read: Is a directory; check runAsUser"),
        (lambda file: (file.unlink(), file.symlink_to("..data/none")), "is missing; is automountServiceAccountToken"),
    ],
    ids=["empty", "folder", "dangling"],
)
async def test_a_file_of_a_pod_that_can_not_be_used_is_named(places, name, change, said):
    places.mount()
    change(places.service_account / name)
    with pytest.raises(ConfigError) as caught:
        await places.find(places.in_pod)
    assert str(caught.value).startswith(f"in-cluster: {places.service_account / name} {said}")


@pytest.mark.parametrize(
    "change",
    [
        {"KUBERNETES_SERVICE_PORT": "tcp://10.0.0.1:443"},
        {"KUBERNETES_SERVICE_PORT": "443/x"},
        {"KUBERNETES_SERVICE_HOST": "bad host"},
        {"KUBERNETES_SERVICE_HOST": "me@host"},
    ],
)
async def test_a_service_host_that_makes_no_address_is_told(places, change):
    places.mount()
    with pytest.raises(ConfigError, match=r"is no address of a server; check KUBERNETES_SERVICE_HOST"):
        await places.find(places.in_pod | change)


@pytest.mark.parametrize("place", ["KUBECONFIG", "ASYNCCTL_KUBECONFIG", "home", "in-cluster"])
async def test_a_proxy_of_the_environment_that_is_none_is_told_by_its_variable_alone(places, tmp_path, place):
    proxy = {"HTTPS_PROXY": "ftp://me:hush@proxy"}
    given = str(write(tmp_path / "config", kubeconfig()))
    if place == "home":
        places.at_home()
    elif place == "in-cluster":
        places.mount()
        proxy |= places.in_pod
    elif place == "KUBECONFIG":
        proxy["KUBECONFIG"] = given
    with pytest.raises(ConfigError, match=r"^HTTPS_PROXY 'ftp://me:\*\*\*@proxy' is no address of a proxy"):
        await places.find(proxy, kubeconfig=given if place == "ASYNCCTL_KUBECONFIG" else None)
