"""Malformed and hostile requests to the API server and the kubelets, and what became of them.

    python tests/fuzz/fuzz.py --requests 100000     one JSON object; exit code 1 when something does not hold

Every answer must be below 500, but for 503 (no endpoints, no backend), 504 and 501. No process may end, log a defect,
keep growing or keep files open, and beside the cluster's folder no file may appear.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import copy
import json
import logging
import os
import random
import re
import socket
import ssl
import string
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import psutil
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import EmbeddedCluster, eventually, throwaway_cluster
from valid_objects import OBJECTS, PARTS, PREPARED

from kitlib.cluster.kubelet.streaming.spdy import DICTIONARY

CLIENTS = 16
CANARY = "kit-fuzz-canary"
"""No file of this name may come into being but in the cluster's folder."""
RECORDED = Path(__file__).resolve().parents[1] / "cluster" / "apiserver" / "protobuf_bodies.jsonl"
ALLOWED_5XX = {501, 503, 504}
DOCUMENTED_500 = re.compile(rb"POST \S*/eviction\?|[A-Z]+ \S*/fuzz\.example/\S*/scale\?")
"""Where Kubernetes, too, answers 500: several budgets for one Pod, a custom object without the field of its scale."""
WORDS = [
    "",
    "pods",
    "deployments",
    "..",
    "%2e%2e",
    "%00",
    "a" * 300,
    "status",
    "log",
    "exec",
    "proxy",
    "scale",
    "💥",
    "%ff",
]
GROUPS = ["", "apps", "batch", "nosuch", "metrics.k8s.io", "coordination.k8s.io", "%2f", "rbac.authorization.k8s.io"]
VERBS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "get", "BREW"]
TYPES = [
    *["application/json"] * 6,
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "text/plain",
    "application/json; charset=utf-16",
    "",
    "\x00",
]
QUERIES = [
    "watch=1&timeoutSeconds=1",
    "labelSelector=a in (",
    "labelSelector=%zz",
    "fieldSelector=metadata.nosuch=1",
    "limit=-1",
    "limit=99999999999999999999",
    "continue=%%%",
    "resourceVersion=-5",
    "resourceVersion=abc&watch=1&timeoutSeconds=1",
    "dryRun=Some",
    "fieldValidation=Nope",
    "fieldManager=" + "m" * 500,
    "pretty=maybe",
    "gracePeriodSeconds=-1",
    "propagationPolicy=Sideways",
    "tailLines=-3&sinceSeconds=x",
    "command=" + "x" * 3000,
    "sendInitialEvents=true&watch=1&timeoutSeconds=1",
]


SELECTORS = [
    "app=web",
    "app in (web,x),tier notin (a)",
    "!x,a>5",
    "a" * 4000,
    ",".join(f"k{number}=v" for number in range(300)),
    "((((",
    "a=b=c",
    "metadata.name=web",
    "status.phase!=Running,spec.nodeName=",
]
LEAVES = [
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    2**70,
    1.5,
    "",
    "1Gi",
    "-5",
    "x" * 400,
    [],
    {},
    [None],
    "\u0000",
    "\U0001f4a5",
    "../x",
]
PATCHES = ["merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml"]
GROWING = set("replicas minReplicas maxReplicas parallelism completions schedulerName suspend nodeName hard".split())
"""Fields that stay as they are: the Pods that hostile objects ask for must not crowd out the test."""


def recorded_protobuf() -> list[tuple[str, bytes]]:
    """Return bodies that a kubectl sent, and where to."""
    places = {"Deployment": "/apis/apps/v1", "Job": "/apis/batch/v1", "CronJob": "/apis/batch/v1"}
    found = []
    for line in RECORDED.read_text().splitlines():
        item = json.loads(line)
        kind = item["object"]["kind"]
        path = f"{places.get(kind, '/api/v1')}/namespaces/default/{kind.lower()}s"
        found.append((path, bytes.fromhex(item["body"])))
    return found


@dataclass
class Fuzzer:
    """A source of hostile requests with a fixed order for a seed.

    Attributes:
        random: Source of every choice.
        token: A right token; half of the requests carry it, the rest none, a wrong or a broken one.
        codes: How often each status code was answered; 0 means that the connection was closed.
        wrong: Requests whose answer may not be.
    """

    random: random.Random
    token: str
    codes: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    protobuf: list[tuple[str, bytes]] = field(default_factory=recorded_protobuf)

    def request(self) -> bytes:
        """Return the bytes of one request."""
        makers: list[Callable[[], bytes]] = [self._rest, self._nearly_valid, self._nearly_valid, self._nearly_valid]
        makers += [self._reading, self._proxied, self._upgrade, self._broken_http, self._protobuf]
        return self.random.choice(makers)()

    def _rest(self) -> bytes:
        body = self._body()
        headers = [f"Content-Type: {self.random.choice(TYPES)}", f"Content-Length: {len(body)}"]
        return self._head(self.random.choice(VERBS), self._path(), headers) + body

    def _nearly_valid(self) -> bytes:
        """Return the creation, change or deletion of an object that is valid but for a field or two."""
        path, blank = self.random.choice(OBJECTS)
        number = str(self.random.randrange(20))
        obj = json.loads(json.dumps(blank).replace("@", number))
        name = obj.setdefault("metadata", {}).setdefault("name", f"f{number}")
        obj["metadata"].setdefault("labels", {"a": "b"})
        for _ in range(self.random.randrange(3)):
            self._spoil(obj)
        verb = self.random.choice(["POST", "POST", "POST", "PUT", "PATCH", "PATCH", "DELETE"])
        kind = "json"
        if verb == "PATCH":
            kind = self.random.choice([*PATCHES, "json-patch+json"])
        body, kind = self._encoded([self._operation()] * 2 if kind == "json-patch+json" else obj, kind)
        where = path.replace("@", number)
        if verb != "POST":
            where += f"/{name}{self.random.choice(PARTS)}"
        query = self.random.choice(["", "", "dryRun=All", "fieldValidation=Strict", "force=true&fieldManager=f"])
        headers = [f"Content-Type: application/{kind}", f"Content-Length: {len(body)}"]
        return self._head(verb, f"{where}?{query}", headers, right=True) + (body if verb != "DELETE" else b"")

    def _encoded(self, value: object, kind: str) -> tuple[bytes, str]:
        """Return the bytes of a value and their type: JSON, now and then YAML or in another encoding."""
        text = json.dumps(value)
        choice = self.random.random()
        if choice < 0.05 and kind in ("json", "apply-patch+yaml"):
            return yaml.safe_dump(value).encode(), "yaml" if kind == "json" else kind
        if choice < 0.08:
            return text.encode(self.random.choice(["utf-16", "utf-8-sig", "utf-7", "utf-32"])), kind
        return text.encode("utf-8", "surrogatepass"), kind

    def _protobuf(self) -> bytes:
        """Return a creation with the protobuf body of a kubectl, with bytes changed, lost or repeated."""
        path, recorded = self.random.choice(self.protobuf)
        body = bytearray(recorded)
        for _ in range(self.random.randrange(4)):
            at = self.random.randrange(len(body))
            change = self.random.randrange(3)
            if change == 0:
                body[at] = self.random.randrange(256)
            elif change == 1:
                del body[at : at + self.random.randint(1, 8)]
            else:
                body[at:at] = body[at : at + 40] * self.random.choice([1, 1000])
        query = self.random.choice(["", "dryRun=All"])
        headers = ["Content-Type: application/vnd.kubernetes.protobuf", f"Content-Length: {len(body)}"]
        headers.append(f"Accept: {self.random.choice(['application/vnd.kubernetes.protobuf', 'application/json'])}")
        return self._head("POST", f"{path}?{query}", headers, right=True) + bytes(body)

    def _operation(self) -> dict[str, object]:
        paths = [
            "/metadata/labels/a",
            "/spec",
            "/spec/template/spec/containers/0",
            "/data/k",
            "/x/y",
            "",
            "/metadata/name",
        ]
        op = self.random.choice(["add", "remove", "replace", "copy", "move", "test"])
        return {"op": op, "path": self.random.choice(paths), "from": self.random.choice(paths), "value": self._value(2)}

    def _spoil(self, value: object) -> None:
        """Replace, remove or repeat something at a random place of an object."""
        while True:
            keys = [key for key in value if key not in GROWING] if isinstance(value, dict) else range(len(value))  # type: ignore[attr-defined, arg-type]
            if not keys:
                return
            key = self.random.choice(list(keys))
            inner = value[key]  # type: ignore[index]
            if isinstance(inner, (dict, list)) and inner and self.random.random() < 0.8:
                value = inner
                continue
            if self.random.random() < 0.15:
                del value[key]  # type: ignore[attr-defined]
            elif isinstance(value, list) and self.random.random() < 0.3:
                value.append(copy.deepcopy(inner))
            else:
                value[key] = copy.deepcopy(self.random.choice(LEAVES))  # type: ignore[index]
            return

    def _reading(self) -> bytes:
        """Return a list or a watch, most of them well-formed."""
        path = self.random.choice(OBJECTS)[0].replace("@", "1")
        name = self.random.choice(["labelSelector", "fieldSelector"])
        query = {name: self.random.choice(SELECTORS)}
        if self.random.random() < 0.5:
            query.update(watch="1", timeoutSeconds="1", resourceVersion=self.random.choice(["", "0", "1", "999999999"]))
        else:
            query.update(
                limit=str(self.random.choice([0, 1, 5])), **{"continue": self.random.choice(["", "e30", "%%%"])}
            )
        accept = self.random.choice(
            [
                "*/*",
                "application/yaml",
                "application/json;as=Table;v=v1;g=meta.k8s.io",
                "application/json;as=X",
                "text/html",
            ]
        )
        return self._head("GET", f"{path}?{urlencode(query)}", [f"Accept: {accept}"], right=True)

    def _proxied(self) -> bytes:
        """Return a request through the proxy of a Service or a Pod that answers."""
        kind = self.random.choice(
            ["services/web", "services/http:web:", "pods/web", "pods/web:8080", "services/web:99999"]
        )
        path = self.random.choice(["/", "/a/../..//b", "/%2e%2e/%00", "/?a=%ff&b", "//x", "/" + "a" * 7000])
        body = self.random.randbytes(self.random.choice([0, 10, 100_000]))
        hops = [
            "Connection: close, x-a",
            "X-A: b",
            "TE: trailers",
            "Keep-Alive: 5",
            "X-Forwarded-For: \xff",
            "Expect: 100-continue",
        ]
        headers = [*self.random.sample(hops, 2), f"Content-Length: {len(body)}"]
        verb = self.random.choice(["GET", "HEAD", "POST", "DELETE", "OPTIONS"])
        return self._head(verb, f"/api/v1/namespaces/default/{kind}/proxy{path}", headers, right=True) + body

    def frames(self) -> bytes:
        """Return what follows a successful upgrade: frames of websockets and of SPDY, some of them right."""
        deflate = zlib.compressobj(zdict=DICTIONARY)
        names = {"streamtype": self.random.choice(["error", "data", "stdin", "x"]), "port": "1", "requestid": "1"}
        pairs = b"".join(struct.pack(">I", len(t)) + t.encode() for pair in names.items() for t in pair)
        block = deflate.compress(struct.pack(">I", len(names)) + pairs) + deflate.flush(zlib.Z_SYNC_FLUSH)
        if self.random.random() < 0.3:
            block = deflate.compress(bytes(30_000_000)) + deflate.flush()
        number = self.random.choice([0, 1, 2, 3, 2**31 - 1])
        opened = struct.pack(">IIB", number, 0, 0) + b"\x00" + block
        kinds = [
            lambda: struct.pack(">II", 0x80030000 | 1, len(opened)) + opened,
            lambda: struct.pack(">II", 0x80030000 | self.random.randrange(12), 8) + self.random.randbytes(8),
            lambda: struct.pack(">II", number, self.random.choice([0, 5, 0xFFFFFF, 0x01000000])) + b"hello",
            lambda: bytes([self.random.choice([0x81, 0x82, 0x88, 0x89, 0x02, 0xFF]), 0xFE, 0xFF, 0xFF]) + bytes(70_000),
            lambda: b"\x82\xff" + struct.pack(">Q", 2**62) + bytes(100),
            lambda: b"\x82\x85" + bytes(4) + bytes([self.random.randrange(256)]) + b"text",
            lambda: self.random.randbytes(100),
        ]
        return b"".join(self.random.choice(kinds)() for _ in range(self.random.randint(1, 6)))

    def _head(self, verb: str, path: str, headers: list[str], right: bool = False) -> bytes:
        lines = [f"{verb} {path} HTTP/1.1", "Host: x", *headers]
        if not any(header.startswith("Connection:") for header in headers):
            lines.append("Connection: close")
        token = self.random.choice([self.token] * 8 + ["wrong", "\xff", "a" * 5000])
        if right:
            lines.append(f"Authorization: Bearer {self.token}")
        elif self.random.random() < 0.9:
            lines.append(f"Authorization: {self.random.choice(['Bearer', 'Bearer', 'Bearer', 'Basic', ''])} {token}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogatepass")

    def _path(self) -> str:
        group = self.random.choice(GROUPS)
        parts = ["", "apis", group, self.random.choice(["v1", "v1beta1", "v0"])] if group else ["", "api", "v1"]
        if self.random.random() < 0.7:
            parts += ["namespaces", self.random.choice(["default", "fuzz", "kube-system", *WORDS])]
        parts.append(self.random.choice(["pods", "configmaps", "services", "nodes", "jobs", "deployments", *WORDS]))
        parts += self.random.choices(["x", "web", *WORDS], k=self.random.randint(0, 3))
        query = "&".join(self.random.choices(QUERIES, k=self.random.randint(0, 2))).replace(" ", "+")
        return "/".join(parts).replace(" ", "%20") + (f"?{query}" if query else "")

    def _body(self) -> bytes:
        kind = self.random.randrange(8)
        if kind == 0:
            return self.random.randbytes(self.random.randint(0, 400))
        if kind == 1:
            return b"k8s\x00" + self.random.randbytes(self.random.randint(0, 200))
        if kind == 2:
            depth = self.random.choice([50, 5000, 200_000])
            return b'{"a":' * depth if self.random.random() < 0.5 else b"[" * depth
        if kind == 3:
            return b"&a [*a, *a, *a, *a]\n" * self.random.randint(1, 50)
        return self._mutated_object()

    def _mutated_object(self) -> bytes:
        kind, version = self.random.choice(
            [("Pod", "v1"), ("ConfigMap", "v1"), ("Service", "v1"), ("Job", "batch/v1"), ("Deployment", "apps/v1")]
        )
        names = ["a", "b-" + str(self.random.randrange(50)), "A_B", "", None, 7, "x" * 260, "../x"]
        obj = {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": self.random.choice(names), "labels": self._value(2), "annotations": self._value(1)},
            self.random.choice(["spec", "data", "status", "nosuch"]): self._value(4),
        }
        text = json.dumps(obj)
        if self.random.random() < 0.3:
            cut = self.random.randrange(len(text))
            text = text[:cut] + self.random.choice(["", "\x00", "\ud800", "}", '"', "1e999"]) + text[cut:]
        return text.encode("utf-8", "surrogatepass")

    def _value(self, depth: int) -> object:
        keys = ["containers", "replicas", "selector", "template", "ports", "name", "image", "matchLabels", "x", ""]
        leaf = [None, True, -1, 2**70, 1.5, "", "1Gi", "x" * 400, [], {}, "\u0000", "\U0001f4a5"]
        choice = self.random.random()
        if depth == 0 or choice < 0.4:
            return self.random.choice(leaf)
        if choice < 0.6:
            return [self._value(depth - 1) for _ in range(self.random.randint(0, 3))]
        return {self.random.choice(keys): self._value(depth - 1) for _ in range(self.random.randint(0, 3))}

    def _upgrade(self) -> bytes:
        target = self.random.choice(
            [
                "exec?command=cat&stdin=1&stdout=1",
                "exec?command=ls&stdout=1",
                "attach?stdin=1",
                "portforward?ports=1",
                "proxy/",
            ]
        )
        path = f"/api/v1/namespaces/default/pods/{self.random.choice(['web', 'target', '..'])}/{target}"
        upgrade, protocol = self.random.choice(
            [
                ("websocket", "Sec-WebSocket-Protocol: v5.channel.k8s.io"),
                ("websocket", "Sec-WebSocket-Protocol: nonsense"),
                ("SPDY/3.1", "X-Stream-Protocol-Version: v4.channel.k8s.io"),
                ("SPDY/3.1", ""),
                ("nonsense", ""),
            ]
        )
        key = base64.b64encode(self.random.randbytes(self.random.choice([16, 3]))).decode()
        headers = [
            f"Upgrade: {upgrade}",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        ]
        verb, right = self.random.choice(["GET", "POST"]), self.random.random() < 0.8
        head = self._head(verb, path, [*headers, *([protocol] if protocol else [])], right)
        return head + self.random.randbytes(self.random.choice([0, 0, 0, 300]))

    def _broken_http(self) -> bytes:
        junk = "".join(self.random.choices(string.printable, k=self.random.randint(1, 200))).encode()
        head = self._head("POST", "/api/v1/namespaces/default/configmaps", ["Transfer-Encoding: chunked"])
        return self.random.choice(
            [
                junk,
                self.random.randbytes(200),
                head + b"ffffffff\r\n{",
                head + b"-1\r\n",
                b"GET / HTTP/9.9\r\n\r\n",
                b"GET " + b"/a" * 40_000 + b" HTTP/1.1\r\n\r\n",
                b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
                self._head("POST", "/api/v1/namespaces", ["Content-Length: 99999999"]) + b"{",
                self._head("POST", "/api/v1/namespaces", ["Content-Length: -1"]),
            ]
        )

    async def send(self, host: str, port: int, context: ssl.SSLContext, request: bytes) -> None:
        """Send one request, sometimes slowly, only in part or without TLS, and judge the answer."""
        plain = self.random.random() < 0.02
        reader, writer = await asyncio.open_connection(host, port, ssl=None if plain else context)
        manner = self.random.choices(["whole", "cut", "half closed", "slow"], [86, 8, 4, 2])[0]
        try:
            await self._write(writer, request, manner)
            if self.random.random() < 0.2:
                writer.transport.abort()
                self.codes[0] += 1
                return
            line = await asyncio.wait_for(reader.readline(), 0.1 if manner == "cut" else 5)
            self._judge(line, request)
            if b" 101 " in line:
                await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 2)
                writer.write(self.frames())
                await asyncio.wait_for(reader.read(), 0.1)
        except (asyncio.TimeoutError, asyncio.IncompleteReadError, ConnectionError, ssl.SSLError, ValueError):
            self.codes[0] += 1
        finally:
            writer.transport.abort()

    async def _write(self, writer: asyncio.StreamWriter, request: bytes, manner: str) -> None:
        if manner == "slow":
            for start in range(0, min(len(request), 60), 3):
                writer.write(request[start : start + 3])
                await asyncio.sleep(0.005)
            writer.write(request[60:])
            return
        part = self.random.randrange(len(request) + 1) if manner in ("cut", "half closed") else len(request)
        writer.write(request[:part])
        if manner == "half closed":
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").shutdown(socket.SHUT_WR)

    def _judge(self, line: bytes, request: bytes) -> None:
        words = line.split()
        code = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        self.codes[code] += 1
        documented = code == 500 and DOCUMENTED_500.match(request)
        if code >= 500 and code not in ALLOWED_5XX and not documented:
            self.wrong.append(f"{line!r} to {request[:600]!r}")
            print(f"wrong: {self.wrong[-1]}", file=sys.stderr)  # now: a long run may be ended before its end


@dataclass
class Witness:
    """What must be after the requests as it was before them.

    Args:
        cluster: A running cluster.
    """

    cluster: EmbeddedCluster

    def __post_init__(self) -> None:
        """Look at the cluster for the first time."""
        self.pids = self._pids()
        self.start: dict[str, tuple[float, int]] = {}

    def _pids(self) -> dict[str, int]:
        return {p["name"]: p["pid"] for p in self.cluster.status()["processes"]}

    def sizes(self) -> dict[str, tuple[float, int]]:
        """Return resident memory in MiB and open files of every process."""
        processes = {name: psutil.Process(pid) for name, pid in self.pids.items()}
        return {n: (round(p.memory_info().rss / 2**20, 1), p.num_fds()) for n, p in processes.items()}

    def warm(self) -> None:
        """Remember what the processes need once they have seen every kind of request."""
        self.start = self.sizes()

    def verify(self) -> dict[str, object]:
        """Compare; the pods and watches of the last requests get time to end.

        Raises:
            AssertionError: A process was restarted, logged a defect, has grown or holds files open, or a file appeared.
        """
        now = self._pids()
        assert self.pids == now, f"processes were restarted: {self.pids} {now}"
        for log in self.cluster.home.glob("logs/*.log"):
            text = log.read_text(errors="replace")
            found = re.search(r"^.*(Traceback|never retrieved|never awaited)", text, re.MULTILINE)
            assert not found, f"{log}: {text[found.start() : found.start() + 3000]}"
        folders = {*self.cluster.home.parents, Path.cwd(), Path.home(), Path("/tmp"), Path("/etc")}
        strays = [folder / CANARY for folder in folders if os.path.lexists(folder / CANARY)]
        assert not strays, f"files beside the cluster's folder: {strays}"
        eventually(lambda: self.sizes()["control-plane"][1] < self.start["control-plane"][1] + 50, 60, 1)
        end = self.sizes()
        for name, (memory, _) in end.items():
            before = self.start[name][0]
            assert memory < before * 1.15 + 10, f"{name} grew from {before} to {memory} MiB"
        return {"memory_mb_and_files": {name: [*self.start[name], *end[name]] for name in end}}


async def fuzz(cluster: EmbeddedCluster, requests: int, seed: int) -> dict[str, object]:
    """Send so many requests to the API server, one in ten to a kubelet.

    Args:
        cluster: A running cluster with a Pod `target`.
        requests: How many.
        seed: Of every choice.

    Returns:
        Counts of status codes, and per process memory in MiB and open files, after a fifth of the requests and after
        all.

    Raises:
        AssertionError: A wrong answer, a crash, a defect, a leak, or a file beside the cluster's.
    """
    config = json.loads((cluster.home / "cluster.json").read_text())["cluster"]
    token = json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json").stdout)["users"][0]["user"]["token"]
    fuzzer = Fuzzer(random.Random(seed), token)
    context = ssl.create_default_context(cafile=str(cluster.home / "pki" / "ca.crt"))
    context.check_hostname = False
    api = (config["host"], config["port"])
    kubelet = (f"127.{config['block']}.0.1", 10250)
    witness = Witness(cluster)

    async def client(numbers: Iterator[int]) -> None:
        for number in numbers:
            await fuzzer.send(*(kubelet if number % 10 == 0 else api), context, fuzzer.request())

    async def send(count: int) -> None:
        numbers = iter(range(count))
        await asyncio.gather(*[client(numbers) for _ in range(CLIENTS)])

    await send(requests // 5)
    witness.warm()
    await send(requests - requests // 5)
    assert not fuzzer.wrong, f"{len(fuzzer.wrong)} wrong answers, such as {fuzzer.wrong[:3]}"
    seen = await asyncio.to_thread(witness.verify)
    return {"seed": seed, "requests": requests, "codes": dict(sorted(fuzzer.codes.items())), **seen}


def start_target(cluster: EmbeddedCluster) -> None:
    """Run the Pod that the requests for streams aim at."""
    sleeps = {"name": "target", "image": "busybox", "stdin": True, "command": ["sleep", "3600"]}
    serves = {
        "name": "web",
        "image": "gcr.io/google-samples/kubernetes-bootcamp:v1",
        "ports": [{"containerPort": 8080}],
    }
    for container in (sleeps, serves):
        name, spec = container["name"], {"terminationGracePeriodSeconds": 0, "containers": [container]}
        spec["priorityClassName"] = "system-node-critical"  # no hostile Pod may preempt it
        meta = {"name": name, "labels": {"app": name}}
        cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    ports = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": ports})
    cluster.apply(*PREPARED)
    cluster.kubectl("wait", "--for=condition=Ready", "pod/target", "pod/web", "--timeout=60s")


def main() -> int:
    """Fuzz a cluster of its own and print what was seen."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it tells of every connection that the server closed
    parser = argparse.ArgumentParser(description="Hostile requests.")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    with throwaway_cluster("fuzz", "--nodes", "1") as cluster:
        start_target(cluster)
        try:
            print(json.dumps(asyncio.run(fuzz(cluster, arguments.requests, arguments.seed)), indent=1))
        except AssertionError as error:
            print(json.dumps({"seed": arguments.seed, "broken": str(error)}, indent=1))
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
