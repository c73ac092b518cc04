"""Reading and writing objects: what happens between a decoded request and the store.

Stands for k8s.io/apiserver's generic registry (`registry/store.go`) and its handlers. A write goes through decoding,
defaults, admission and validation, then through the store, in one step of the event loop: no other write
can come between the check of a revision and the write itself. Left out: webhooks, quota of anything but objects.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from kitlib.cluster.apiserver import (
    admission,
    apply,
    defaults,
    errors,
    patch,
    registry,
    schema,
    selectors,
    services,
    strategy,
    versions,
)
from kitlib.cluster.apiserver import options as opts
from kitlib.cluster.apiserver.apiextensions.customkind import DEFINITIONS, CustomKind
from kitlib.cluster.apiserver.objectmeta import (
    carry_over,
    check_name,
    check_revision,
    check_type,
    is_same,
    new_finalizers,
    ordered,
)
from kitlib.cluster.apiserver.options import ListOptions, WriteOptions
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.apiserver.validation.kinds import validate_create, validate_update
from kitlib.cluster.client import JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH
from kitlib.cluster.clock import rfc3339_now
from kitlib.cluster.config import ClusterConfig
from kitlib.cluster.objects import NAME_ALPHABET, Object
from kitlib.cluster.store import CompactedError, Entry, Store

APPLY_PATCH = "application/apply-patch+yaml"
PATCH_TYPES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, APPLY_PATCH)
_NAME_REQUIRED = "Required value: name or generateName is required"

Change = Callable[[Object], Object]
"""Makes the new object out of a copy of the current one."""


class REST:
    """Get, list, create, update and patch objects; deletion and subresources have modules of their own.

    Args:
        store: Where objects live.
        config: The cluster's addresses and settings.
    """

    def __init__(self, store: Store, config: ClusterConfig) -> None:
        self.store = store
        self.config = config
        self.network = services.service_network(config.block)

    # -- reading

    def entry(self, kind: Kind, namespace: str, name: str) -> Entry:
        """Return the stored state of an object.

        Raises:
            ApiError: 404.
        """
        found = self.store.get(versions.storage(kind).resource, namespace, name)
        if found is None:
            raise errors.not_found(kind, name)
        return found

    def entries(self, kind: Kind, namespace: str | None, options: ListOptions) -> tuple[list[Entry], Object]:
        """Return the objects that a list request means and the metadata of its list.

        Raises:
            ApiError: 400, a selector or token cannot be read; 410, the revision is too old.
        """
        resource = versions.storage(kind).resource
        more = kind.selectable if isinstance(kind, CustomKind) else ()
        test = selectors.predicate(resource, options.label_selector, options.field_selector, more)
        entries, revision, after = self._snapshot(resource, namespace, options)
        name = selectors.exact_name(resource, options.field_selector, more)
        if name and namespace is not None:
            entries = [each for each in entries if each.name == name]
        if after is not None:
            entries = [each for each in entries if (each.namespace, each.name) > after]
        if test is not None:
            entries = [each for each in entries if test(each.obj)]
        meta: Object = {"resourceVersion": str(revision)}
        if 0 < options.limit < len(entries):
            last = entries[options.limit - 1]
            meta["continue"] = opts.encode_continue(revision, last.namespace, last.name)
            if test is None:
                meta["remainingItemCount"] = len(entries) - options.limit
            entries = entries[: options.limit]
        return entries, meta

    def _snapshot(
        self, resource: str, namespace: str | None, options: ListOptions
    ) -> tuple[list[Entry], int, tuple[str, str] | None]:
        revision, after = options.revision, None
        if options.continue_token:
            revision, after = opts.decode_continue(options.continue_token)
        if revision > self.store.revision:
            raise errors.revision_ahead(revision, self.store.revision)
        if after is None and options.resource_version_match != "Exact":
            return self.store.entries(resource, namespace), self.store.revision, None
        try:
            return self.store.entries_at(resource, namespace, revision), revision, after
        except CompactedError:
            text = "The resourceVersion for the provided list is too old."
            if after is not None:
                text = "The provided continue parameter is too old to display a consistent list result."
            raise errors.expired(text) from None

    def lister(self, resource: str, namespace: str | None) -> Iterable[Object]:
        """Return stored objects, for admission."""
        return [entry.obj for entry in self.store.entries(resource, namespace)]

    # -- creating

    def create(self, kind: Kind, namespace: str, obj: Object, options: WriteOptions) -> Object:
        """Create an object.

        Args:
            kind: Kind that the path names.
            namespace: Namespace in the path; empty for cluster-scoped kinds.
            obj: The request's object; the caller gives it away.
            options: Dry run, field manager, and where warnings go.

        Raises:
            ApiError: 400, 403, 404 (namespace), 409 AlreadyExists or 422, as Kubernetes.
        """
        check_type(kind, obj)
        options.warnings += schema.decode(kind, obj, options.field_validation)
        stored, obj = versions.storage(kind), versions.to_storage(kind, obj)
        if obj["metadata"].get("resourceVersion"):
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        obj["metadata"].pop("managedFields", None)
        return versions.from_storage(kind, self.insert(stored, namespace, obj, options))

    def insert(self, kind: Kind, namespace: str, obj: Object, options: WriteOptions, managed: Any = None) -> Object:
        """Complete, check and store a new decoded object; `managed` are the managedFields of an apply."""
        meta = obj["metadata"]
        self._check_definition(kind)
        self._check_namespace(kind, namespace, meta)
        strategy.prepare_create(kind, obj)
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = self._generate_name(kind, namespace, meta["generateName"])
        strategy.label_namespace(kind, obj)
        meta["uid"] = str(uuid.uuid4())
        meta["creationTimestamp"] = rfc3339_now()
        defaults.apply_defaults(kind, obj)
        admission.admit_create(kind, obj, self.config.settings, self.lister)
        causes = validate_create(kind, obj) or self._allocate(kind, obj)
        if not causes and not meta.get("name"):
            causes = [{"reason": "FieldValueRequired", "message": _NAME_REQUIRED, "field": "metadata.name"}]
        _refuse(kind, obj, causes)
        if self.store.get(kind.resource, namespace, meta["name"]) is not None:
            raise errors.already_exists(kind, meta["name"])
        if managed:
            meta["managedFields"] = managed
        else:
            apply.track_update(kind, None, obj, options.field_manager, "Update", "")
        obj = ordered(obj)
        return obj if options.dry_run else self.store.put(kind.resource, namespace, obj).obj

    def _check_definition(self, kind: Kind) -> None:
        """Refuse new objects of a definition that is being deleted."""
        if isinstance(kind, CustomKind):
            definition = self.store.get(DEFINITIONS, "", kind.resource)
            if definition is None or definition.obj["metadata"].get("deletionTimestamp"):
                raise errors.definition_terminating(kind)

    def _check_namespace(self, kind: Kind, namespace: str, meta: Object) -> None:
        if not kind.namespaced:
            meta.pop("namespace", None)
            return
        if meta.setdefault("namespace", namespace) != namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        found = self.store.get("namespaces", "", namespace)
        if found is None:
            raise errors.not_found(_NAMESPACE, namespace)
        if found.obj["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            message = f"namespace {namespace} is being terminated"
            cause = {"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}
            raise errors.forbidden(kind, meta.get("name", ""), why, [cause])

    def _generate_name(self, kind: Kind, namespace: str, prefix: str) -> str:
        for _ in range(8):
            name = prefix[:58] + "".join(random.choices(NAME_ALPHABET, k=5))
            if self.store.get(kind.resource, namespace, name) is None:
                break
        return name

    def _allocate(self, kind: Kind, obj: Object) -> list[errors.Cause]:
        if kind.resource != "services":
            return []
        uid = obj["metadata"]["uid"]
        others = [each for each in self.lister("services", None) if each["metadata"]["uid"] != uid]
        return services.allocate(obj, others, self.network)

    # -- changing

    def update(
        self, kind: Kind, namespace: str, name: str, obj: Object, options: WriteOptions, subresource: str = ""
    ) -> tuple[Object, bool]:
        """Replace an object, or with a subresource its part; returns it and whether it was created.

        Raises:
            ApiError: 400, 404, 409 or 422, as Kubernetes.
        """
        check_type(kind, obj)
        options.warnings += schema.decode(kind, obj, options.field_validation)
        check_name(obj, namespace, name)
        stored, obj = versions.storage(kind), versions.to_storage(kind, obj)
        entry = self.store.get(stored.resource, namespace, name)
        if entry is None:
            if stored.resource not in strategy.CREATE_ON_UPDATE or subresource or obj["metadata"].get("uid"):
                raise errors.not_found(kind, name)
            obj["metadata"].pop("resourceVersion", None)
            return versions.from_storage(kind, self.insert(stored, namespace, obj, options)), True
        return versions.from_storage(kind, self.replace(stored, entry, obj, options, subresource)), False

    def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        body: Any,
        content_type: str,
        options: WriteOptions,
        subresource: str = "",
    ) -> tuple[Object, bool]:
        """Patch an object with any of the four kinds of patch; returns it and whether an apply created it.

        Raises:
            ApiError: 400, 404, 409, 415 or 422, as Kubernetes.
        """
        stored = versions.storage(kind)
        entry = self.store.get(stored.resource, namespace, name)
        if content_type == APPLY_PATCH:
            return self._apply(kind, namespace, name, body, options, entry, subresource)
        if options.force:
            raise errors.invalid_options("PatchOptions", "force", "Forbidden: may not be specified for non-apply patch")
        if entry is None:
            raise errors.not_found(kind, name)
        current = versions.from_storage(kind, entry.copy())
        new = patched(kind, current, body, content_type)
        strategic = content_type == STRATEGIC_MERGE_PATCH
        options.warnings += schema.decode_patched(kind, new, body, options.field_validation, strategic)
        check_type(kind, new)
        check_name(new, namespace, name)
        new = self.replace(stored, entry, versions.to_storage(kind, new), options, subresource)
        return versions.from_storage(kind, new), False

    def _apply(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        body: Any,
        options: WriteOptions,
        entry: Entry | None,
        subresource: str,
    ) -> tuple[Object, bool]:
        api_version, name_of_kind = (v if isinstance(v := body.get(k), str) else "" for k in ("apiVersion", "kind"))
        if (api_version, name_of_kind) != (kind.api_version, kind.kind):
            group_version = api_version if "/" in api_version else f"/{api_version}"
            raise errors.bad_request(f"invalid object type: {group_version}, Kind={name_of_kind}")
        check_type(kind, body)
        options.warnings += schema.decode(kind, body, options.field_validation)
        check_name(body, namespace, name)
        live = versions.from_storage(kind, entry.copy()) if entry else None
        merged = apply.server_side_apply(kind, live, body, options.field_manager, options.force, subresource)
        stored, merged = versions.storage(kind), versions.to_storage(kind, merged)
        if entry is None:
            if subresource:
                raise errors.not_found(kind, name)
            managed = merged["metadata"].pop("managedFields", None)
            return versions.from_storage(kind, self.insert(stored, namespace, merged, options, managed)), True
        new = self.replace(stored, entry, merged, options, subresource, applied=True)
        return versions.from_storage(kind, new), False

    def replace(
        self,
        kind: Kind,
        entry: Entry,
        new: Object,
        options: WriteOptions,
        subresource: str = "",
        applied: bool = False,
    ) -> Object:
        """Check and store the next state of an object.

        Args:
            kind: Kind as it is stored.
            entry: The current state.
            new: The decoded next state; the caller gives it away.
            options: Dry run, field manager.
            subresource: Such as `status`; only its part of `new` counts.
            applied: Whether `new` carries the managedFields of a server-side apply.

        Raises:
            ApiError: 409 Conflict or 422.
        """
        old = entry.obj
        check_revision(kind, entry, new["metadata"])
        carry_over(new, old)
        strategy.prepare_update(kind, new, old, subresource)
        if subresource in ("", "ephemeralcontainers"):
            self._complete_update(kind, new, old)
        elif subresource == "status" or isinstance(kind, CustomKind):
            _refuse(kind, new, validate_update(kind, new, old))
        if is_same(new, old):
            return old
        if strategy.asks_for_more(kind, new, old, subresource):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        if not applied:
            apply.track_update(kind, old, new, options.field_manager, "Update", subresource)
        return self.commit(kind, entry, new, options)

    def _complete_update(self, kind: Kind, new: Object, old: Object) -> None:
        defaults.apply_defaults(kind, new)
        admission.admit_update(kind, new, old, self.lister)
        if kind.resource == "services":
            services.keep_allocated(new, old)
        causes = validate_update(kind, new, old) or self._allocate(kind, new)
        _refuse(kind, new, causes + new_finalizers(new["metadata"], old["metadata"]))

    def commit(self, kind: Kind, entry: Entry, new: Object, options: WriteOptions) -> Object:
        """Store an object's next state; one that waited for its last finalizer is gone with it."""
        if options.dry_run:
            return new
        if is_finished(kind, new):
            return self.store.delete(entry).obj
        return self.store.put(kind.resource, entry.namespace, ordered(new)).obj

    def change(self, kind: Kind, entry: Entry, change: Change, options: WriteOptions) -> Object:
        """Store what `change` makes of a copy of the current object, without the checks of a user's update."""
        return self.commit(kind, entry, change(entry.copy()), options)


def _refuse(kind: Kind, obj: Object, causes: list[errors.Cause]) -> None:
    """Raise 422 Invalid if there is a cause to."""
    if causes:
        raise errors.invalid(kind, obj["metadata"].get("name", ""), causes)


def is_finished(kind: Kind, obj: Object) -> bool:
    """Whether an object that is being deleted has nothing left to wait for."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers") or meta.get("deletionGracePeriodSeconds"):
        return False
    return kind.resource != "namespaces" or not (obj.get("spec") or {}).get("finalizers")


def patched(kind: Kind, current: Object, body: Any, content_type: str) -> Object:
    """Return what a patch makes of an object; as in Kubernetes, a strategic one may name any kind.

    Raises:
        ApiError: 400 or 422, the patch cannot be applied; 415, no such kind of patch.
    """
    if content_type == MERGE_PATCH:
        found = patch.json_merge_patch(current, body)
    elif content_type == JSON_PATCH:
        found = patch.json_patch(current, body)
    elif content_type == STRATEGIC_MERGE_PATCH and not isinstance(kind, CustomKind):
        found = patch.strategic_merge_patch(kind, current, body)
        found.update(apiVersion=current["apiVersion"], kind=current["kind"])
    else:
        known = [each for each in PATCH_TYPES if each != STRATEGIC_MERGE_PATCH or not isinstance(kind, CustomKind)]
        raise errors.unsupported_media_type(", ".join(known))
    if not isinstance(found, dict):
        raise errors.bad_request("the patch does not leave an object")
    return found


_NAMESPACE = registry.lookup("namespaces")
