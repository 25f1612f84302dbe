"""That the search for leaks finds them: what it does not find, `test_secrecy` would not."""

import base64
import json
import secrets
from urllib.parse import quote

import pytest

from tests.e2e.leaks import Leaks

TOKEN = secrets.token_hex(16)
PASSWORD = secrets.token_urlsafe(18) + "/+ü"
VERIFIER = f"SCRAM-SHA-256$4096:{base64.b64encode(secrets.token_bytes(16)).decode()}${'A' * 30}{TOKEN}=:{'B' * 43}="
JWT = f"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJkYWVtb24ifQ.{secrets.token_urlsafe(64)}"  # pragma: allowlist secret
KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\n"
    + "\n".join("MIIE" + secrets.token_hex(30) for _ in range(8))
    + "\n-----END RSA PRIVATE KEY-----\n"
)


@pytest.mark.parametrize(
    "secret", [TOKEN, PASSWORD, VERIFIER, JWT, KEY], ids=["token", "password", "scram", "jwt", "pem"]
)
@pytest.mark.parametrize(
    "form",
    [
        str,
        lambda secret: json.dumps({"a": [json.dumps(secret)]}),
        lambda secret: quote(secret, safe=""),
        lambda secret: secret.encode().hex(),
        lambda secret: base64.b64encode(secret.encode()).decode(),
        lambda secret: base64.b64encode(f"x:{secret}".encode()).decode(),
        lambda secret: base64.urlsafe_b64encode(f"password={secret}!".encode()).decode(),
        lambda secret: secret[: -len(secret) // 3],
        lambda secret: secret[len(secret) // 3 :],
        lambda secret: "\n".join(secret[at : at + 9] for at in range(0, len(secret), 9)),
        lambda secret: repr([secret[at : at + 7] for at in range(0, len(secret), 7)]),
    ],
    ids=["plain", "json", "url", "hex", "base64", "inner-base64", "urlsafe", "head", "tail", "lines", "list"],
)
def test_a_secret_is_found_in_any_form(secret, form):
    said = f"first line\nsomething went wrong: {form(secret)} and so on\nlast line\n"
    assert Leaks([secret]).found_in(said)


def test_what_is_no_secret_is_not_told():
    leaks = Leaks([TOKEN, PASSWORD, VERIFIER, JWT, KEY])
    assert len(leaks) > 500
    harmless = [*JWT.split(".")[:2], "SCRAM-SHA-256$4096:***", KEY.splitlines()[0], secrets.token_hex(16)]
    assert leaks.found_in("\n".join(harmless)) == []


def test_a_password_that_is_too_short_to_be_known_again_is_not_looked_for():
    assert Leaks(["x", "", "theirs"]).found_in("x theirs eA dGhl") == []


def test_a_secret_across_the_parts_of_a_long_text_is_found():
    for place in (99_990, 100_000, 100_010):
        assert Leaks([TOKEN]).found_in("x" * place + TOKEN)
