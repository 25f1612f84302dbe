"""SCRAM-SHA-256 verifiers (RFC 5803, RFC 7677): what PostgreSQL keeps instead of a password, made without asking it.

Whoever reads a verifier can't log in by it. It is what a new instance is given, so that neither its environment nor its
log ever has the password.
"""

import base64
import hashlib
import hmac
import re
import secrets

_ITERATIONS = 4096  # as PostgreSQL makes them
_SHAPE = re.compile(rf"SCRAM-SHA-256\${_ITERATIONS}:([A-Za-z0-9+/=]+)\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+")


def verifier(password: str, *, salt: bytes | None = None) -> str:
    """Return the verifier of a password; it takes milliseconds, on purpose.

    Args:
        password: In ASCII, which SASLprep (RFC 4013) leaves as it is.
        salt: Default: 16 random bytes.
    """
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${_ITERATIONS}:{_text(salt)}${_text(stored)}:{_text(server)}"


def fits(known: str, password: str) -> bool:
    """Whether `known` is a verifier of this password, as slow to guess by as ours."""
    found = _SHAPE.fullmatch(known)
    if found is None:
        return False
    try:
        salt = base64.b64decode(found[1], validate=True)
    except ValueError:
        return False
    return hmac.compare_digest(verifier(password, salt=salt), known)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
