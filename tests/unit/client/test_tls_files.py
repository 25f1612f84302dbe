"""What is configured of certificates and keys, in files and as data: used where it can be, else told by its name."""

import base64
import ctypes
import os
import ssl
import tempfile
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import PrivateFormat

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.config.credentials import ClientCertificate
from asyncctl.client.errors import BadCertificateFile, ClientKeyEncrypted, ClientKeyMismatch, ClientKeyMissing
from asyncctl.client.tls.context import make_context
from asyncctl.client.tls.pem import momentary_file
from tests.unit.client.tls_kit import Issued

SOURCE = "KUBECONFIG (/home/ann/.kube/config), context test"
PASSPHRASE = b"correct horse"


@pytest.fixture(scope="module")
def ca():
    return Issued("the cluster's CA", ca=True)


@pytest.fixture(scope="module")
def me(ca):
    return Issued("me", ca)


@pytest.fixture
def write(tmp_path):
    """Write a file, and return its path."""

    def write(name, content):
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return write


def make(certificate=None, **config):
    return make_context(ClusterConfig(**{"server": "https://host", "source": SOURCE} | config), certificate)


def told(kind, certificate=None, **config):
    with pytest.raises(BadCertificateFile) as caught:
        make(certificate, **config)
    assert type(caught.value) is kind
    assert not caught.value.sent
    return str(caught.value)


def test_plain_http_needs_no_context():
    assert make(server="http://host", ca_file="absent") is None


def test_files_and_data_serve_alike(ca, me, write):
    files = {"client_certificate": write("me.crt", me.pem), "client_key": write("me.key", me.key_pem())}
    data = {"client_certificate_data": me.pem, "client_key_data": me.key_pem()}
    for context in (make(ca_file=write("ca.crt", ca.pem), **files), make(ca_data=ca.pem, **data)):
        assert [dict(*each["subject"])["commonName"] for each in context.get_ca_certs()] == ["the cluster's CA"]
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_data_come_before_a_file(ca):
    assert make(ca_file="absent", ca_data=ca.pem).get_ca_certs()


def test_a_plugins_certificate_comes_before_the_configured_one(me):
    assert make(ClientCertificate(me.pem, me.key_pem()), client_certificate="absent", client_key="absent")


@pytest.mark.parametrize("kind", [trustme.KeyType.RSA, trustme.KeyType.ECDSA])
def test_a_chain_with_words_between_is_taken(kind):
    authority = trustme.CA(key_type=kind)
    middle = authority.create_child_ca(key_type=kind)
    mine = middle.issue_cert("me", key_type=kind)
    chain = "Ärger vermeiden\n".encode().join(each.bytes() for each in mine.cert_chain_pems)
    key = mine.private_key_pem.bytes()
    context = make(ca_data=b"# \xff\n" + authority.cert_pem.bytes(), client_certificate_data=chain, client_key_data=key)
    assert len(context.get_ca_certs()) == 1


def test_without_verification_no_ca_is_looked_at():
    context = make(ca_file="absent", verify=False)
    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname


def test_the_session_keys_are_logged_nowhere(ca, monkeypatch, tmp_path):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert make(ca_data=ca.pem).keylog_filename is None


def test_a_file_that_is_not_there_is_named(tmp_path, me, write):
    absent = str(tmp_path / "absent")
    assert told(BadCertificateFile, ca_file=absent) == (
        f"the CA file {absent} does not exist; write the file anew, as PEM, or correct certificate-authority ({SOURCE})"
    )
    text = told(BadCertificateFile, client_certificate=absent, client_key=absent)
    assert text.startswith(f"the client certificate file {absent} does not exist")
    ours = write("me.crt", me.pem)
    assert told(ClientKeyMissing, client_certificate=ours, client_key=absent) == (
        f"the client key file {absent} does not exist; write the file anew, as PEM, or correct client-key ({SOURCE})"
    )
    assert "is mounted as a whole" in told(BadCertificateFile, ca_file=absent, source="in-cluster")


def test_one_of_a_pair_is_not_enough(me, write):
    ours, key = write("me.crt", me.pem), write("me.key", me.key_pem())
    assert told(ClientKeyMissing, client_certificate=ours) == (
        f"the client certificate file {ours} has no key; set client-key ({SOURCE})"
    )
    assert told(BadCertificateFile, client_key=key) == (
        f"the client key file {key} has no certificate; set client-certificate ({SOURCE})"
    )
    assert told(ClientKeyMissing, client_certificate_data=me.pem) == (
        f"client-certificate-data of {SOURCE} has no key; set client-key ({SOURCE})"
    )


@pytest.mark.parametrize("key", [None, rsa.generate_private_key(65537, 2048)], ids=["same kind", "another kind"])
def test_a_key_of_another_certificate_is_told(ca, me, write, key):
    other = Issued("other", ca, key=key)
    ours, key = write("me.crt", me.pem), write("other.key", other.key_pem())
    assert told(ClientKeyMismatch, client_certificate=ours, client_key=key) == (
        f"the client key file {key} does not belong to the client certificate file {ours} (CN=me); use the key that "
        "this certificate was made for"
    )
    text = told(ClientKeyMismatch, ClientCertificate(me.pem, other.key_pem()))
    assert "the client key of the exec plugin does not belong to the client certificate of the exec plugin" in text


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_is_told_and_no_passphrase_is_asked_for(me, write, form):
    key = write("me.key", me.key_pem(PASSPHRASE, form))
    text = told(ClientKeyEncrypted, client_certificate=write("me.crt", me.pem), client_key=key)
    assert text.startswith(f"the client key file {key} is encrypted, and nobody is there to type its passphrase; ")
    assert "openssl pkey" in text


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"no certificate", "has no CERTIFICATE in PEM form; "),
        (base64.b64encode(b"-----BEGIN CERTIFICATE-----\n"), "it is base64 of PEM, and has to be decoded once more"),
        (b"\x30\x82\x01\x02\xff", "it looks like DER, which `openssl x509 -inform der`"),
        (b"-----BEGIN RSA PRIVATE KEY-----\n", "it has RSA PRIVATE KEY; "),
        (b"-----BEGIN CERTIFICATE-----\nMIIB", "is broken: was it cut off, or is it still being written?"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is broken: was it cut off"),
    ],
)
def test_what_is_no_certificate_is_told_by_what_it_seems_to_be(me, write, content, said):
    file = write("odd", content)
    text = told(BadCertificateFile, ca_file=file)
    assert text.startswith(f"the CA file {file} ")
    assert said in text
    assert f"correct certificate-authority ({SOURCE})" in text
    text = told(BadCertificateFile, ca_data=content)
    assert text.startswith(f"certificate-authority-data of {SOURCE} ")
    assert text.endswith("rite certificate-authority-data anew, as base64 of PEM")
    text = told(BadCertificateFile, client_certificate=file, client_key_data=me.key_pem())
    assert text.startswith(f"the client certificate file {file} ")
    assert said in text
    text = told(BadCertificateFile, ClientCertificate(content, me.key_pem()))
    assert text.startswith("the client certificate of the exec plugin ")
    assert text.endswith("ee what the plugin prints")


def test_what_is_no_key_is_told_and_never_shown(me, write):
    whole = me.key_pem()
    for content, said in [
        (b"", "is empty"),
        (me.pem, "has no PRIVATE KEY in PEM form; it has CERTIFICATE; "),
        (whole[:90], "is broken"),
        (whole[:60] + whole[70:], "was it cut off, or is it still being written?"),
    ]:
        file = write("odd.key", content)
        text = told(BadCertificateFile, client_certificate_data=me.pem, client_key=file)
        assert text.startswith(f"the client key file {file} ")
        assert said in text
        assert "MI" not in text.replace(file, "")


def test_a_bundle_of_which_the_end_is_cut_off_is_told(ca, write):
    assert "is broken (bad end line)" in told(BadCertificateFile, ca_file=write("ca.crt", ca.pem + ca.pem[:200]))


def test_a_certificate_that_is_too_weak_for_openssl_is_told(ca):
    weak = Issued("me", ca, key=rsa.generate_private_key(65537, 1024))
    text = told(BadCertificateFile, client_certificate_data=weak.pem, client_key_data=weak.key_pem())
    assert "is too weak for OpenSSL (ee key too small); have a stronger one issued" in text


def test_a_file_that_can_not_be_read_is_told_with_the_reason(tmp_path, write, ca):
    assert "can't be read: Is a directory" in told(BadCertificateFile, ca_file=str(tmp_path))
    (tmp_path / "loop").symlink_to("loop")
    assert "can't be read: Too many levels of symbolic links" in told(
        BadCertificateFile, ca_file=str(tmp_path / "loop")
    )
    beneath = f"{write('ca.crt', ca.pem)}/ca.crt"
    assert "does not exist" in told(BadCertificateFile, ca_file=beneath)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look through another user's eyes")
@pytest.mark.parametrize("closed", ["file", "folder"])
def test_a_file_of_another_user_is_told_with_its_mode(ca, closed):
    eyes = ctypes.CDLL(None).setfsuid  # of this thread alone
    with tempfile.TemporaryDirectory() as folder:  # pytest's own lets nobody in
        file = Path(folder, "ca.crt")
        file.write_bytes(ca.pem)
        file.chmod(0o600)
        Path(folder).chmod(0o711 if closed == "file" else 0o700)
        eyes(65534)
        try:
            text = told(BadCertificateFile, ca_file=str(file))
        finally:
            eyes(0)
    whose = " (its owner is 0, its mode 0600)" if closed == "file" else ""
    assert text == f"the CA file {file} can't be read by user 0{whose}; let this user read it"


def descriptors():
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_key_is_on_no_disk_but_for_the_moment_of_loading(me, monkeypatch, tmp_path, in_memory):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif not hasattr(os, "memfd_create"):
        pytest.skip("no files in memory on this system")
    with momentary_file(b"secret") as path:
        assert Path(path).read_bytes() == b"secret"
        assert Path(path).stat().st_mode & 0o777 == 0o600
        assert len(list(tmp_path.iterdir())) == (0 if in_memory else 1)
    assert not Path(path).exists()
    before = descriptors()
    assert make(client_certificate_data=me.pem, client_key_data=me.key_pem())
    assert not list(tmp_path.iterdir())
    assert descriptors() == before


def test_without_a_place_for_the_moment_that_is_told(me, monkeypatch, tmp_path):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    text = told(BadCertificateFile, client_certificate_data=me.pem, client_key_data=me.key_pem())
    assert "for want of a temporary file: No such file or directory; set TMPDIR to a writable folder" in text
