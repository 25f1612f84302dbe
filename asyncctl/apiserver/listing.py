"""Reading a collection: lists with their pages, and the rules of resourceVersion on reads.

A list is of one moment: its pages are served from the history, and 410 tells that the moment is forgotten. The rules of
`resourceVersion` and `resourceVersionMatch` are those of apimachinery's `ValidateListOptions` and the storage layer.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import orjson

from asyncctl.apiserver import behaviour, causes as why, errors, selectors
from asyncctl.apiserver.request import Query
from asyncctl.apiserver.resources import ResourceKind
from asyncctl.apiserver.store import Collection, Record
from asyncctl.apiserver.wire import JsonObject

_DURATION = re.compile(r"0|(\d+(\.\d*)?(ns|us|µs|ms|s|m|h))+")
"""A length of time as Go writes it."""


@dataclass(frozen=True, slots=True)
class ListOptions:
    """What a list or watch asks for. `version` is None when none was given; `timeout` is in seconds, 0: none."""

    version: int | None
    match: str
    limit: int
    continuation: str
    selects: Callable[[JsonObject], bool] | None
    watch: bool
    bookmarks: bool
    initial: bool | None
    timeout: int


def options(query: Query, kind: ResourceKind, name: str, *, watch: bool) -> ListOptions:
    """Read the query of a list or watch.

    Args:
        query: of the request.
        kind: what is listed; it knows the fields a selector may name.
        name: of the only object wanted, empty for all.
        watch: whether the path asks for a watch already.

    Raises:
        ApiError: 400 or 422 for what makes no sense; 500 for the version of a watch that is no number.
    """
    watch = watch or query.flag("watch")
    if (duration := query.text("timeout")) and not _DURATION.fullmatch(duration):
        text = f'invalid timeout specified in the request URL - time: invalid duration "{duration}"'
        raise errors.bad_request(text)
    limit, timeout = query.number("limit"), query.number("timeoutSeconds")
    label = selectors.labels(query.text("labelSelector"))
    field_text = query.text("fieldSelector")
    if name:
        field_text = f"{field_text},metadata.name={name}" if field_text else f"metadata.name={name}"
    chosen = selectors.both(
        selectors.fields(field_text, kind.selectable_fields, custom=kind.custom, stored=behaviour.stored_fields(kind)),
        label,
    )
    text, match = query.text("resourceVersion"), query.text("resourceVersionMatch")
    initial = query.flag("sendInitialEvents") if query.has("sendInitialEvents") else None
    _check(query, text, match, initial=initial, watch=watch)
    version = _version(text, watch=watch)
    return ListOptions(
        version,
        match,
        limit,
        query.text("continue"),
        chosen,
        watch,
        query.flag("allowWatchBookmarks"),
        initial,
        timeout,
    )


def _check(query: Query, version: str, match: str, *, initial: bool | None, watch: bool) -> None:
    found: list[errors.Cause] = []
    field = "resourceVersionMatch"
    if watch:
        if initial is not None and match != "NotOlderThan":
            text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            found.append(why.forbidden(field, text))
        if match and initial is None:
            text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            found.append(why.forbidden(field, text))
        if match not in {"", "NotOlderThan"}:
            found.append(why.not_supported(field, match, ["NotOlderThan"]))
        if match and query.text("continue"):
            found.append(why.forbidden(field, "resourceVersionMatch is forbidden when continue is provided"))
    else:
        if match and not version:
            text = "resourceVersionMatch is forbidden unless resourceVersion is provided"
            found.append(why.forbidden(field, text))
        if match and query.text("continue"):
            found.append(why.forbidden(field, "resourceVersionMatch is forbidden when continue is provided"))
        if match not in {"", "Exact", "NotOlderThan"}:
            found.append(why.not_supported(field, match, ["Exact", "NotOlderThan", ""]))
        if match == "Exact" and version == "0":
            text = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            found.append(why.forbidden(field, text))
        if initial is not None:
            found.append(why.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    if found:
        raise errors.invalid_options("ListOptions", found)


def _version(text: str, *, watch: bool) -> int | None:
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    shown = why.go_quote(text)
    wrong = f"resourceVersion: Invalid value: {shown}: strconv.ParseUint: parsing {shown}: invalid syntax"
    raise errors.unclassified(wrong) if watch else errors.bad_request(f"invalid resource version: {wrong}")


def version_of(text: str) -> int:
    """Read the `resourceVersion` of a GET; raise 400 when it is no number."""
    return _version(text, watch=False) or 0


@dataclass(frozen=True, slots=True)
class Page:
    """A list, or a part of it. `remaining` is None where the real server does not say."""

    records: list[Record]
    version: int
    continuation: str = ""
    remaining: int | None = None


def page(collection: Collection, prefix: str, wanted: ListOptions, current: int) -> Page:
    """Return what a list asks for.

    Args:
        collection: the objects of the kind.
        prefix: of the keys: `namespace/` or nothing.
        wanted: the list's options.
        current: the store's resourceVersion.

    Raises:
        ApiError: 400 for a bad continue token, 410 for a forgotten moment.
    """
    start, version = "", wanted.version
    if wanted.continuation:
        if version:
            raise errors.bad_request("specifying resource version is not allowed when using continue")
        token_version, start = _decode(wanted.continuation)
        # -1 goes on with the list as it is now, in full knowledge that it is another one.
        exact = current if token_version < 0 else token_version
    elif wanted.match == "Exact" or (wanted.match == "" and version and wanted.limit):
        exact = version or current
    else:
        exact = current
    records: Iterator[Record]
    if exact == current:
        records = collection.scan(prefix, prefix + start if start else "")
    else:
        past = _past(collection, exact, start, wanted)
        records = iter([past[key] for key in sorted(past) if key.startswith(prefix) and key >= prefix + start])
    limit = 0 if version == 0 and not wanted.continuation else wanted.limit
    return _cut(records, prefix, exact, limit, wanted.selects)


def _past(collection: Collection, exact: int, start: str, wanted: ListOptions) -> dict[str, Record]:
    try:
        return collection.at(exact)
    except errors.ApiError:
        if not wanted.continuation:
            raise
        raise errors.expired(errors.TOO_OLD_CONTINUE, _encode(-1, start)) from None


def _cut(
    records: Iterable[Record], prefix: str, version: int, limit: int, selects: Callable[[JsonObject], bool] | None
) -> Page:
    records = iter(records)
    if not limit:
        return Page([record for record in records if selects is None or selects(record.object)], version)
    chosen: list[Record] = []
    for record in records:
        if selects is not None and not selects(record.object):
            continue
        chosen.append(record)
        if len(chosen) == limit:
            break
    following = next(records, None) if len(chosen) == limit else None
    if following is None:
        return Page(chosen, version)
    token = _encode(version, chosen[-1].key.removeprefix(prefix) + "\0")
    remaining = None if selects is not None else 1 + sum(1 for _ in islice(records, None))
    return Page(chosen, version, token, remaining)


def _encode(version: int, start: str) -> str:
    token = orjson.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": start})
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def _decode(token: str) -> tuple[int, str]:
    try:
        body = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (binascii.Error, ValueError):
        raise _bad_token("illegal base64 data") from None
    try:
        value = orjson.loads(body)
        known, version, start = value["v"], value["rv"], value["start"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        first = "" if not body else chr(body[0]) if 32 <= body[0] < 127 else f"\\u{body[0]:04x}"
        raise _bad_token(f"invalid character '{first}' looking for beginning of value") from None
    if known != "meta.k8s.io/v1":
        raise _bad_token(f'server does not recognize this encoded version "{known}"')
    if not version:
        raise _bad_token("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
    if not start:
        raise _bad_token("encoded start key is empty")
    return int(version), str(start).removeprefix("/")


def _bad_token(text: str) -> errors.ApiError:
    return errors.bad_request(f"invalid continue token: continue key is not valid: {text}")
