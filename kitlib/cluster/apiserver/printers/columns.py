"""Columns of `kubectl get`, kind by kind, and how their cells are filled.

Stands for the column definitions of `pkg/printers/internalversion/printers.go`. A line of `_COLUMNS` names a kind's
columns: `*` before a name means only with `-o wide`, `#` after it a number. `cells.py` and its neighbours fill them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from kitlib.cluster.apiserver.printers import cells, columns_pod
from kitlib.cluster.apiserver.printers import cells_configured as configured
from kitlib.cluster.apiserver.printers.cells import Cells
from kitlib.cluster.apiserver.printers.durations import Clock
from kitlib.cluster.objects import Object


class Column(NamedTuple):
    """One column: header, JSON type, priority, and where its description comes from."""

    name: str
    type: str
    priority: int
    field: str
    description: str


class Printer(NamedTuple):
    """A kind's columns and the function that fills a row."""

    columns: tuple[Column, ...]
    cells: Callable[[Object, Clock], Cells]


_COLUMNS = """
Pod: Name, Ready, Status, Restarts, Age, *IP, *Node, *Nominated Node, *Readiness Gates
Deployment: Name, Ready, Up-to-date#, Available#, Age, *Containers, *Images, *Selector
ReplicaSet: Name, Desired#, Current#, Ready#, Age, *Containers, *Images, *Selector
ReplicationController: Name, Desired#, Current#, Ready#, Age, *Containers, *Images, *Selector
StatefulSet: Name, Ready, Age, *Containers, *Images
DaemonSet: Name, Desired#, Current#, Ready#, Up-to-date#, Available#, Node Selector, Age,\
 *Containers, *Images, *Selector
Job: Name, Status, Completions, Duration, Age, *Containers, *Images, *Selector
CronJob: Name, Schedule, Timezone, Suspend, Active#, Last Schedule, Age, *Containers, *Images, *Selector
PodTemplate: Name, Containers, Images, Pod Labels
Service: Name, Type, Cluster-IP, External-IP, Port(s), Age, *Selector
Endpoints: Name, Endpoints, Age
EndpointSlice: Name, AddressType, Ports, Endpoints, Age
Node: Name, Status, Roles, Age, Version, *Internal-IP, *External-IP, *OS-Image, *Kernel-Version, *Container-Runtime
Event: Last Seen, Type, Reason, Object, *Subobject, *Source, Message, *First Seen, *Count#, *Name
ConfigMap: Name, Data, Age
Secret: Name, Type, Data, Age
Namespace: Name, Status, Age
ServiceAccount: Name, Secrets, Age
PersistentVolume: Name, Capacity, Access Modes, Reclaim Policy, Status, Claim, StorageClass, VolumeAttributesClass,\
 Reason, Age, *VolumeMode
PersistentVolumeClaim: Name, Status, Volume, Capacity, Access Modes, StorageClass, VolumeAttributesClass, Age,\
 *VolumeMode
StorageClass: Name, Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion, Age
Lease: Name, Holder, Age
HorizontalPodAutoscaler: Name, Reference, Targets, MinPods, MaxPods, Replicas, Age
Ingress: Name, Class, Hosts, Address, Ports, Age
IngressClass: Name, Controller, Parameters, Age
NetworkPolicy: Name, Pod-Selector, Age
PodDisruptionBudget: Name, Min Available, Max Unavailable, Allowed Disruptions, Age
RoleBinding: Name, Role, Age, *Users, *Groups, *ServiceAccounts
ClusterRoleBinding: Name, Role, Age, *Users, *Groups, *ServiceAccounts
ControllerRevision: Name, Controller, Revision#, Age
PriorityClass: Name, Value#, Global-Default, Age, PreemptionPolicy
ResourceQuota: Name, Request, Limit, Age
RuntimeClass: Name, Handler, Age
CertificateSigningRequest: Name, Age, SignerName, Requestor, RequestedDuration, Condition
APIService: Name, Service, Available, Age
ComponentStatus: Name, Status, Message, Error
MutatingWebhookConfiguration: Name, Webhooks#, Age
ValidatingWebhookConfiguration: Name, Webhooks#, Age
CSINode: Name, Drivers#, Age
VolumeAttachment: Name, Attacher, PV, Node, Attached, Age
IPAddress: Name, ParentRef
ServiceCIDR: Name, CIDRs, Age
"""

_DESCRIPTIONS = {
    "Ready": "The aggregate readiness state of what this object runs.",
    "Restarts": "How often the containers of this pod have been restarted, and when the last one was.",
    "Status": "The aggregate status of this object.",
    "Containers": "Names of each container in the template.",
    "Images": "Images referenced by each container in the template.",
    "Roles": "The roles of the node",
    "Last Seen": "Time of the latest occurrence.",
    "Data": "Number of entries.",
}  # fmt: skip


def _column(text: str) -> Column:
    name = text.strip("*#")
    words = re.findall(r"[A-Za-z]+", name)
    field = words[0].lower() + "".join(word.capitalize() for word in words[1:]) if words else ""
    return Column(
        name, "integer" if text[-1] == "#" else "string", int(text[0] == "*"), field, _DESCRIPTIONS.get(name, "")
    )


def _columns(line: str) -> tuple[Column, ...]:
    return tuple(_column(text.strip()) for text in line.split(","))


_CELLS: dict[str, Callable[[Object, Clock], Cells]] = {
    "Pod": columns_pod.pod,
    "Deployment": cells.deployment,
    "ReplicaSet": cells.replica_set,
    "ReplicationController": cells.replica_set,
    "StatefulSet": cells.stateful_set,
    "DaemonSet": cells.daemon_set,
    "Job": cells.job,
    "CronJob": cells.cron_job,
    "PodTemplate": cells.pod_template,
    "Service": cells.service,
    "Endpoints": cells.endpoints,
    "EndpointSlice": cells.endpoint_slice,
    "Node": cells.node,
    "Event": cells.event,
    "ConfigMap": configured.config_map,
    "Secret": configured.secret,
    "Namespace": configured.namespace,
    "ServiceAccount": configured.service_account,
    "PersistentVolume": configured.volume,
    "PersistentVolumeClaim": configured.claim,
    "StorageClass": configured.storage_class,
    "Lease": configured.lease,
    "HorizontalPodAutoscaler": configured.autoscaler,
    "Ingress": configured.ingress,
    "IngressClass": configured.ingress_class,
    "NetworkPolicy": configured.network_policy,
    "PodDisruptionBudget": configured.disruption_budget,
    "RoleBinding": configured.binding,
    "ClusterRoleBinding": configured.binding,
    "ControllerRevision": configured.controller_revision,
    "PriorityClass": configured.priority_class,
    "ResourceQuota": configured.quota,
    "RuntimeClass": configured.runtime_class,
    "CertificateSigningRequest": configured.signing_request,
    "APIService": configured.api_service,
    "ComponentStatus": configured.component_status,
    "MutatingWebhookConfiguration": configured.webhooks,
    "ValidatingWebhookConfiguration": configured.webhooks,
    "CSINode": configured.csi_node,
    "VolumeAttachment": configured.attachment,
    "IPAddress": configured.ip_address,
    "ServiceCIDR": configured.service_cidr,
}


def _printers() -> dict[str, Printer]:
    lines = (line.split(":", 1) for line in _COLUMNS.strip().splitlines())
    return {kind: Printer(_columns(names), _CELLS[kind]) for kind, names in lines}


PRINTERS: dict[str, Printer] = _printers()
"""Printer of each kind that has one."""

DEFAULT = Printer(_columns("Name, Created At"), configured.default)
"""Printer of the other kinds."""
