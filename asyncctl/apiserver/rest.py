"""The resource endpoints: which verb a request is, in the order and the words of the real server.

A request comes in as plain values and goes out as an `Answer` or a `Watch`; HTTP itself is `server`'s business.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from asyncctl.apiserver import actions, apply, behaviour, causes as why, errors, listing, patch, request, scale
from asyncctl.apiserver.forms import Writer
from asyncctl.apiserver.registry import DeleteOptions, Registry, Write, decoded
from asyncctl.apiserver.request import Query, Target
from asyncctl.apiserver.resources import ResourceKind
from asyncctl.apiserver.store import Collection, Record, Store
from asyncctl.apiserver.watching import Refused, Watch
from asyncctl.apiserver.wire import JsonObject

_AHEAD = 3.0
"""Seconds a read waits for a resourceVersion that is not there yet."""

_OPTIONS = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions"}


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request, its body read. `target` is what its path names."""

    method: str
    target: Target
    query: Query
    accept: str
    content_type: str
    user_agent: str
    body: bytes
    warnings: list[str] = field(default_factory=list)
    """What the client is to be warned of, also when the request fails."""


@dataclass(slots=True)
class Answer:
    """A response: status code, body, and headers beyond the ordinary."""

    code: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Stream:
    """A watch that is to be written to the client."""

    watch: Watch | Refused


class Rest:
    """Answers requests for objects.

    Args:
        store: where objects are.
        registry: writes them.
        kind_at: finds the kind of a group, version and plural, None when there is none.
        built_in: tells whether a group and version has built-in kinds.
        refuses: tells whether a custom kind's definition is going.
        now: gives the time.
        bookmark_interval: seconds.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        kind_at: Callable[[str, str, str], ResourceKind | None],
        built_in: Callable[[str, str], bool],
        refuses: Callable[[ResourceKind], bool],
        now: Callable[[], datetime],
        bookmark_interval: float,
    ) -> None:
        self._store = store
        self._registry = registry
        self._kind_at = kind_at
        self._built_in = built_in
        self._refuses = refuses
        self._now = now
        self._bookmark_interval = bookmark_interval

    async def answer(self, incoming: Incoming) -> Answer | Stream:
        """Do what a request asks; raise ApiError when that cannot be."""
        target, kind = incoming.target, self._kind(incoming.target)
        if kind.deprecation_warning:
            incoming.warnings.append(kind.deprecation_warning)
        read = incoming.method in {"GET", "HEAD"}
        form = request.form(incoming.accept, custom=kind.custom)
        writer = Writer(kind, form, incoming.query.text("includeObject"), self._now)
        if read and (not target.name or target.watch) and not target.subresource:
            return await self._list(incoming, kind, writer)
        match incoming.method:
            case "GET" | "HEAD" if not self._is_action(incoming, kind):
                return await self._get(incoming, kind, writer)
            case "POST" if self._is_action(incoming, kind):
                return self._act(incoming, kind, writer)
            case "POST" if not target.name or (kind.custom and not target.subresource):
                return self._create(incoming, kind, writer)
            case "PUT" | "PATCH" if target.name and not self._is_action(incoming, kind):
                return self._update(incoming, kind, writer)
            case "DELETE" if not target.subresource:
                return self._delete(incoming, kind, writer) if target.name else self._delete_all(incoming, kind, writer)
            case "PUT" | "PATCH" if kind.custom:
                raise errors.bad_request("name must be provided")
            case _ if kind.custom:
                verb = {"POST": "create", "DELETE": "delete"}.get(incoming.method, "")
                raise errors.verb_not_supported(kind.group, kind.plural, verb)
            case _:
                raise errors.method_not_allowed()

    @staticmethod
    def _is_action(incoming: Incoming, kind: ResourceKind) -> bool:
        return incoming.target.subresource in {action.name for action in kind.actions}

    def _kind(self, target: Target) -> ResourceKind:
        """Find the kind of a path; raise the 404 the real server gives."""
        kind = self._kind_at(target.group, target.version, target.plural)
        if kind is None:
            raise errors.no_such_resource() if self._built_in(target.group, target.version) else errors.no_such_path()
        missing = errors.no_such_path() if kind.custom else errors.no_such_resource()
        if bool(target.namespace) > kind.namespaced and kind.resource != "namespaces":
            raise missing
        if kind.namespaced and target.name and not target.namespace:
            raise missing
        sub = target.subresource
        known = {"status": kind.status, "scale": kind.scale, "finalize": kind.resource == "namespaces"}
        known |= dict.fromkeys((action.name for action in kind.actions), True)
        if sub and not known.get(sub):
            if kind.custom:
                raise errors.not_found(kind.group, kind.plural, target.name)
            raise missing
        return kind

    async def _reach(self, version: int | None) -> None:
        """Wait until the store has a version, or raise 504."""
        if version is None or version <= self._store.version:
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + _AHEAD
        while self._store.version < version:
            if loop.time() >= end:
                raise errors.too_large_version(version, self._store.version)
            await asyncio.sleep(0.05)

    async def _list(self, incoming: Incoming, kind: ResourceKind, writer: Writer) -> Answer | Stream:
        target = incoming.target
        prefix = f"{target.namespace}/" if kind.namespaced and target.namespace else ""
        wanted = listing.options(incoming.query, kind, target.name, watch=target.watch)
        collection = self._registry.collection(kind)
        if wanted.watch:
            if wanted.initial:
                try:
                    await self._reach(wanted.version)
                except errors.ApiError as error:
                    return Stream(Refused(error))
            timeout = float(wanted.timeout or random.uniform(1800, 3600))
            watch = Watch(self._store, collection, prefix, wanted, writer, self._bookmark_interval, timeout)
            return Stream(watch)
        await self._reach(wanted.version)
        return self._written(200, writer.page(listing.page(collection, prefix, wanted, self._store.version)), writer)

    async def _get(self, incoming: Incoming, kind: ResourceKind, writer: Writer) -> Answer:
        target = incoming.target
        version = incoming.query.text("resourceVersion")
        if version:
            await self._reach(listing.version_of(version))
        record = self._registry.find(kind, target.namespace, target.name)
        if target.subresource == "scale":
            body = scale.read(kind, behaviour.from_storage(kind, record.object))
            return self._written(200, writer.status(body), writer)
        return self._written(200, writer.object(record), writer)

    def _written(self, code: int, body: bytes, writer: Writer) -> Answer:
        return Answer(code, body, writer.media_type)

    def _write(self, incoming: Incoming, kind: ResourceKind, content_type: str = "") -> Write:
        options = request.write_options(
            incoming.query, _OPTIONS[incoming.method], incoming.user_agent, patch=content_type
        )
        target = incoming.target
        name = "" if incoming.method == "POST" else target.name
        namespace = target.namespace if kind.namespaced else ""
        return Write(kind, namespace, name, options, target.subresource, incoming.warnings)

    def _decode(self, incoming: Incoming, write: Write) -> JsonObject:
        kind = write.kind
        body = request.decode(incoming.body, incoming.content_type, kind.kind, validation=write.options.validation)
        obj: JsonObject = body.value
        if kind.custom and not obj.get("kind"):
            raise request.without_kind(kind.kind, incoming.body)
        write.warnings += decoded(kind, obj, write.options, body.strict)
        return obj

    def _create(self, incoming: Incoming, kind: ResourceKind, writer: Writer) -> Answer:
        if kind.namespaced and not incoming.target.namespace:
            raise errors.no_such_path() if kind.custom else errors.method_not_allowed()
        write = self._write(incoming, kind)
        if self._refuses(kind):
            text = "create not allowed while custom resource definition is terminating"
            raise errors.ApiError(405, "MethodNotAllowed", text, details=errors.details(kind.plural, group=kind.group))
        obj = self._decode(incoming, write)
        record = self._registry.create(write, obj)
        return self._written(201, writer.object(record), writer)

    def _update(self, incoming: Incoming, kind: ResourceKind, writer: Writer) -> Answer:
        if incoming.target.subresource == "scale":
            return self._scale(incoming, kind, writer)
        if incoming.method == "PATCH":
            return self._patch(incoming, kind, writer)
        write = self._write(incoming, kind)
        obj = self._decode(incoming, write)
        self._check_place(write, obj)
        uid = obj["metadata"].get("uid") or ""

        def transform(current: JsonObject | None) -> JsonObject:
            apply.track_update(kind, current, obj, write.options.manager, write.subresource, self._now())
            return obj

        record, created = self._registry.update(write, transform, uid=uid)
        return self._written(201 if created else 200, writer.object(record), writer)

    @staticmethod
    def _check_place(write: Write, obj: JsonObject) -> None:
        """Hold an object's name and namespace against the path's."""
        meta = behaviour.metadata(obj)
        if not write.kind.namespaced:
            meta.pop("namespace", None)
        elif meta.setdefault("namespace", write.namespace) != write.namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        name = meta.get("name") or ""
        if not name:
            raise errors.bad_request("name must be provided")
        if name != write.name:
            raise errors.bad_request(
                f"the name of the object ({name}) does not match the name on the URL ({write.name})"
            )

    def _patch(self, incoming: Incoming, kind: ResourceKind, writer: Writer) -> Answer:
        content_type = incoming.content_type.split(";", 1)[0].strip()
        accepted = [request.JSON_PATCH, request.MERGE_PATCH, request.APPLY_PATCH]
        if not kind.custom:
            accepted.insert(2, request.STRATEGIC_PATCH)
        if content_type not in accepted:
            raise errors.unsupported_media_type(accepted) if kind.custom else errors.unsupported_patch_type()
        write = self._write(incoming, kind, content_type)
        applies = content_type == request.APPLY_PATCH
        config: JsonObject = {}
        if applies:
            config, warnings = request.load_config(incoming.body, write.options.validation)
            write.warnings += warnings

        def transform(current: JsonObject | None) -> JsonObject:
            if applies:
                changed = self._applied(write, current, config)
            else:
                if current is None:  # of a kind that a PUT creates
                    raise errors.not_found(kind.group, kind.plural, write.name)
                changed = self._patched(write, current, incoming.body, content_type)
            self._check_place(write, changed)
            return changed

        create = applies and not write.subresource
        record, created = self._registry.update(write, transform, create=create)
        return self._written(201 if created else 200, writer.object(record), writer)

    def _applied(self, write: Write, current: JsonObject | None, config: JsonObject) -> JsonObject:
        kind, options = write.kind, write.options
        changed = apply.apply(
            kind, current, config, options.manager, write.subresource, force=options.force, now=self._now()
        )
        behaviour.metadata(changed)
        if kind.custom:
            # Nulls stay: the real server fills in defaults here and does nothing else, so they may fail validation.
            if kind.schema is not None:
                kind.schema.fill(changed)
        else:
            decoded(kind, changed, request.WriteOptions(options.manager, "Ignore"), [])
        uid = changed["metadata"].get("uid")
        if current is None and uid:
            text = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            raise errors.conflict(kind.group, kind.plural, write.name, text)
        return changed

    def _patched(self, write: Write, current: JsonObject, body: bytes, content_type: str) -> JsonObject:
        kind, options = write.kind, write.options
        live = behaviour.copy(current)
        if content_type == request.JSON_PATCH:
            changed = patch.json_patch(current, body)
        elif content_type == request.MERGE_PATCH:
            changed = patch.merge_patch(current, body)
        else:
            changed = patch.strategic_patch(current, body, kind.schema.root if kind.schema else None)
        behaviour.metadata(changed)
        try:
            write.warnings += decoded(kind, changed, options, [])
        except errors.ApiError as error:
            if "strict decoding error" not in error.message:
                raise
            shown = why.go_json(changed)
            text = error.message.partition("strict decoding error")[2]
            cause = why.invalid("patch", shown, f"strict decoding error{text}")
            raise errors.invalid("", "", "", [cause]) from None
        apply.track_update(kind, live, changed, options.manager, write.subresource, self._now())
        return changed

    def _scale(self, incoming: Incoming, kind: ResourceKind, writer: Writer) -> Answer:
        content_type = incoming.content_type.split(";", 1)[0].strip()
        write = self._write(incoming, kind, content_type)

        def transform(current: JsonObject | None) -> JsonObject:
            if current is None:
                raise errors.not_found(kind.group, kind.plural, write.name)
            live, shown = behaviour.copy(current), scale.read(kind, current, required=False)
            if incoming.method == "PUT":
                shown = request.decode(incoming.body, incoming.content_type, "Scale").value
            elif content_type == request.JSON_PATCH:
                shown = patch.json_patch(shown, incoming.body)
            elif content_type in {request.MERGE_PATCH, request.STRATEGIC_PATCH}:
                shown = patch.merge_patch(shown, incoming.body)
            else:
                raise errors.unsupported_media_type([request.JSON_PATCH, request.MERGE_PATCH])
            scale.write(kind, current, shown)
            # Whoever scales owns the replicas only if someone did before (`scalehandler.go`).
            if apply.is_owned(live, scale.path(kind)):
                apply.track_update(kind, live, current, write.options.manager, "scale", self._now())
            return current

        record, _ = self._registry.update(write, transform)
        body = scale.read(kind, behaviour.from_storage(kind, record.object))
        return self._written(200, writer.status(body), writer)

    def _act(self, incoming: Incoming, kind: ResourceKind, writer: Writer) -> Answer:
        target = incoming.target
        (action,) = (action for action in kind.actions if action.name == target.subresource)
        options = request.write_options(incoming.query, "CreateOptions", incoming.user_agent)
        body: JsonObject = request.decode(incoming.body, incoming.content_type, action.kind, validation="Ignore").value
        if action.name == "token":
            answer = actions.issue_token(self._registry, kind, target.namespace, target.name, body)
        else:
            deletion = self._read_delete_options(body.get("deleteOptions") or {}, ["All"] if options.dry_run else [])
            write = Write(kind, target.namespace, target.name, options)
            answer = actions.evict(self._registry, write, body, deletion)
        return self._written(201, writer.status(answer), writer)

    def _delete_options(self, incoming: Incoming) -> DeleteOptions:
        query = incoming.query
        body: JsonObject = {}
        if incoming.body:
            body = request.decode(incoming.body, incoming.content_type, "DeleteOptions", validation="Ignore").value
            dry_run = list(body.get("dryRun") or ())
        else:
            dry_run = query.all("dryRun")
            if query.has("gracePeriodSeconds"):
                body["gracePeriodSeconds"] = query.number("gracePeriodSeconds")
            if query.has("propagationPolicy"):
                body["propagationPolicy"] = query.text("propagationPolicy")
            if query.has("orphanDependents"):
                body["orphanDependents"] = query.flag("orphanDependents")
        return self._read_delete_options(body, dry_run)

    @staticmethod
    def _read_delete_options(body: JsonObject, dry_run: Sequence[str]) -> DeleteOptions:
        policy, orphan = body.get("propagationPolicy") or "", body.get("orphanDependents")
        found = []
        if policy and orphan is not None:
            text = "orphanDependents and deletionPropagation cannot be both set"
            found.append(why.invalid("propagationPolicy", policy, text))
        elif policy not in {"", "Foreground", "Background", "Orphan"}:
            supported = ["Foreground", "Background", "Orphan", "nil"]
            found.append(why.not_supported("propagationPolicy", policy, supported))
        found += request.dry_run_causes(dry_run)
        if found:
            raise errors.invalid_options("DeleteOptions", found)
        wanted = body.get("preconditions") or {}
        return DeleteOptions(
            wanted.get("uid"),
            wanted.get("resourceVersion"),
            body.get("gracePeriodSeconds"),
            policy,
            orphan,
            dry_run=bool(dry_run),
        )

    def _delete(self, incoming: Incoming, kind: ResourceKind, writer: Writer) -> Answer:
        options = self._delete_options(incoming)
        target = incoming.target
        write = Write(
            kind, target.namespace if kind.namespaced else "", target.name, request.WriteOptions("", "Ignore")
        )
        record, gone = self._registry.delete(write, options)
        if gone and not behaviour.of(kind).returns_deleted:
            uid = record.object["metadata"]["uid"]
            body: JsonObject = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
            body["details"] = errors.details(kind.plural, target.name, kind.group, uid=uid)
            return self._written(200, writer.status(body), writer)
        code = 202 if not gone and options.orphan is False else 200
        return self._written(code, writer.object(record), writer)

    def _delete_all(self, incoming: Incoming, kind: ResourceKind, writer: Writer) -> Answer:
        if "deletecollection" not in kind.verbs or (kind.namespaced and not incoming.target.namespace):
            raise errors.no_such_path() if kind.custom else errors.method_not_allowed()
        options = self._delete_options(incoming)
        wanted = listing.options(incoming.query, kind, "", watch=False)
        collection: Collection = self._registry.collection(kind)
        prefix = f"{incoming.target.namespace}/" if kind.namespaced else ""
        page = listing.page(collection, prefix, wanted, self._store.version)
        for record in page.records:
            self.delete_record(kind, record, options)
        return self._written(200, writer.page(page), writer)

    def delete_record(self, kind: ResourceKind, record: Record, options: DeleteOptions) -> None:
        """Delete an object that may be gone already."""
        if record.key not in self._registry.collection(kind).records:
            return
        meta = record.object["metadata"]
        write = Write(kind, meta.get("namespace", ""), meta["name"], request.WriteOptions("", "Ignore"))
        self._registry.delete(write, options)
