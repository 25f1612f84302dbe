"""What a bearer token says of itself, where it is a JSON Web Token; nothing is verified."""

import base64
import binascii
from datetime import UTC, datetime

import orjson

from asyncctl.objects.json import JsonObject


def claims(token: str) -> JsonObject | None:
    """The claims of a JSON Web Token (RFC 7519), or None when `token` is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        found = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    return found if isinstance(found, dict) else None


def expires_at(token: str) -> datetime | None:
    """When `token` ends to be valid, in UTC; None when it does not tell."""
    return _moment(token, "exp")


def issued_at(token: str) -> datetime | None:
    """When `token` was made, in UTC; None when it does not tell."""
    return _moment(token, "iat")


def _moment(token: str, claim: str) -> datetime | None:
    moment = (claims(token) or {}).get(claim)
    if not isinstance(moment, int | float) or isinstance(moment, bool):
        return None
    try:
        return datetime.fromtimestamp(moment, UTC)
    except (OverflowError, ValueError, OSError):
        return None
