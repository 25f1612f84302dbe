"""What must not be committed is stopped by `make check` and by the hook. Every secret here is made as the test runs."""

import base64
import json
import os
import re
import secrets
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

ROOT = Path(__file__).parents[2]


class Repository:
    """A git repository of its own, and the scan as `make check` and the hook run it."""

    def __init__(self, folder):
        self.folder = folder
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        self.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PYTHONPATH": str(ROOT)}
        for who in ("AUTHOR", "COMMITTER"):
            self.environ |= {f"GIT_{who}_NAME": "a", f"GIT_{who}_EMAIL": "a@example.com"}
        self.git("init", "--quiet")

    def run(self, *command, check=True, **environ):
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environ | environ,
            capture_output=True,
            text=True,
            check=check,
            timeout=60,
        )

    def git(self, *arguments, **options):
        return self.run("git", *arguments, **options)

    def add(self, path, text):
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        self.git("add", path)

    def scan(self, *options):
        return self.run(sys.executable, "-m", "secretscan", *options, check=False)

    def found(self, *options):
        """The lines that name something, without what it is."""
        done = self.scan(*options)
        assert done.returncode == bool(done.stderr), done.stderr
        return [line.rpartition(": ")[0] for line in done.stdout.splitlines() if ": " in line]


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


def private_keys():
    curve = ec.generate_private_key(ec.SECP256R1())
    whole = rsa.generate_private_key(65537, 2048)
    forms = {
        "PKCS8": (curve, PrivateFormat.PKCS8),
        "PKCS8 of Ed25519": (ed25519.Ed25519PrivateKey.generate(), PrivateFormat.PKCS8),
        "EC": (curve, PrivateFormat.TraditionalOpenSSL),
        "RSA": (whole, PrivateFormat.TraditionalOpenSSL),
        "DSA": (dsa.generate_private_key(1024), PrivateFormat.TraditionalOpenSSL),
        "OpenSSH": (curve, PrivateFormat.OpenSSH),
    }
    made = {name: key.private_bytes(Encoding.PEM, form, NoEncryption()) for name, (key, form) in forms.items()}
    locked = BestAvailableEncryption(b"a passphrase")
    made["PKCS8 encrypted"] = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)
    made["RSA encrypted"] = whole.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, locked)
    made = {name: key.decode() for name, key in made.items()}
    body = base64.encodebytes(secrets.token_bytes(300)).decode()
    block = "PGP PRIVATE KEY BLOCK"
    made["PGP"] = f"-----BEGIN {block}-----\nVersion: 1\n\n{body}-----END {block}-----\n"
    made["PuTTY"] = f"PuTTY-User-Key-File-3: ssh-rsa\nEncryption: none\nPrivate-Lines: 6\n{body}"
    return made


def jwt():
    def part(content):
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    claims = {"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:controllers:asyncctl"}
    return f"{part({'alg': 'RS256', 'kid': secrets.token_hex(8)})}.{part(claims)}.{secrets.token_urlsafe(256)}"


def opaque():
    return f"7{secrets.token_urlsafe(32)}"  # one in a thousand would have no digit


def kubeconfig(**user):
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "kube", "cluster": {"server": "https://127.0.0.1:6443"}}],
        "users": [{"name": "admin", "user": user}],
        "contexts": [{"name": "kube", "context": {"cluster": "kube", "user": "admin"}}],
        "current-context": "kube",
    }


KEYS = private_keys()
USERS = {
    "client-key-data": {"client-key-data": base64.b64encode(KEYS["RSA"].encode()).decode()},
    "token": {"token": opaque()},
    "short token": {"token": "abc"},
    "password": {"username": "admin", "password": "correct horse"},
    "refresh token": {"auth-provider": {"name": "oidc", "config": {"refresh-token": opaque()}}},
}


def line_of(text, part):
    return text[: text.index(part)].count("\n") + 1


@pytest.mark.parametrize(
    ("form", "line"),
    [
        (lambda pem: f"# a key\n{pem}", 2),
        (lambda pem: f'KEY = """\n{pem}"""\n', 2),
        (lambda pem: "a: 1\ntls.key: |\n" + textwrap.indent(pem, "    "), 3),
        (lambda pem: json.dumps({"a": 1, "key": pem}, indent=1), 3),
        (lambda pem: "KEY = (\n" + "".join(f"    {line!r}\n" for line in pem.splitlines(keepends=True)) + ")\n", 2),
        (lambda pem: f"data:\n  tls.key: {base64.b64encode(pem.encode()).decode()}\n", 2),
        (lambda pem: f"x\n{base64.encodebytes(pem.encode()).decode()}", 2),
    ],
    ids=["as it is", "in a program", "in YAML", "in JSON", "line by line", "base64", "base64 in lines"],
)
def test_a_private_key_of_any_sort_is_found(repository, form, line):
    for name, pem in KEYS.items():
        repository.add(f"tests/{name}.py", form(pem))
    assert {f"tests/{name}.py:{line}" for name in KEYS} <= set(repository.found())


@pytest.mark.parametrize("path", ["config", "kube.yaml", "kube.json", "tests/data/kube.conf"])
def test_a_kubeconfig_with_a_credential_is_found(repository, path):
    wanted = set()
    for name, user in USERS.items():
        config = kubeconfig(**user)
        text = json.dumps(config, indent="\t") if path.endswith("json") else yaml.safe_dump(config)
        repository.add(f"{name}/{path}", text)
        key = re.search(r"(client-key-data|refresh-token|token|password)\b", text)[0]
        wanted.add(f"{name}/{path}:{line_of(text, key)}")
    assert wanted <= set(repository.found())


def test_a_kubeconfig_in_another_text_is_found(repository):
    text = yaml.safe_dump(kubeconfig(**USERS["token"]))
    repository.add("docs/page.md", f"A page.\n\n```yaml\n{text}```\n")
    repository.add("secret.yaml", f"kind: Secret\ndata:\n  value: {base64.b64encode(text.encode()).decode()}\n")
    repository.add("windows.yaml", b"\xff\xfe" + text.encode("utf-16-le"))
    repository.add("line.json", json.dumps(kubeconfig(**USERS["password"])) + " " * 500_000)
    line = line_of(text, "token:")
    wanted = {f"docs/page.md:{line + 3}", "line.json:1", "secret.yaml:3", f"windows.yaml:{line}"}
    assert set(repository.found()) == wanted


def test_a_kubeconfig_without_a_credential_may_be_committed(repository):
    repository.add("a.yaml", yaml.safe_dump(kubeconfig(**{"client-key": "/etc/key.pem", "tokenFile": "/run/token"})))
    repository.add("b.yaml", yaml.safe_dump(kubeconfig(exec={"command": "login"})))
    repository.add("c.yaml", yaml.safe_dump(kubeconfig(token="${TOKEN}", password="REDACTED")))
    assert repository.found() == []


BEARERS = (
    "Authorization: Bearer {}",
    "curl -H 'authorization: bearer {}' https://kube",
    'headers = {{"Authorization": "Bearer {}"}}',
    'TOKEN = "{}"',
    "token: {}",
    '{{"kind": "TokenRequest", "status": {{"token": "{}"}}}}',
    "kubectl --token={} get pods",
    "kubectl --token {} get pods",
    "KUBE_TOKEN={} ./run",
)


@pytest.mark.parametrize(
    "make",
    [jwt, lambda: secrets.token_hex(32), opaque],
    ids=["of a ServiceAccount", "in hex", "in base64"],
)
def test_a_bearer_token_is_found(repository, make):
    repository.add("tests/test_it.py", "# a test\n" + "".join(f"{form.format(make())}\n" for form in BEARERS))
    assert set(repository.found()) == {f"tests/test_it.py:{line}" for line in range(2, 2 + len(BEARERS))}


def test_what_is_found_is_named_by_file_and_line_and_never_shown(repository):
    token, key = opaque(), KEYS["RSA"]
    repository.add("kube.yaml", yaml.safe_dump(kubeconfig(token=token)))
    repository.add("a folder/key.pem", key)
    done = repository.scan()
    assert done.returncode == 1
    assert "a folder/key.pem:1: private key" in done.stdout
    assert re.search(r"^kube.yaml:\d+: kubeconfig with token$", done.stdout, re.MULTILINE)
    assert "git rm --cached" in done.stderr
    assert token not in done.stdout + done.stderr
    assert not any(line in done.stdout + done.stderr for line in key.splitlines()[1:-1])


def test_made_up_values_are_let_pass(repository):
    repository.add(
        "tests/test_it.py",
        'password = "hunter2"\ntoken: str = field("token")\nheaders = {"Authorization": f"Bearer {token}"}\n'
        'PEM = "-----BEGIN PRIVATE KEY-----\\nnot a key\\n-----END PRIVATE KEY-----"\nuid = "'
        f'{"0b5cf1f4-9d63-4c5a-8a39-3a1de7f9b1aa"}"\nuser = {{"token": "made-up", "password": "pw"}}\n',
    )
    assert repository.found() == []


def test_a_public_certificate_may_be_committed(repository):
    key = base64.b64encode(secrets.token_bytes(600)).decode()
    pem = f"-----BEGIN CERTIFICATE-----\n{key}\n-----END CERTIFICATE-----\n"
    repository.add("crd.yaml", f"caBundle: {base64.b64encode(pem.encode()).decode()}\nca: |\n  {pem}")
    assert repository.found() == []


def test_a_line_that_a_person_has_looked_at_is_let_pass(repository):
    repository.add("a.py", f'TOKEN = "{secrets.token_hex(32)}"  # pragma: allowlist secret\n')
    repository.add("b.py", f"# pragma: allowlist nextline secret\nBearer {secrets.token_hex(32)}\n")
    repository.add("c.py", f'ONE = 1  # pragma: allowlist secret\nTOKEN = "{secrets.token_hex(32)}"\n')
    assert set(repository.found()) == {"c.py:2"}


def test_the_index_is_what_counts_not_the_working_folder(repository):
    repository.add("staged.pem", KEYS["EC"])
    repository.add("clean.txt", "clean\n")
    (repository.folder / "staged.pem").write_text("taken out again, but not added\n")
    (repository.folder / "clean.txt").write_text(KEYS["EC"])
    (repository.folder / "untracked.pem").write_text(KEYS["EC"])
    assert repository.found() == ["staged.pem:1"]


def test_links_and_binary_files_are_no_trouble(repository):
    (repository.folder / "link").symlink_to("/nowhere/token")
    repository.git("add", "link")
    repository.add("random.bin", secrets.token_bytes(100_000))
    repository.add("archive.tar", b"\0" * 512 + KEYS["EC"].encode())
    repository.add("empty", "")
    assert repository.found() == ["archive.tar:1"]


def test_the_staged_part_is_what_differs_from_the_last_commit(repository):
    repository.add("old.pem", KEYS["EC"])
    repository.git("commit", "--quiet", "--message", "before there was a scan")
    repository.add("new.pem", KEYS["EC"])
    repository.git("rm", "--quiet", "--cached", "old.pem")
    assert repository.found("--staged") == ["new.pem:1"]


def test_where_there_is_no_repository_it_says_so(tmp_path):
    environ = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "secretscan"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "not a git repository" in done.stderr


@pytest.fixture
def hooked(repository):
    """A repository in which `make hooks` has been run."""
    hooks = re.search(r"^hooks:.*\n\t(.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert (ROOT / ".githooks" / "pre-commit").stat().st_mode & 0o111
    repository.run(*hooks.split())
    (repository.folder / ".githooks").symlink_to(ROOT / ".githooks")
    repository.environ["VENV"] = str(Path(sys.executable).parents[1])
    return repository


def test_the_hook_refuses_a_commit_with_a_secret(hooked):
    hooked.add("fine.txt", "fine\n")
    hooked.git("commit", "--quiet", "--message", "fine")
    hooked.add("folder/kube.yaml", yaml.safe_dump(kubeconfig(password="pw")))
    done = hooked.git("commit", "--message", "not fine", check=False)
    assert done.returncode == 1
    assert re.search(r"folder/kube.yaml:\d+: kubeconfig with password", done.stdout + done.stderr)
    assert hooked.git("log", "--format=%s").stdout == "fine\n"


def test_the_hook_sees_what_commit_adds_by_itself(hooked):
    hooked.add("a.txt", "fine\n")
    hooked.git("commit", "--quiet", "--message", "fine")
    (hooked.folder / "a.txt").write_text(KEYS["EC"])
    assert hooked.git("commit", "--all", "--message", "not fine", check=False).returncode == 1
    assert hooked.git("commit", "--message", "not fine", "a.txt", check=False).returncode == 1
    assert hooked.git("log", "--format=%s").stdout == "fine\n"


def test_the_hook_without_its_tools_refuses_and_says_what_to_do(hooked):
    hooked.add("fine.txt", "fine\n")
    done = hooked.git("commit", "--message", "fine", check=False, VENV="nowhere")
    assert done.returncode == 1
    assert "`make check` makes it" in done.stderr


def test_make_check_and_tox_run_the_scan():
    check = (ROOT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0]
    assert "$(BIN)/python -m secretscan\n" in check + "\n"
    assert "    python -m secretscan\n" in (ROOT / "tox.ini").read_text()


def test_nothing_secret_is_tracked_here():
    if not (ROOT / ".git").exists():
        pytest.skip("not in a git work tree")
    done = subprocess.run(
        [sys.executable, "-m", "secretscan"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert re.fullmatch(r"No secret in \d{3,} files\.\n", done.stdout)
