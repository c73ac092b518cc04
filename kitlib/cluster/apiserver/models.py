"""The shape of every object: fields, types, descriptions, how lists merge.

Stands for the Go structs of k8s.io/api with their tags. Names, types, required fields and descriptions are those of the
installed official client. Its model files are read as text, each when first needed: importing them would
cost every control plane 45 MB and a second. What the client does not carry (which string is a quantity, which
number has 64 bits, by which key a list merges) stands in the tables below: facts of Kubernetes 1.36's OpenAPI document.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Union

Type = Union[str, tuple[str, "Type"]]  # noqa: UP007 (a recursive alias cannot be written with | in Python 3.10)
"""A scalar's name, a model's name, `("list", Type)` or `("map", Type)`."""

SCALARS = frozenset(
    ("string", "int32", "int64", "bool", "float", "time", "micro-time", "quantity", "int-or-string", "bytes", "any")
)


@dataclass(frozen=True)
class Field:
    """One field of a model.

    Attributes:
        name: Name in JSON.
        type: What it holds.
        required: Whether it is always written, even when empty.
        merge_key: Key by which a strategic merge patch merges the list; empty for a list that is replaced.
        set: Whether it is a list of unique scalars that patches merge.
        map_keys: Keys of an associative list in server-side apply; empty for an atomic one.
        retain_keys: Whether patches may carry `$retainKeys`.
        atomic: Whether server-side apply owns the value as a whole.
    """

    name: str
    type: Type
    required: bool = False
    merge_key: str = ""
    set: bool = False
    map_keys: tuple[str, ...] = ()
    retain_keys: bool = False
    atomic: bool = False


@dataclass(frozen=True)
class Model:
    """One type of the API.

    Attributes:
        name: Name of its class in the official client, such as `V1PodSpec`.
        short: Name of its Go type, such as `PodSpec`.
        fields: By JSON name.
    """

    name: str
    short: str
    fields: dict[str, Field]


class ListRule(NamedTuple):
    """How a list merges (see `Field`)."""

    merge_key: str = ""
    set: bool = False
    map_keys: tuple[str, ...] = ()


_INT64 = frozenset(
    "activeDeadlineSeconds capacity deletionGracePeriodSeconds fsGroup generation gid gracePeriodSeconds int maxItems"
    " maxLength maxProperties minItems minLength minProperties nodeAllocatableUpdatePeriodSeconds observedGeneration"
    " remainingItemCount revision runAsGroup runAsUser seconds sizeBytes startingDeadlineSeconds supplementalGroups"
    " terminationGracePeriodSeconds tolerationSeconds uid expirationSeconds".split()
)
_INT_OR_STRING = frozenset("maxSurge maxUnavailable minAvailable port targetPort".split())
_MICRO_TIME = frozenset(
    "EventSeries.lastObservedTime LeaseSpec.renewTime LeaseSpec.acquireTime Event.eventTime".split()
)
_BYTES = frozenset("Secret.data ConfigMap.binaryData".split())

_QUANTITIES = """
HPAScalingRules tolerance; MetricTarget averageValue value; MetricValueStatus averageValue value; Counter value
DeviceCapacity value; ContainerStatus allocatedResources; PersistentVolumeClaimStatus allocatedResources capacity
PodStatus allocatedResources; EmptyDirVolumeSource sizeLimit; CSIStorageCapacity capacity maximumVolumeSize
LimitRangeItem default defaultRequest max maxLimitRequestRatio min; NodeStatus allocatable capacity; PodSpec overhead
PersistentVolumeSpec capacity; ResourceFieldSelector divisor; ResourceQuotaSpec hard; ResourceQuotaStatus hard used
ResourceRequirements limits requests; VolumeResourceRequirements limits requests; Overhead podFixed
CapacityRequestPolicy default validValues; CapacityRequestPolicyRange max min step; CapacityRequirements requests
DeviceRequestAllocationResult consumedCapacity
"""

_LISTS = """
conditions type; env name; volumeDevices devicePath; volumeMounts mountPath; containers name; initContainers name
ephemeralContainers name; hostAliases ip; imagePullSecrets name; resourceClaims name; schedulingGates name
topologySpreadConstraints topologyKey topologyKey,whenUnsatisfiable; volumes name; podIPs ip; resourceClaimStatuses name
webhooks name; ownerReferences uid; finalizers set; podCIDRs set; matchConditions name; reservedFor uid; drivers name
claims - name
Container.ports containerPort containerPort,protocol; EphemeralContainer.ports containerPort containerPort,protocol
ServiceSpec.ports port port,protocol; NodeStatus.addresses type; Endpoint.addresses setonly; ServiceAccount.secrets name
PodStatus.hostIPs ip -; JobStatus.conditions type -; ServiceAccount.imagePullSecrets - -; NamespaceSpec.finalizers - -
NodeAllocatableResourceClaimStatus.containers setonly; ContainerStatus.allocatedResourcesStatus name
ValidatingAdmissionPolicySpec.variables name; PodFailurePolicyOnExitCodesRequirement.values setonly
"""
_RETAIN_KEYS = frozenset(
    "DeploymentSpec.strategy PodSpec.volumes PodSpec.resourceClaims PodStatus.resourceClaimStatuses".split()
)
_ATOMIC_MODELS = frozenset(
    "CrossVersionObjectReference ConfigMapKeySelector EndpointAddress EndpointPort FileKeySelector LabelSelector"
    " LocalObjectReference NodeSelector NodeSelectorTerm ObjectFieldSelector ObjectReference OwnerReference"
    " ResourceFieldSelector RoleRef ScopeSelector SecretKeySelector SecretReference ServiceBackendPort Subject"
    " TopologySelectorTerm TypedLocalObjectReference MatchResources NamedRuleWithOperations ParamKind ParamRef"
    " Variable".split()
)
_ATOMIC_FIELDS = frozenset("PodSpec.nodeSelector ServiceSpec.selector ReplicationControllerSpec.selector".split())
_GRANULAR_FIELDS = frozenset(("PersistentVolumeSpec.claimRef",))


def _entries(table: str) -> list[list[str]]:
    return [entry.split() for line in table.strip().splitlines() for entry in line.split(";")]


_QUANTITY_FIELDS = frozenset(f"{model}.{name}" for model, *names in _entries(_QUANTITIES) for name in names)


def _list_rule(words: list[str]) -> ListRule:
    merge, keys = words[0], words[-1]
    if merge in ("set", "setonly"):
        return ListRule(set=merge == "set", map_keys=("",))
    return ListRule("" if merge == "-" else merge, False, () if keys == "-" else tuple(keys.split(",")))


_LIST_RULES = {name: _list_rule(words) for name, *words in _entries(_LISTS)}

_SCALAR_NAMES = {"str": "string", "int": "int32", "bool": "bool", "float": "float"}
_SCALAR_NAMES |= {"datetime": "time", "bytes": "bytes", "object": "any"}


def _type(text: str, name: str, owner: str) -> Type:
    nested = re.fullmatch(r"(?:[Ll]ist|([Dd]ict))[\[(](?:str, )?(.*)[\])]", text)
    if nested:
        return ("map" if nested[1] else "list", _type(nested[2], name, owner))
    return _special(_SCALAR_NAMES.get(text, text), name, f"{owner}.{name}")


def _special(scalar: str, name: str, path: str) -> str:
    if scalar in ("string", "any") and path in _QUANTITY_FIELDS:
        return "quantity"
    if scalar == "string" and path in _BYTES:
        return "bytes"
    if scalar == "any" and name in _INT_OR_STRING:
        return "int-or-string"
    if scalar == "int32" and name in _INT64:
        return "int64"
    return "micro-time" if scalar == "time" and path in _MICRO_TIME else scalar


@cache
def _folder() -> Path:
    spec = find_spec("kubernetes")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the package `kubernetes` (the official client) is not installed")
    return Path(spec.submodule_search_locations[0]) / "client" / "models"


def _source(model: str) -> str:
    words = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", model)
    path = _folder() / (re.sub(r"([a-z\d])([A-Z])", r"\1_\2", words).lower() + ".py")
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _literal(source: str, name: str) -> dict[str, str]:
    match = re.search(rf"^    {name}\b[^=\n]*= (\{{.*?\}})", source, re.MULTILINE | re.DOTALL)
    value: dict[str, str] = ast.literal_eval(match[1]) if match else {}
    return value


_LINE = re.compile(r"^    (\w+): (?!ClassVar)[^=\n]*?(?: = (.*))?$", re.MULTILINE)
_WIRE_NAME = re.compile(r'serialization_alias="([^"]+)"')
_DESCRIPTION = re.compile(r'description=("(?:[^"\\]|\\.)*")')


def _pydantic_fields(source: str) -> dict[str, tuple[bool, str]]:
    """Read whether required, and the description, from a model of client 37 and later."""
    fields = {}
    for name, value in _LINE.findall(source.split("openapi_types:")[0]):
        wire, text = _WIRE_NAME.search(value), _DESCRIPTION.search(value)
        required = not value or (value.startswith("Field(") and "default=" not in value.split("description=")[0])
        fields[wire[1] if wire else name] = (required, ast.literal_eval(text[1]) if text else "")
    return fields


_SETTER = re.compile(r"client_side_validation and (\w+) is None")
_GETTER = re.compile(
    r'"""Gets the (\w+) of this \w+\.  # noqa: E501\n\n        (.*?)(?:  # noqa: E501)?\n\n        :return:', re.DOTALL
)


def _classic_fields(source: str, names: dict[str, str]) -> dict[str, tuple[bool, str]]:
    """Read the same from a model of client 36 and before."""
    required, texts = set(_SETTER.findall(source)), dict(_GETTER.findall(source))
    return {wire: (name in required, texts.get(name, "")) for name, wire in names.items()}


def _details(source: str) -> dict[str, tuple[bool, str]]:
    if "(BaseModel)" in source:
        return _pydantic_fields(source)
    return _classic_fields(source, _literal(source, "attribute_map"))


def short_name(model: str) -> str:
    """Return the Go type's name: `PodSpec` of `V1PodSpec`, `Event` of `CoreV1Event`."""
    return re.sub(r"^(?:[A-Z][a-z]+)?V\d+(?:(?:alpha|beta)\d+)?", "", model)


def _field(name: str, text: str, required: bool, owner: str) -> Field:
    path = f"{owner}.{name}"
    kind = _type(text, name, owner)
    rule = ListRule()
    if kind[0] == "list":
        rule = _LIST_RULES.get(path) or _LIST_RULES.get(name) or rule
    item = short_name(kind) if isinstance(kind, str) else ""
    atomic = path in _ATOMIC_FIELDS or (item in _ATOMIC_MODELS and path not in _GRANULAR_FIELDS)
    return Field(name, kind, required, rule.merge_key, rule.set, rule.map_keys, path in _RETAIN_KEYS, atomic)


@cache
def load(name: str) -> Model | None:
    """Return a model by the name of its class in the official client.

    Args:
        name: Such as `V1Pod`.

    Returns:
        The model, or None when the installed client does not know it (its objects are then not checked).
    """
    source = _source(name)
    if not source:
        return None
    short, wire = short_name(name), _literal(source, "attribute_map")
    details = _details(source)
    return Model(
        name,
        short,
        {
            wire[attribute]: _field(wire[attribute], text, details.get(wire[attribute], (False, ""))[0], short)
            for attribute, text in _literal(source, "openapi_types").items()
        },
    )


def descriptions(name: str) -> tuple[str, dict[str, str]]:
    """Return a model's own description and those of its fields; read anew each time, for nobody keeps them."""
    source = _source(name)
    own = re.search(r'^class \w+\(BaseModel\):\n    """\n    (.*?)\n\n    Attributes:', source, re.M | re.DOTALL)
    text = own[1].strip().replace('\\"', '"') if own else ""
    return text, {field: described for field, (_, described) in _details(source).items()}
