"""Chapter 04: Services and labels."""

from __future__ import annotations

from typing import Any

from kitlib.course.exercise import NotAttempted, exercise
from kitlib.course.look import BOOTCAMP, deployment, endpoints, is_ready, pods, require, service


@exercise(
    "04.1",
    "A Service for the inside only",
    hints=[
        "`kubectl expose` makes a ClusterIP Service unless you say another type.",
        "`--name` gives the Service another name than the Deployment's.",
        "Both ports are 8080: `--port=8080` is enough.",
    ],
    solution="%kubectl expose deployment/kubernetes-bootcamp --name=inside --port=8080",
)
def inside(cluster: Any, answer: Any) -> str:
    """A ClusterIP Service `inside` leads to the app's Pods."""
    found = service(cluster, "inside")
    again = "`%kubectl delete service inside`, and make it anew."
    require(found.spec.type == "ClusterIP", f"`inside` is of type {found.spec.type}, not ClusterIP. {again}")
    ports = {port.port: port.target_port for port in found.spec.ports}
    require(8080 in ports, f"`inside` does not have port 8080. {again}")
    require(ports[8080] in (8080, "8080"), f"Behind `inside` the app listens on 8080, not on {ports[8080]}. {again}")
    ready = {pod.status.pod_ip for pod in pods(cluster, f"app={BOOTCAMP}") if is_ready(pod)}
    require(ready, f"No Pod of `{BOOTCAMP}` is ready.")
    behind = endpoints(cluster, "inside")
    require(behind, "`inside` has no endpoints: does its selector match the Pods' labels? `expose` copies it.")
    require(ready == behind, "`inside` does not lead to exactly the ready Pods of the app.")
    return f"{found.spec.cluster_ip}:8080 leads to {len(behind)} Pod(s), from inside the cluster only."


@exercise(
    "04.2",
    "Take a Pod out of service without stopping it",
    hints=[
        "Service and ReplicaSet both find their Pods by the label `app`. What if a Pod's label changed?",
        "`kubectl label pod NAME app=quarantine` refuses, because the label exists: there is a flag to overwrite.",
    ],
    solution="suspect = %kubectl get pods -l app=kubernetes-bootcamp -o jsonpath='{.items[0].metadata.name}'\n"
    "%kubectl label pod {suspect} app=quarantine --overwrite\n"
    "%kubectl rollout status deployment/kubernetes-bootcamp",
)
def quarantine(cluster: Any, answer: Any) -> str:
    """A running Pod with `app=quarantine` no longer belongs to the ReplicaSet, which made another."""
    out = pods(cluster, "app=quarantine")
    if not out:
        raise NotAttempted("No Pod carries the label `app=quarantine`.")
    bootcamp = [pod for pod in out if pod.metadata.name.startswith(BOOTCAMP)]
    require(bootcamp, f"The Pod in quarantine is none of `{BOOTCAMP}`'s: relabel one of those, don't make a new one.")
    owners = [owner for pod in bootcamp for owner in pod.metadata.owner_references or []]
    require(not any(owner.controller for owner in owners), "The ReplicaSet still owns the Pod: wait, check again.")
    require(any(is_ready(pod) for pod in bootcamp), "The Pod in quarantine does not run.")
    found = deployment(cluster, BOOTCAMP)
    require((found.status.available_replicas or 0) == found.spec.replicas, "Its replacement is not ready yet.")
    if len(bootcamp) > 1:
        return f"{len(bootcamp)} Pods run on without traffic, where one was asked for; new ones are in their places."
    return "The Pod runs on for you to examine, gets no traffic, and a new one has taken its place."
