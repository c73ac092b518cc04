"""ReplicationController: what ReplicaSets were before they had selectors with expressions.

Stands for `pkg/controller/replication`, which is the ReplicaSet controller with other types, as here.
"""

from __future__ import annotations

from kitlib.cluster.client import ApiError
from kitlib.cluster.controllers.replicaset import ReplicaSetController
from kitlib.cluster.objects import Object


class ReplicationManager(ReplicaSetController):
    name = "replication-controller"
    resource, kind = "replicationcontrollers", "ReplicationController"

    def _selector(self, rs: Object) -> Object:
        return {"matchLabels": rs["spec"]["selector"]}

    def _status(self, rs: Object, pods: list[Object], now: float, error: ApiError | None) -> Object:
        status = super()._status(rs, pods, now, error)
        del status["terminatingReplicas"]
        return status
