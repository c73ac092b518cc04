"""The resources that garbage collection and namespace deletion go over.

Stands for what the real controllers learn from discovery: every kind that may own, be owned, or live in a namespace.
Those of custom resources are learnt from their CustomResourceDefinitions.
"""

from __future__ import annotations

from kitlib.cluster.informer import Informer
from kitlib.cluster.objects import Object, condition_true

DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"

NAMESPACED = (
    "pods v1 Pod",
    "services v1 Service",
    "configmaps v1 ConfigMap",
    "secrets v1 Secret",
    "serviceaccounts v1 ServiceAccount",
    "endpoints v1 Endpoints",
    "endpointslices.discovery.k8s.io discovery.k8s.io/v1 EndpointSlice",
    "persistentvolumeclaims v1 PersistentVolumeClaim",
    "replicationcontrollers v1 ReplicationController",
    "podtemplates v1 PodTemplate",
    "limitranges v1 LimitRange",
    "resourcequotas v1 ResourceQuota",
    "deployments.apps apps/v1 Deployment",
    "replicasets.apps apps/v1 ReplicaSet",
    "statefulsets.apps apps/v1 StatefulSet",
    "daemonsets.apps apps/v1 DaemonSet",
    "controllerrevisions.apps apps/v1 ControllerRevision",
    "jobs.batch batch/v1 Job",
    "cronjobs.batch batch/v1 CronJob",
    "horizontalpodautoscalers.autoscaling autoscaling/v2 HorizontalPodAutoscaler",
    "ingresses.networking.k8s.io networking.k8s.io/v1 Ingress",
    "networkpolicies.networking.k8s.io networking.k8s.io/v1 NetworkPolicy",
    "poddisruptionbudgets.policy policy/v1 PodDisruptionBudget",
    "roles.rbac.authorization.k8s.io rbac.authorization.k8s.io/v1 Role",
    "rolebindings.rbac.authorization.k8s.io rbac.authorization.k8s.io/v1 RoleBinding",
    "leases.coordination.k8s.io coordination.k8s.io/v1 Lease",
    "csistoragecapacities.storage.k8s.io storage.k8s.io/v1 CSIStorageCapacity",
    "resourceclaims.resource.k8s.io resource.k8s.io/v1 ResourceClaim",
    "resourceclaimtemplates.resource.k8s.io resource.k8s.io/v1 ResourceClaimTemplate",
)
"""Resource, apiVersion and kind of what lives in a namespace, `events` left out: nothing owns them."""

CLUSTER_SCOPED = (
    "nodes v1 Node",
    "namespaces v1 Namespace",
    "persistentvolumes v1 PersistentVolume",
    "clusterroles.rbac.authorization.k8s.io rbac.authorization.k8s.io/v1 ClusterRole",
    "clusterrolebindings.rbac.authorization.k8s.io rbac.authorization.k8s.io/v1 ClusterRoleBinding",
    "storageclasses.storage.k8s.io storage.k8s.io/v1 StorageClass",
    "priorityclasses.scheduling.k8s.io scheduling.k8s.io/v1 PriorityClass",
    f"{DEFINITIONS} apiextensions.k8s.io/v1 CustomResourceDefinition",
)
"""The same for cluster-scoped kinds."""

NAMESPACED_RESOURCES = tuple(line.split()[0] for line in NAMESPACED)
CLUSTER_RESOURCES = tuple(line.split()[0] for line in CLUSTER_SCOPED)


def _group_kind(api_version: str, kind: str) -> str:
    return f"{kind}.{api_version.rpartition('/')[0]}"


_BY_KIND = {
    _group_kind(api_version, kind): resource
    for resource, api_version, kind in (line.split() for line in (*NAMESPACED, *CLUSTER_SCOPED))
}


def resource_of(api_version: str, kind: str) -> str | None:
    """Return the resource of a kind, whatever the version of its group; None when it is not among ours."""
    return _BY_KIND.get(_group_kind(api_version, kind))


def is_served(definition: Object) -> bool:
    """Tell whether a definition's objects are served."""
    return condition_true(definition, "Established")


def is_namespaced(resource: str, definitions: Informer) -> bool:
    """Tell whether the objects of a resource live in namespaces."""
    definition = definitions.get("", resource)
    if definition is not None:
        return bool(definition["spec"]["scope"] == "Namespaced")
    return resource not in CLUSTER_RESOURCES


def custom_resource_of(api_version: str, kind: str, definitions: Informer) -> str | None:
    """Return the custom resource of a kind, or None."""
    group = api_version.rpartition("/")[0]
    for definition in definitions.list():
        if (
            definition["spec"]["group"] == group
            and definition["spec"]["names"]["kind"] == kind
            and is_served(definition)
        ):
            return str(definition["metadata"]["name"])
    return None


def custom_namespaced(definitions: Informer) -> list[str]:
    """Return the custom resources whose objects live in namespaces."""
    served = (each for each in definitions.list() if is_served(each) and each["spec"]["scope"] == "Namespaced")
    return [str(each["metadata"]["name"]) for each in served]
