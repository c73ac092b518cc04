"""Columns of `kubectl get`, kind by kind, and where their cells come from.

Stands for the column definitions of `pkg/printers/internalversion/printers.go`. In a line of `_TABLE`, `*` before a
column means only with `-o wide`, `#` behind its name a number. Its cell is what stands at the path behind `=` (behind
`|`: what is shown for nothing; `len()` of a list or map, `flag()` of a boolean), or what the column shows of every kind
(`cells.SHARED`), or else the next one of what the kind's function in `cells.py` returns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from kitlib.cluster.apiserver.printers import cells
from kitlib.cluster.apiserver.printers.cells import Cells
from kitlib.cluster.apiserver.printers.durations import Moment
from kitlib.cluster.objects import Object


class Column(NamedTuple):
    """One column: header, JSON type, priority, where its description comes from, and its cell.

    Attributes:
        cell: Returns it for an object at a moment; None for one of the kind's function.
    """

    name: str
    type: str
    priority: int
    field: str
    description: str
    cell: Callable[[Object, Moment], Any] | None


class Printer(NamedTuple):
    """A kind's columns and the function that fills those which nothing else does."""

    columns: tuple[Column, ...]
    own: cells.Function

    def row(self, obj: Object, now: Moment) -> Cells:
        """Return the cells of an object."""
        own = iter(self.own(obj, now))
        return [column.cell(obj, now) if column.cell else next(own) for column in self.columns]


_TABLE = """
Pod: Name, Ready, Status, Restarts, Age, *IP, *Node=spec.nodeName|<none>,\
 *Nominated Node=status.nominatedNodeName|<none>, *Readiness Gates
Deployment: Name, Ready, Up-to-date#=status.updatedReplicas, Available#=status.availableReplicas, Age,\
 *Containers, *Images, *Selector
ReplicaSet ReplicationController: Name, Desired#=spec.replicas, Current#=status.replicas, Ready#=status.readyReplicas,\
 Age, *Containers, *Images, *Selector
Scale: Name, Desired#=spec.replicas, Available#=status.replicas, Age
StatefulSet: Name, Ready, Age, *Containers, *Images
DaemonSet: Name, Desired#=status.desiredNumberScheduled, Current#=status.currentNumberScheduled,\
 Ready#=status.numberReady, Up-to-date#=status.updatedNumberScheduled, Available#=status.numberAvailable,\
 Node Selector, Age, *Containers, *Images, *Selector
Job: Name, Status, Completions, Duration, Age, *Containers, *Images, *Selector
CronJob: Name, Schedule=spec.schedule, Timezone=spec.timeZone|<none>, Suspend, Active#=len(status.active),\
 Last Schedule, Age, *Containers, *Images, *Selector
PodTemplate: Name, Containers, Images, Pod Labels
Service: Name, Type=spec.type, Cluster-IP=spec.clusterIP|<none>, External-IP, Port(s), Age, *Selector
Endpoints: Name, Endpoints, Age
EndpointSlice: Name, AddressType=addressType, Ports, Endpoints, Age
Node: Name, Status, Roles, Age, Version=status.nodeInfo.kubeletVersion, *Internal-IP, *External-IP,\
 *OS-Image=status.nodeInfo.osImage|<unknown>, *Kernel-Version,\
 *Container-Runtime=status.nodeInfo.containerRuntimeVersion|<unknown>
Event: Last Seen, Type=type, Reason=reason, Object, *Subobject, *Source, Message, *First Seen, *Count#, *Name
ConfigMap: Name, Data, Age
Secret: Name, Type=type, Data=len(data), Age
Namespace: Name, Status=status.phase, Age
ServiceAccount: Name, Secrets=len(secrets), Age
PersistentVolume: Name, Capacity=spec.capacity.storage, Access Modes,\
 Reclaim Policy=spec.persistentVolumeReclaimPolicy, Status, Claim, StorageClass=spec.storageClassName,\
 VolumeAttributesClass=spec.volumeAttributesClassName|<unset>, Reason=status.reason, Age,\
 *VolumeMode=spec.volumeMode|<unset>
PersistentVolumeClaim: Name, Status, Volume=spec.volumeName, Capacity, Access Modes,\
 StorageClass=spec.storageClassName, VolumeAttributesClass=spec.volumeAttributesClassName|<unset>, Age,\
 *VolumeMode=spec.volumeMode|<unset>
StorageClass: Name, Provisioner=provisioner, ReclaimPolicy=reclaimPolicy|Delete,\
 VolumeBindingMode=volumeBindingMode|Immediate, AllowVolumeExpansion=flag(allowVolumeExpansion), Age
Lease: Name, Holder=spec.holderIdentity, Age
HorizontalPodAutoscaler: Name, Reference, Targets, MinPods, MaxPods, Replicas, Age
Ingress: Name, Class, Hosts, Address, Ports, Age
IngressClass: Name, Controller=spec.controller, Parameters, Age
NetworkPolicy: Name, Pod-Selector, Age
PodDisruptionBudget: Name, Min Available, Max Unavailable, Allowed Disruptions, Age
RoleBinding ClusterRoleBinding: Name, Role, Age, *Users, *Groups, *ServiceAccounts
ControllerRevision: Name, Controller, Revision#=revision, Age
PriorityClass: Name, Value#=value, Global-Default=flag(globalDefault), Age, PreemptionPolicy=preemptionPolicy
ResourceQuota: Name, Request, Limit, Age
RuntimeClass: Name, Handler=handler, Age
CertificateSigningRequest: Name, Age, SignerName=spec.signerName, Requestor=spec.username, RequestedDuration, Condition
APIService: Name, Service, Available, Age
ComponentStatus: Name, Status, Message, Error
MutatingWebhookConfiguration ValidatingWebhookConfiguration: Name, Webhooks#=len(webhooks), Age
CSINode: Name, Drivers#=len(spec.drivers), Age
VolumeAttachment: Name, Attacher=spec.attacher, PV=spec.source.persistentVolumeName, Node=spec.nodeName,\
 Attached=flag(status.attached), Age
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
}
_COLUMN = re.compile(r"(?P<wide>\*?)(?P<name>[^#=]+)(?P<number>#?)(?:=(?P<path>[^|]+)(?:\|(?P<empty>.+))?)?")


def _column(text: str) -> Column:
    found = _COLUMN.fullmatch(text)
    assert found is not None, text
    name, path, number = found["name"], found["path"], bool(found["number"])
    words = re.findall(r"[A-Za-z]+", name)
    field = words[0].lower() + "".join(word.capitalize() for word in words[1:])
    cell = _at(path, 0 if number else found["empty"] or "") if path else cells.SHARED.get(name)
    return Column(
        name, "integer" if number else "string", int(bool(found["wide"])), field, _DESCRIPTIONS.get(name, ""), cell
    )


def _at(path: str, empty: Any) -> Callable[[Object, Moment], Any]:
    """Return the function that reads the cell at a path."""
    called = re.fullmatch(r"(len|flag)\((.+)\)", path)
    names = (called[2] if called else path).split(".")

    def read(obj: Object, now: Moment) -> Any:
        value: Any = obj
        for name in names:
            value = (value or {}).get(name)
        if called:
            return len(value or ()) if called[1] == "len" else str(bool(value)).lower()
        return empty if value is None or value == "" else value

    return read


def _columns(text: str) -> tuple[Column, ...]:
    return tuple(_column(each.strip()) for each in text.split(","))


def _printers() -> Iterator[tuple[str, Printer]]:
    for line in _TABLE.strip().splitlines():
        kinds, _, names = line.partition(":")
        for kind in kinds.split():
            yield kind, Printer(_columns(names), cells.OWN.get(kind, cells.nothing))


PRINTERS: dict[str, Printer] = dict(_printers())
"""Printer of each kind that has one."""

DEFAULT = Printer(_columns("Name, Created At=metadata.creationTimestamp"), cells.nothing)
"""Printer of the other kinds."""
