"""What tests ask of an API server without the rest of a cluster."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from kitlib.cluster.apiserver.server import APIServer
from kitlib.cluster.config import ClusterConfig
from kitlib.cluster.store import Store

TOKEN = "the-administrators-token"
NODE_TOKEN = "a-nodes-token"


@dataclass
class Answer:
    """A response: status, headers and decoded body."""

    code: int
    headers: Any
    raw: bytes
    body: Any = field(init=False)

    def __post_init__(self) -> None:
        is_json = "json" in self.headers.get("Content-Type", "")
        self.body = orjson.loads(self.raw) if is_json and self.raw else self.raw.decode(errors="replace")

    @property
    def message(self) -> str:
        return self.body["message"]

    @property
    def names(self) -> list[str]:
        return [item["metadata"]["name"] for item in self.body["items"]]


class API:
    """Sends requests to the server of a test."""

    def __init__(self, server: APIServer, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.config = server.config
        self.session = session
        self.client = server.client("test")
        self.store = server.rest.store

    async def request(self, method: str, path: str, body: Any = None, *, token: str = TOKEN, **headers: str) -> Answer:
        """Send a request; a dict or list travels as JSON, header names are written with `_` for `-`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        async with self.session.request(method, self.config.server + path, data=body, headers=sent) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.request("GET", path, **headers)

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        return await self.request("POST", path, body, **headers)

    async def put(self, path: str, body: Any, **headers: str) -> Answer:
        return await self.request("PUT", path, body, **headers)

    async def delete(self, path: str, body: Any = None) -> Answer:
        return await self.request("DELETE", path, body)

    async def patch(self, path: str, body: Any, kind: str = "merge-patch+json") -> Answer:
        return await self.request("PATCH", path, body, Content_Type=f"application/{kind}")

    async def watch(self, path: str, count: int, **headers: str) -> list[dict[str, Any]]:
        """Return the first `count` lines of a watch, fewer when the server ends it."""
        sent = {"Authorization": f"Bearer {TOKEN}", **{n.replace("_", "-"): v for n, v in headers.items()}}
        lines: list[dict[str, Any]] = []
        async with self.session.get(self.config.server + path, headers=sent) as response:
            assert response.status == 200, await response.text()
            async for line in response.content:
                lines.append(orjson.loads(line))
                if len(lines) == count:
                    break
        return lines


def config_of(home: Path) -> ClusterConfig:
    """Return the configuration of a server that picks its port itself."""
    return ClusterConfig("test", home, 0, 77, "kubelet-token")


async def started(config: ClusterConfig, store: Store) -> APIServer:
    """Start a server on a free port of 127.0.0.1."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(64)
    config = replace(config, port=sock.getsockname()[1])
    config.pki.mkdir(parents=True, exist_ok=True)
    users = {TOKEN: {"user": "kubernetes-admin", "groups": ["system:masters"]}}
    users[NODE_TOKEN] = {"user": "system:node:node-1", "groups": ["system:nodes"]}
    (config.pki / "tokens.json").write_text(json.dumps(users))
    server = APIServer(config, store)
    await server.start(sock)
    return server


def config_map(name: str = "", **meta: Any) -> dict[str, Any]:
    """Return a ConfigMap."""
    named = {"name": name} if name else {}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**named, **meta}, "data": {"k": "v"}}


def pod(name: str, **spec: Any) -> dict[str, Any]:
    """Return a Pod with one container."""
    containers = [{"name": "c", "image": "busybox"}]
    meta = {"name": name, "labels": {"app": "web"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": containers, **spec}}


def deployment(name: str = "web", replicas: int = 2) -> dict[str, Any]:
    """Return a Deployment."""
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
