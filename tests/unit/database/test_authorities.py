"""Certificates as files: what is taken from a Secret, where it is written, and that it goes."""

import ssl

import pytest
import trustme

from asyncctl.database import authorities as module
from asyncctl.database.authorities import LARGEST, Authorities, certificates


@pytest.fixture(scope="module")
def pem():
    return trustme.CA().cert_pem.bytes()


@pytest.fixture
async def authorities():
    made = Authorities()
    yield made
    await made.close()


def test_a_key_beside_the_certificates_is_left_out(pem):
    key = trustme.CA().private_key_pem.bytes()
    other = trustme.CA().cert_pem.bytes()
    found = certificates(b"# ours\n" + pem + key + b"password=x\n" + other)
    assert (found.count(b"BEGIN CERTIFICATE"), b"PRIVATE" in found, b"password" in found) == (2, False, False)
    assert ssl.create_default_context(cadata=found.decode()).cert_store_stats()["x509"] == 2


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no certificate in PEM"),
        (b"s3cret", "holds no certificate in PEM"),
        (b"\xff\xfe", "holds no certificate in PEM"),
        (b"-----BEGIN CERTIFICATE-----\ns3cret\n-----END CERTIFICATE-----\n", "holds a certificate that can't be read"),
        (b"s" * (LARGEST + 1), "is larger than 256 KiB"),
    ],
)
def test_what_is_no_certificate_is_refused_and_not_quoted(data, said):
    with pytest.raises(ValueError, match=said) as caught:
        certificates(data)
    assert "s3cret" not in str(caught.value)


def test_a_bad_certificate_behind_a_good_one_is_refused(pem):
    with pytest.raises(ValueError, match="can't be read"):
        certificates(pem + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


async def test_the_same_certificates_are_one_file_that_nobody_else_can_get_at(authorities, pem):
    path, found = await authorities.file(pem)
    assert path.read_bytes() == found == certificates(pem)
    assert (await authorities.file(b"\n" + pem))[0] == path
    assert path.parent.stat().st_mode & 0o077 == 0
    assert list(path.parent.iterdir()) == [path]


async def test_a_file_that_somebody_removed_is_written_again(authorities, pem):
    path, _ = await authorities.file(pem)
    path.unlink()
    assert (await authorities.file(pem))[0].is_file()


async def test_nothing_is_left_at_the_end(authorities, pem):
    path, _ = await authorities.file(pem)
    await authorities.close()
    await authorities.close()
    assert not path.parent.exists()


async def test_of_too_many_the_one_that_was_used_longest_ago_goes(authorities, monkeypatch):
    monkeypatch.setattr(module, "_MOST", 2)
    first, second, third = [trustme.CA().cert_pem.bytes() for _ in range(3)]
    paths = [(await authorities.file(each))[0] for each in (first, second, first, third)]
    assert [path.exists() for path in paths] == [True, False, True, True]
