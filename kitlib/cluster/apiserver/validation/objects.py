"""Rules for the other kinds: Service, ConfigMap, Secret, volumes, RBAC, autoscaling, networking.

Stands for `pkg/apis/{core,rbac,autoscaling,networking,policy,scheduling,storage}/validation`. The range of node
ports and of Service addresses is `services.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from kitlib.cluster import quantity
from kitlib.cluster.apiserver.registry import per_kind
from kitlib.cluster.apiserver.validation.containers import PROTOCOLS
from kitlib.cluster.apiserver.validation.fielderrors import (
    IMMUTABLE,
    NEGATIVE,
    Checks,
    FieldErrors,
    UpdateChecks,
    check_labels,
    check_port,
    check_selector,
    config_key,
    dns_label,
    dns_subdomain,
    not_above_all,
    percent_or_int,
    qualified_name,
)
from kitlib.cluster.objects import Object

CREATE: Checks = {}
UPDATE: UpdateChecks = {}
_creates, _updates = per_kind(CREATE), per_kind(UPDATE)

_SERVICE_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_MAX_DATA = 1 << 20
_MAX_ADDRESSES = 100
_IP_VERSIONS = {"IPv4": 4, "IPv6": 6}


@_creates("Service")
def _service(found: FieldErrors, obj: Object) -> None:
    spec = obj["spec"]
    kind, ports = spec.get("type"), spec.get("ports") or ()
    headless = "None" in (spec.get("clusterIP"), *(spec.get("clusterIPs") or ()))
    if not ports and not headless and kind != "ExternalName":
        found.required("spec.ports")
    if headless and kind in ("LoadBalancer", "NodePort"):
        found.invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services")
    if kind == "ExternalName":
        _check_external_name(found, spec.get("externalName", ""))
    _check_service_ports(found, ports, str(kind))
    check_labels(found, spec.get("selector"), "spec.selector")
    found.one_of("spec.sessionAffinity", spec.get("sessionAffinity"), ("ClientIP", "None"))
    found.one_of("spec.type", kind, _SERVICE_TYPES)
    for name in ("externalTrafficPolicy", "internalTrafficPolicy"):
        if name in spec and spec[name] not in ("Cluster", "Local"):
            found.not_supported(f"spec.{name}", spec[name], ("Cluster", "Local"))


def _check_external_name(found: FieldErrors, name: str) -> None:
    if name:
        found.each("spec.externalName", name, dns_subdomain(name.rstrip(".").lower()))
    else:
        found.required("spec.externalName")


def _check_service_ports(found: FieldErrors, ports: Sequence[Object], kind: str) -> None:
    names: set[str] = set()
    taken: set[tuple[object, ...]] = set()
    for index, port in enumerate(ports):
        where, name = f"spec.ports[{index}]", port.get("name", "")
        if len(ports) > 1 and not name:
            found.required(f"{where}.name")
        elif name:
            found.each(f"{where}.name", name, dns_label(name))
        found.unique(f"{where}.name", name, names)
        check_port(found, port.get("port", 0), f"{where}.port")
        found.one_of(f"{where}.protocol", port.get("protocol"), PROTOCOLS)
        check_port(found, port.get("targetPort"), f"{where}.targetPort")
        if kind == "ClusterIP" and port.get("nodePort"):
            found.forbidden(f"{where}.nodePort", "may not be used when `type` is 'ClusterIP'")
        key = {"port": port.get("port"), "protocol": port.get("protocol")}
        found.unique(where, tuple(key.values()), taken, key)


@_updates("Service")
def _service_update(found: FieldErrors, new: Object, old: Object) -> None:
    """Refuse another cluster address."""
    kinds = (new["spec"].get("type"), old["spec"].get("type"))
    if "ExternalName" not in kinds and old["spec"].get("clusterIP"):
        address = new["spec"].get("clusterIP")
        if address != old["spec"]["clusterIP"]:
            found.invalid("spec.clusterIPs[0]", [address or ""], "may not change once set")


def _check_data(found: FieldErrors, obj: Object, *names: str) -> None:
    size = 0
    seen: set[str] = set()
    for name in names:
        for key, value in (obj.get(name) or {}).items():
            found.each(f"{name}[{key}]", key, config_key(key))
            if key in seen:
                found.invalid(f"{name}[{key}]", key, "duplicate of key present in data")
            seen.add(key)
            size += len(value.encode()) if name == "data" and len(names) > 1 else len(value) * 3 // 4
    if size > _MAX_DATA:
        found.too_long("" if len(names) > 1 else "data", _MAX_DATA)


@_creates("ConfigMap")
def _config_map(found: FieldErrors, obj: Object) -> None:
    _check_data(found, obj, "data", "binaryData")


_SECRET_KEYS = {
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


@_creates("Secret")
def _secret(found: FieldErrors, obj: Object) -> None:
    _check_data(found, obj, "data")
    data = obj.get("data") or {}
    for key in _SECRET_KEYS.get(obj.get("type", ""), ()):
        if key not in data:
            found.required(f"data[{key}]")
    if obj.get("type") == "kubernetes.io/basic-auth" and not {"username", "password"} & set(data):
        found.required("data[username]")
        found.required("data[password]")
    account = "kubernetes.io/service-account.name"
    if obj.get("type") == "kubernetes.io/service-account-token" and not (obj["metadata"].get("annotations") or {}).get(
        account
    ):
        found.required(f"metadata.annotations[{account}]")


@_updates("ConfigMap", "Secret")
def _data_update(found: FieldErrors, new: Object, old: Object) -> None:
    """Hold `immutable: true` of a ConfigMap or Secret; a Secret's type never changes."""
    if old.get("type") is not None and new.get("type") != old["type"]:
        found.invalid("type", new.get("type", ""), IMMUTABLE)
    if old.get("immutable"):
        text = "field is immutable when `immutable` is set"
        if not new.get("immutable"):
            found.forbidden("immutable", text)
        for name in ("data", "binaryData"):
            if (new.get(name) or {}) != (old.get(name) or {}):
                found.forbidden(name, text)


_ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")


def _check_access_modes(found: FieldErrors, modes: Sequence[str]) -> None:
    if not modes:
        found.required("spec.accessModes", "at least 1 access mode is required")
    for mode in modes:
        if mode not in _ACCESS_MODES:
            found.not_supported("spec.accessModes", mode, _ACCESS_MODES)


@_creates("PersistentVolumeClaim")
def _claim(found: FieldErrors, obj: Object) -> None:
    spec = obj["spec"]
    _check_access_modes(found, spec.get("accessModes") or ())
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        found.required("spec.resources[storage]")
    elif quantity.parse(storage) <= 0:
        found.invalid("spec.resources.requests[storage]", storage, "must be greater than zero")
    if spec.get("storageClassName"):
        found.each("spec.storageClassName", spec["storageClassName"], dns_subdomain(spec["storageClassName"]))


_CLAIM_MUTABLE = {"resources", "volumeName", "volumeAttributesClassName"}


@_updates("PersistentVolumeClaim")
def _claim_update(found: FieldErrors, new: Object, old: Object) -> None:
    """Refuse changes of a claim's spec but more storage."""
    fixed = {*new["spec"], *old["spec"]} - _CLAIM_MUTABLE
    unbound = not old["spec"].get("volumeName")
    changed = any(new["spec"].get(name) != old["spec"].get(name) for name in fixed)
    if changed or (not unbound and new["spec"].get("volumeName") != old["spec"].get("volumeName")):
        text = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        found.forbidden("spec", text)
    _check_resized(found, new, old)


def _check_resized(found: FieldErrors, new: Object, old: Object) -> None:
    storage = [((each["spec"].get("resources") or {}).get("requests") or {}).get("storage", "0") for each in (new, old)]
    capacity = ((old.get("status") or {}).get("capacity") or {}).get("storage", "0")
    if storage[0] != storage[1] and quantity.parse(storage[0]) < quantity.parse(capacity):
        found.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity")


@_creates("PersistentVolume")
def _volume(found: FieldErrors, obj: Object) -> None:
    spec = obj["spec"]
    _check_access_modes(found, spec.get("accessModes") or ())
    if not (spec.get("capacity") or {}).get("storage"):
        found.required("spec.capacity")
    known = {"accessModes", "capacity", "claimRef", "persistentVolumeReclaimPolicy", "storageClassName", "mountOptions"}
    if not set(spec) - known - {"volumeMode", "nodeAffinity", "volumeAttributesClassName"}:
        found.required("spec", "must specify a volume type")


@_creates("Node")
def _node(found: FieldErrors, obj: Object) -> None:
    """Check a Node's taints."""
    seen: set[tuple[str, str]] = set()
    effects = ("NoSchedule", "PreferNoSchedule", "NoExecute")
    for index, taint in enumerate((obj.get("spec") or {}).get("taints") or ()):
        where, key, effect = f"spec.taints[{index}]", taint.get("key", ""), taint.get("effect", "")
        found.each(f"{where}.key", key, qualified_name(key))
        found.one_of(f"{where}.effect", effect, effects)
        found.unique(where, (key, effect), seen, taint)


@_creates("Role", "ClusterRole")
def _role(found: FieldErrors, obj: Object) -> None:
    for index, rule in enumerate(obj.get("rules") or ()):
        where = f"rules[{index}]"
        if not rule.get("verbs"):
            found.required(f"{where}.verbs", "verbs must contain at least one value")
        if rule.get("nonResourceURLs"):
            continue
        if not rule.get("apiGroups"):
            found.required(f"{where}.apiGroups", "resource rules must supply at least one api group")
        if not rule.get("resources"):
            found.required(f"{where}.resources", "resource rules must supply at least one resource")


@_creates("RoleBinding", "ClusterRoleBinding")
def _binding(found: FieldErrors, obj: Object) -> None:
    reference = obj.get("roleRef") or {}
    kinds = ("ClusterRole",) if obj.get("kind") == "ClusterRoleBinding" else ("Role", "ClusterRole")
    if reference.get("kind") not in kinds:
        found.not_supported("roleRef.kind", reference.get("kind", ""), kinds)
    found.all_there(reference, "name", path="roleRef")
    for index, subject in enumerate(obj.get("subjects") or ()):
        where = f"subjects[{index}]"
        found.all_there(subject, "name", path=where)
        if subject.get("kind") == "ServiceAccount" and not subject.get("namespace"):
            found.required(f"{where}.namespace")
        elif subject.get("kind") not in ("ServiceAccount", "User", "Group"):
            found.not_supported(f"{where}.kind", subject.get("kind", ""), ("ServiceAccount", "User", "Group"))


@_updates("RoleBinding", "ClusterRoleBinding")
def _binding_update(found: FieldErrors, new: Object, old: Object) -> None:
    """Refuse another role."""
    if new.get("roleRef") != old.get("roleRef"):
        found.invalid("roleRef", new.get("roleRef"), "cannot change roleRef")


@_creates("HorizontalPodAutoscaler")
def _autoscaler(found: FieldErrors, obj: Object) -> None:
    spec = obj["spec"]
    low, high, target = spec.get("minReplicas", 1), spec.get("maxReplicas", 0), spec.get("scaleTargetRef") or {}
    if low < 1:
        found.invalid("spec.minReplicas", low, "must be greater than or equal to 1")
    if high < 1:
        found.invalid("spec.maxReplicas", high, "must be greater than 0")
    if high < low:
        found.invalid("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`")
    found.all_there(target, "kind", "name", path="spec.scaleTargetRef")


@_creates("Ingress")
def _ingress(found: FieldErrors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    if not spec.get("rules") and not spec.get("defaultBackend"):
        found.invalid("spec", spec, "either `defaultBackend` or `rules` must be specified")
    if spec.get("defaultBackend"):
        _check_backend(found, "spec.defaultBackend", spec["defaultBackend"])
    for index, rule in enumerate(spec.get("rules") or ()):
        host = rule.get("host", "")
        if host:
            found.each(f"spec.rules[{index}].host", host, dns_subdomain(host.removeprefix("*.")))
        for position, item in enumerate((rule.get("http") or {}).get("paths") or ()):
            _check_path(found, f"spec.rules[{index}].http.paths[{position}]", item)


def _check_path(found: FieldErrors, where: str, item: Object) -> None:
    kind, path = item.get("pathType"), item.get("path", "")
    if not kind:
        found.required(f"{where}.pathType", "pathType must be specified")
        return
    if kind not in ("Exact", "ImplementationSpecific", "Prefix"):
        found.not_supported(f"{where}.pathType", kind, ("Exact", "ImplementationSpecific", "Prefix"))
    elif not path.startswith("/") and (path or kind != "ImplementationSpecific"):
        found.invalid(f"{where}.path", path, "must be an absolute path")
    _check_backend(found, f"{where}.backend", item.get("backend") or {})


def _check_backend(found: FieldErrors, where: str, backend: Object) -> None:
    service = backend.get("service")
    if service is None:
        if not backend.get("resource"):
            found.invalid(where, "", "resource or service backend is required")
        return
    if backend.get("resource"):
        found.invalid(where, "", "cannot set both resource and service backends")
        return
    found.all_there(service, "name", path=f"{where}.service")
    name, number = ((service.get("port") or {}).get(key) for key in ("name", "number"))
    if name and number:
        found.invalid(where, "", "cannot set both port name & port number")
    elif name or number:
        check_port(found, name or number, f"{where}.service.port.{'name' if name else 'number'}")
    else:
        found.required(where, "port name or number is required")


@_creates("PodDisruptionBudget")
def _disruption_budget(found: FieldErrors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    if "minAvailable" in spec and "maxUnavailable" in spec:
        found.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set")
    for name in ("minAvailable", "maxUnavailable"):
        percent_or_int(found, spec.get(name), f"spec.{name}")
        not_above_all(found, spec.get(name), f"spec.{name}")
    check_selector(found, spec.get("selector"), "spec.selector")


@_creates("PriorityClass")
def _priority_class(found: FieldErrors, obj: Object) -> None:
    name = obj["metadata"].get("name", "")
    if name.startswith("system-") and name not in ("system-node-critical", "system-cluster-critical"):
        text = "priority class names with 'system-' prefix are reserved for system use only"
        found.forbidden("metadata.name", text)
    elif not name.startswith("system-") and obj.get("value", 0) > 10**9:
        found.forbidden("value", f"maximum allowed value of a user defined priority is {10**9}")


@_updates("PriorityClass")
def _priority_class_update(found: FieldErrors, new: Object, old: Object) -> None:
    """Refuse another priority."""
    for name in ("value", "preemptionPolicy"):
        if new.get(name, 0) != old.get(name, 0):
            found.forbidden(name, "may not be changed in an update.")


@_creates("StorageClass")
def _storage_class(found: FieldErrors, obj: Object) -> None:
    if not obj.get("provisioner"):
        found.required("provisioner")
    found.one_of("volumeBindingMode", obj.get("volumeBindingMode"), ("Immediate", "WaitForFirstConsumer"))


@_creates("EndpointSlice")
def _endpoint_slice(found: FieldErrors, obj: Object) -> None:
    kind = obj.get("addressType")
    found.one_of("addressType", kind, ("FQDN", "IPv4", "IPv6"))
    for index, endpoint in enumerate(obj.get("endpoints") or ()):
        _check_addresses(found, f"endpoints[{index}].addresses", endpoint.get("addresses") or (), str(kind))
    for index, port in enumerate(obj.get("ports") or ()):
        if not 0 <= port.get("port", 0) < 1 << 16:
            found.invalid(f"ports[{index}].port", port["port"], "must be between 0 and 65535, inclusive")


def _check_addresses(found: FieldErrors, path: str, addresses: Sequence[str], kind: str) -> None:
    if not addresses:
        found.required(path, "must contain at least 1 address")
    if len(addresses) > _MAX_ADDRESSES:
        found.too_many(path, len(addresses), _MAX_ADDRESSES)
        return
    for index, address in enumerate(addresses):
        where = f"{path}[{index}]"
        if kind == "FQDN":
            found.each(where, address, dns_subdomain(address))
            if "." not in address:
                found.invalid(where, address, "should be a domain with at least two segments separated by dots")
        elif kind in _IP_VERSIONS and _ip_version(address) != _IP_VERSIONS[kind]:
            found.invalid(where, address, f"must be a valid {kind} address")


def _ip_version(address: str) -> int:
    """Return 4 or 6, or 0 for what is no IP address."""
    try:
        return ip_address(address).version
    except ValueError:
        return 0


@_creates("Endpoints")
def _endpoints(found: FieldErrors, obj: Object) -> None:
    """Check the addresses of Endpoints; loopback ones, which Pods have here, are allowed."""
    for index, subset in enumerate(obj.get("subsets") or ()):
        for name in ("addresses", "notReadyAddresses"):
            for place, address in enumerate(subset.get(name) or ()):
                if not _ip_version(address.get("ip") or ""):
                    text = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
                    found.invalid(f"subsets[{index}].{name}[{place}].ip", address.get("ip") or "", text)


@_creates("ResourceQuota")
def _quota(found: FieldErrors, obj: Object) -> None:
    for name, value in ((obj.get("spec") or {}).get("hard") or {}).items():
        where = f"spec.hard[{name}]"
        found.each(where, name, qualified_name(name))
        if quantity.parse(value) < 0:
            found.invalid(where, value, NEGATIVE)


def check_event(found: FieldErrors, obj: Object) -> None:
    """Check an Event's namespace."""
    about = (obj.get("involvedObject") or obj.get("regarding") or {}).get("namespace", "")
    namespace = obj["metadata"].get("namespace", "")
    if about and about != namespace or (not about and namespace != "default"):
        found.invalid("involvedObject.namespace", about, "does not match event.namespace")
