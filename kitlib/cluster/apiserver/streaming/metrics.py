"""The resource metrics API `metrics.k8s.io/v1beta1`, so that `kubectl top` works.

Stands for metrics-server, which is an add-on in a real cluster: each request asks the kubelets now, where
metrics-server answers with what it collected up to 15 seconds ago.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from kitlib.cluster.apiserver import errors
from kitlib.cluster.apiserver.streaming.kubelets import kubelet_of, session
from kitlib.cluster.client import ApiError, Client
from kitlib.cluster.config import ClusterConfig
from kitlib.cluster.objects import Object, is_hollow

GROUP_VERSION = "metrics.k8s.io/v1beta1"
TIMEOUT = 5.0


async def handle(request: web.Request, client: Client, config: ClusterConfig, info: Any) -> web.Response:
    """Answer get and list of NodeMetrics and PodMetrics; see `streams.handle`."""
    if request.method not in ("GET", "HEAD"):
        raise errors.method_not_allowed()
    selector = request.query.get("labelSelector", "")
    if info.resource == "nodes":
        nodes = await _objects(client, "nodes", info, selector)
        found = [_node_metrics(node, summary) for node, summary in await _summaries(nodes, config) if summary]
    else:
        pods = await _objects(client, "pods", info, selector)
        names = {pod["spec"].get("nodeName") for pod in pods}
        nodes = [node for node in (await client.list("nodes"))["items"] if node["metadata"]["name"] in names]
        summaries = [summary for _, summary in await _summaries(nodes, config)]
        found = _pod_metrics(pods, summaries)
    kind = "NodeMetrics" if info.resource == "nodes" else "PodMetrics"
    if not info.name:
        body: Object = {"kind": f"{kind}List", "apiVersion": GROUP_VERSION, "metadata": {}, "items": found}
    elif found:
        body = {"kind": kind, "apiVersion": GROUP_VERSION, **found[0]}
    else:
        details = {"name": info.name, "group": "metrics.k8s.io", "kind": info.resource}
        message = f'{info.resource}.metrics.k8s.io "{info.name}" not found'
        raise ApiError(errors.status(404, "NotFound", message, details))
    return web.Response(body=orjson.dumps(body) + b"\n", content_type="application/json")


async def _objects(client: Client, resource: str, info: Any, selector: str) -> list[Object]:
    if info.name:
        return [await client.get(resource, info.name, info.namespace or None)]
    return list((await client.list(resource, info.namespace or None, label_selector=selector))["items"])


async def _summaries(nodes: Iterable[Object], config: ClusterConfig) -> list[tuple[Object, Object]]:
    """Ask each node's kubelet at once; a node that does not answer has an empty summary."""
    asked = [node for node in nodes if not is_hollow(node)]
    answers = await asyncio.gather(*(_summary(node, config) for node in asked))
    return list(zip(asked, answers))  # noqa: B905


async def _summary(node: Object, config: ClusterConfig) -> Object:
    try:
        kubelet = kubelet_of(node, config)
        headers = {"Authorization": kubelet.authorization}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with session() as http:
            url = f"{kubelet.base}/stats/summary"
            async with http.get(url, ssl=kubelet.ssl or True, headers=headers, timeout=timeout) as answer:
                return orjson.loads(await answer.read()) if answer.status == 200 else {}
    except (ApiError, aiohttp.ClientError, OSError, asyncio.TimeoutError):
        return {}


def _usage(stats: Mapping[str, Any]) -> Object:
    return {"cpu": f"{stats['cpu']['usageNanoCores']}n", "memory": f"{stats['memory']['workingSetBytes'] // 1024}Ki"}


def _metadata(obj: Object) -> Object:
    meta = obj["metadata"]
    kept = {name: meta[name] for name in ("name", "namespace", "labels") if meta.get(name)}
    return {**kept, "creationTimestamp": meta["creationTimestamp"]}


def _node_metrics(node: Object, summary: Object) -> Object:
    stats = summary["node"]
    return {
        "metadata": _metadata(node),
        "timestamp": stats["cpu"]["time"],
        "window": "10s",
        "usage": _usage(stats),
    }


def _pod_metrics(pods: Iterable[Object], summaries: Iterable[Object]) -> list[Object]:
    by_uid = {stats["podRef"]["uid"]: stats for summary in summaries for stats in summary.get("pods", ())}
    found = []
    for pod in pods:
        stats = by_uid.get(pod["metadata"].get("uid"))
        if stats:
            containers = [{"name": item["name"], "usage": _usage(item)} for item in stats["containers"]]
            time = stats["cpu"]["time"]
            found.append({"metadata": _metadata(pod), "timestamp": time, "window": "10s", "containers": containers})
    return found
