"""Every kind that the API server serves, one line each.

Stands for the group/version registrations of kube-apiserver 1.36 (the GA versions that it serves by
default, see `api/discovery/aggregated_v2.json` in its repository). Kinds that a CustomResourceDefinition defines are
`customresources.py`'s. Left out: alpha and beta versions, and the subresource `resize` of Pods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])
ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Kind:
    """One served kind of object.

    Attributes:
        group: API group; empty for the core group.
        version: Version within the group, such as `v1`.
        kind: Name of the kind, such as `Deployment`.
        plural: Name in paths, such as `deployments`.
        singular: Such as `deployment`.
        namespaced: Whether objects live in a namespace.
        short_names: Such as `deploy`.
        categories: Such as `all`.
        verbs: What may be done with it.
        subresources: Such as `status`, `scale`.
        model: Name of the class in the official Python client, the source of the kind's schema.
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    short_names: tuple[str, ...]
    categories: tuple[str, ...]
    verbs: tuple[str, ...]
    subresources: tuple[str, ...]
    model: str

    def __post_init__(self) -> None:
        """Compute the names that every request needs."""
        object.__setattr__(self, "_resource", f"{self.plural}.{self.group}" if self.group else self.plural)
        object.__setattr__(self, "_api_version", f"{self.group}/{self.version}" if self.group else self.version)

    @property
    def api_version(self) -> str:
        """Such as `apps/v1`."""
        return self._api_version  # type: ignore[attr-defined,no-any-return]

    @property
    def resource(self) -> str:
        """Plural and group as kubectl and error messages write it, such as `deployments.apps`."""
        return self._resource  # type: ignore[attr-defined,no-any-return]

    @property
    def list_kind(self) -> str:
        """Name of the kind's List, such as `PodList`."""
        return f"{self.kind}List"

    @property
    def deprecation(self) -> str:
        """Warning for whoever uses this kind; empty for none."""
        return _DEPRECATED.get(self.resource, "")

    @property
    def stored(self) -> bool:
        """Whether objects of this kind are kept (reviews are only answered)."""
        return "get" in self.verbs


_DEPRECATED = {
    "componentstatuses": "v1 ComponentStatus is deprecated in v1.19+",
    "endpoints": "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
}

# group/version, then one line per kind: plural Kind scope(N|C) short names, categories, subresources, [model]
_TABLE = """
v1
  bindings Binding N - - - V1Binding create
  componentstatuses ComponentStatus C cs - - V1ComponentStatus get,list
  configmaps ConfigMap N cm - -
  endpoints Endpoints N ep - -
  events Event N ev - - CoreV1Event
  limitranges LimitRange N limits - -
  namespaces Namespace C ns - finalize,status V1Namespace create,delete,get,list,patch,update,watch
  nodes Node C no - proxy,status
  persistentvolumeclaims PersistentVolumeClaim N pvc - status
  persistentvolumes PersistentVolume C pv - status
  pods Pod N po all attach,binding,ephemeralcontainers,eviction,exec,log,portforward,proxy,status
  podtemplates PodTemplate N - - -
  replicationcontrollers ReplicationController N rc all scale,status
  resourcequotas ResourceQuota N quota - status
  secrets Secret N - - -
  serviceaccounts ServiceAccount N sa - token
  services Service N svc all proxy,status
apiregistration.k8s.io/v1
  apiservices APIService C - api-extensions status
apps/v1
  controllerrevisions ControllerRevision N - - -
  daemonsets DaemonSet N ds all status
  deployments Deployment N deploy all scale,status
  replicasets ReplicaSet N rs all scale,status
  statefulsets StatefulSet N sts all scale,status
events.k8s.io/v1
  events Event N ev - - EventsV1Event
authentication.k8s.io/v1
  selfsubjectreviews SelfSubjectReview C - - - V1SelfSubjectReview create
  tokenreviews TokenReview C - - - V1TokenReview create
authorization.k8s.io/v1
  localsubjectaccessreviews LocalSubjectAccessReview N - - - V1LocalSubjectAccessReview create
  selfsubjectaccessreviews SelfSubjectAccessReview C - - - V1SelfSubjectAccessReview create
  selfsubjectrulesreviews SelfSubjectRulesReview C - - - V1SelfSubjectRulesReview create
  subjectaccessreviews SubjectAccessReview C - - - V1SubjectAccessReview create
autoscaling/v2
  horizontalpodautoscalers HorizontalPodAutoscaler N hpa all status V2HorizontalPodAutoscaler
autoscaling/v1
  horizontalpodautoscalers HorizontalPodAutoscaler N hpa all status
batch/v1
  cronjobs CronJob N cj all status
  jobs Job N - all status
certificates.k8s.io/v1
  certificatesigningrequests CertificateSigningRequest C csr - approval,status
networking.k8s.io/v1
  ingressclasses IngressClass C - - -
  ingresses Ingress N ing - status
  ipaddresses IPAddress C ip - -
  networkpolicies NetworkPolicy N netpol - -
  servicecidrs ServiceCIDR C - - status
policy/v1
  poddisruptionbudgets PodDisruptionBudget N pdb - status
rbac.authorization.k8s.io/v1
  clusterrolebindings ClusterRoleBinding C - - -
  clusterroles ClusterRole C - - -
  rolebindings RoleBinding N - - -
  roles Role N - - -
storage.k8s.io/v1
  csidrivers CSIDriver C - - -
  csinodes CSINode C - - -
  csistoragecapacities CSIStorageCapacity N - - -
  storageclasses StorageClass C sc - -
  volumeattachments VolumeAttachment C - - status
  volumeattributesclasses VolumeAttributesClass C vac - -
admissionregistration.k8s.io/v1
  mutatingadmissionpolicies MutatingAdmissionPolicy C - api-extensions -
  mutatingadmissionpolicybindings MutatingAdmissionPolicyBinding C - api-extensions -
  mutatingwebhookconfigurations MutatingWebhookConfiguration C - api-extensions -
  validatingadmissionpolicies ValidatingAdmissionPolicy C - api-extensions status
  validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding C - api-extensions -
  validatingwebhookconfigurations ValidatingWebhookConfiguration C - api-extensions -
apiextensions.k8s.io/v1
  customresourcedefinitions CustomResourceDefinition C crd,crds api-extensions status
scheduling.k8s.io/v1
  priorityclasses PriorityClass C pc - -
coordination.k8s.io/v1
  leases Lease N - - -
node.k8s.io/v1
  runtimeclasses RuntimeClass C - - -
discovery.k8s.io/v1
  endpointslices EndpointSlice N - - -
flowcontrol.apiserver.k8s.io/v1
  flowschemas FlowSchema C - - status
  prioritylevelconfigurations PriorityLevelConfiguration C - - status
resource.k8s.io/v1
  deviceclasses DeviceClass C - - -
  resourceclaims ResourceClaim N - - status ResourceV1ResourceClaim
  resourceclaimtemplates ResourceClaimTemplate N - - -
  resourceslices ResourceSlice C - - -
"""


def _words(field: str) -> tuple[str, ...]:
    return () if field == "-" else tuple(field.split(","))


def _kind(group_version: str, line: str) -> Kind:
    plural, kind, scope, short, categories, subresources, *rest = line.split()
    group, _, version = group_version.rpartition("/")
    return Kind(
        group=group,
        version=version,
        kind=kind,
        plural=plural,
        singular=kind.lower(),
        namespaced=scope == "N",
        short_names=_words(short),
        categories=_words(categories),
        verbs=_words(rest[1]) if len(rest) > 1 else ALL_VERBS,
        subresources=_words(subresources),
        model=rest[0] if rest else f"V1{kind}",
    )


def _parse(table: str) -> tuple[Kind, ...]:
    kinds, group_version = [], ""
    for line in table.strip().splitlines():
        if line.startswith(" "):
            kinds.append(_kind(group_version, line))
        else:
            group_version = line
    return tuple(kinds)


KINDS: tuple[Kind, ...] = _parse(_TABLE)
"""Every served kind, groups in the order of discovery (a group's preferred version first)."""

_BY_GVK = {(kind.api_version, kind.kind): kind for kind in KINDS}
_BY_PATH = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}
_BY_RESOURCE = {kind.resource: kind for kind in reversed(KINDS)}


def lookup(resource: str) -> Kind:
    """Return the kind of a resource named as kubectl does (`deployments.apps`), in its preferred version.

    Raises:
        KeyError: No such resource.
    """
    return _BY_RESOURCE[resource]


def by_gvk(api_version: str, kind: str) -> Kind | None:
    """Return the kind with this `apiVersion` and `kind`, or None."""
    return _BY_GVK.get((api_version, kind))


def by_path(group: str, version: str, plural: str) -> Kind | None:
    """Return the kind served under this group, version and plural, or None."""
    return _BY_PATH.get((group, version, plural))


def per_kind(table: dict[str, Function]) -> Callable[..., Callable[[Function], Function]]:
    """Return a decorator that enters a function into a table, under the names of the kinds that it is for."""

    def entering(*kinds: str) -> Callable[[Function], Function]:
        def enter(function: Function) -> Function:
            table.update(dict.fromkeys(kinds, function))
            return function

        return enter

    return entering
