"""Measures a cluster on the work that the kit does: the numbers of the README's table, as JSON.

`measure_api` works on any cluster that a kubeconfig names, so that two clusters can be compared in pairs.
`measure_embedded` adds what only a cluster of our own can be asked: start-up, memory, idle CPU; `measure_scale` what
a Pod costs where there are many.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

import aiohttp
import psutil

from kitlib.cluster import local
from kitlib.connect import read_kubeconfigs, single_context
from kitlib.errors import KitError
from kitlib.kubectl import find_kubectl
from kitlib.transport import connect_client

Numbers = dict[str, float]
OBJECTS = 500
WATCHERS = 20
V1, V2 = "gcr.io/google-samples/kubernetes-bootcamp:v1", "jocatalin/kubernetes-bootcamp:v2"
NAMESPACE = "kit-bench"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
CONFIGMAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"

Access = tuple[str, ssl.SSLContext, dict[str, str]]
"""Server, TLS context and headers."""


class Api:
    """Plain HTTPS requests to one API server.

    Args:
        session: Session with credentials and TLS context.
        server: Base URL.
    """

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        """Keep the session and the base URL."""
        self.session = session
        self.server = server

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """Return the decoded answer of one request.

        Raises:
            KitError: The server refused it.
        """
        async with self.session.request(method, self.server + path, **options) as response:
            body = await response.read()
            if response.status >= 300:
                raise KitError(f"{method} {path}: {response.status} {body[:200]!r}")
            return json.loads(body)


def _credentials(kubeconfig: str) -> Access:
    """Return what to connect with for the current context, as the official client reads them."""
    config = read_kubeconfigs(kubeconfig)
    settings = connect_client(single_context(config, str(config["current-context"]))).configuration
    context = ssl.create_default_context(cafile=settings.ssl_ca_cert)
    if not settings.verify_ssl:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, settings.key_file)
    bearer = settings.auth_settings().get("BearerToken")
    return settings.host.rstrip("/"), context, {"Authorization": bearer["value"]} if bearer else {}


def measure_api(kubeconfig: str, pods: int = 20) -> Numbers:
    """Return one run of the API and workload measurements, made in a namespace of their own that goes afterwards.

    Args:
        kubeconfig: Path of the kubeconfig; its current context is measured.
        pods: Replicas of the large Deployment.

    Returns:
        Rates in requests per second, times in seconds or milliseconds as the names say.

    Raises:
        KitError: The cluster cannot be reached, refuses, or is not done within three minutes.
    """
    access = _credentials(kubeconfig)
    _kubectl(kubeconfig, "create", "namespace", NAMESPACE)
    try:
        alone = _kubectl_ms(kubeconfig, "version", "--client")
        asking = _kubectl_ms(kubeconfig, "get", "pods")
        rates = asyncio.run(_measure_api(kubeconfig, access, pods))
        return {"kubectl_alone_ms": alone, "kubectl_get_pods_ms": asking, **rates}
    except (aiohttp.ClientError, asyncio.TimeoutError) as error:
        raise KitError(f"The cluster stopped answering: {error}") from error
    finally:
        _kubectl(kubeconfig, "delete", "namespace", NAMESPACE, "--ignore-not-found")


def _kubectl(kubeconfig: str, *arguments: str) -> None:
    options = [f"--kubeconfig={kubeconfig}", f"--namespace={NAMESPACE}", "--request-timeout=60s"]
    done = subprocess.run([find_kubectl(), *options, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise KitError(f"kubectl {' '.join(arguments)}: {done.stderr.strip().splitlines()[-1]}")


def _kubectl_ms(kubeconfig: str, *arguments: str) -> float:
    """Return the median time of ten runs of a kubectl command, in ms."""
    times = []
    for _ in range(11):
        begin = time.perf_counter()
        _kubectl(kubeconfig, *arguments)
        times.append(time.perf_counter() - begin)
    return round(statistics.median(times[1:]) * 1e3, 1)


@contextlib.asynccontextmanager
async def _connected(access: Access) -> AsyncIterator[Api]:
    server, context, headers = access
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
        yield Api(session, server)


async def _measure_api(kubeconfig: str, access: Access, pods: int) -> Numbers:
    async with _connected(access) as api:
        return await _requests(api) | await _workloads(api, kubeconfig, pods)


async def _requests(api: Api) -> Numbers:
    numbers: Numbers = {}
    names = []
    for clients in (1, 16):
        mine = [f"bench-{clients}-{number}" for number in range(OBJECTS)]
        names += mine
        create: list[Callable[[], Awaitable[Any]]] = [lambda n=name: _create(api, n) for name in mine]  # type: ignore[misc]
        get = [lambda n=name: api.call("GET", f"{CONFIGMAPS}/{n}") for name in mine]
        numbers[f"create_per_s_{clients}_clients"] = round(OBJECTS / await _all(create, clients))
        numbers[f"get_per_s_{clients}_clients"] = round(OBJECTS / await _all(get, clients))
    numbers["list_1000_ms"] = await _list_time(api, f"{CONFIGMAPS}?labelSelector=bench%3Dy", 2 * OBJECTS)
    numbers["watch_100_patches_20_watchers_s"] = await _watch_time(api, names[:100])
    delete = [lambda n=name: api.call("DELETE", f"{CONFIGMAPS}/{n}") for name in names]
    numbers["delete_per_s_16_clients"] = round(len(names) / await _all(delete, 16))
    return numbers


async def _create(api: Api, name: str) -> Any:
    metadata = {"name": name, "labels": {"bench": "y"}}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"k": "v" * 200}}
    return await api.call("POST", CONFIGMAPS, json=body)


async def _all(calls: Iterable[Callable[[], Awaitable[Any]]], clients: int) -> float:
    """Make all calls with so many clients at once and return the seconds it took."""
    queue = iter(list(calls))

    async def client() -> None:
        for call in queue:
            await call()

    begin = time.perf_counter()
    await asyncio.gather(*[client() for _ in range(clients)])
    return time.perf_counter() - begin


async def _list_time(api: Api, path: str, count: int) -> float:
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        listed = await api.call("GET", path)
        times.append(time.perf_counter() - begin)
        if len(listed["items"]) != count:
            raise KitError(f"listed {len(listed['items'])} of {count}")
    return round(statistics.median(times) * 1e3, 1)


async def _watch_time(api: Api, names: list[str]) -> float:
    """Return the seconds until every watcher has seen every patch."""
    listed = await api.call("GET", f"{CONFIGMAPS}?labelSelector=bench%3Dy")
    version = listed["metadata"]["resourceVersion"]
    path = f"{CONFIGMAPS}?watch=1&labelSelector=bench%3Dy&resourceVersion={version}"
    started = asyncio.Semaphore(0)

    async def watcher() -> None:
        async with api.session.get(api.server + path) as response:
            started.release()
            for _ in names:
                await response.content.readline()

    watchers = [asyncio.ensure_future(watcher()) for _ in range(WATCHERS)]
    for _ in watchers:
        await started.acquire()
    begin = time.perf_counter()
    headers = {"Content-Type": "application/merge-patch+json"}
    for number, name in enumerate(names):
        body = json.dumps({"data": {"k": str(number)}})
        await api.call("PATCH", f"{CONFIGMAPS}/{name}", data=body, headers=headers)
    await asyncio.wait_for(asyncio.gather(*watchers), 60)
    return round(time.perf_counter() - begin, 3)


async def _workloads(api: Api, kubeconfig: str, pods: int) -> Numbers:
    path = f"{DEPLOYMENTS}/bench"

    async def ready(count: int) -> bool:
        deployment = await api.call("GET", path)
        status = deployment.get("status", {})
        seen = status.get("observedGeneration") == deployment["metadata"]["generation"]
        return seen and all(status.get(f, 0) == count for f in ("readyReplicas", "replicas", "updatedReplicas"))

    async def gone() -> bool:
        listed = await api.call("GET", f"{PODS}?labelSelector=app%3Dbench")
        return not listed["items"]

    numbers: Numbers = {}
    steps: list[tuple[str, list[str], Callable[[], Awaitable[bool]]]] = [
        ("deploy_1_ready_s", ["create", "deployment", "bench", f"--image={V1}"], lambda: ready(1)),
        ("scale_1_to_4_ready_s", ["scale", "deploy/bench", "--replicas=4"], lambda: ready(4)),
        (f"scale_4_to_{pods}_ready_s", ["scale", "deploy/bench", f"--replicas={pods}"], lambda: ready(pods)),
        (f"rollout_{pods}_s", ["set", "image", "deploy/bench", f"kubernetes-bootcamp={V2}"], lambda: ready(pods)),
        (f"scale_{pods}_to_0_s", ["scale", "deploy/bench", "--replicas=0"], gone),
    ]
    for name, command, done in steps:
        await asyncio.to_thread(_kubectl, kubeconfig, *command)
        numbers[name] = await _until(done)
    return numbers


async def _until(done: Callable[[], Awaitable[bool]], limit: float = 180) -> float:
    begin = time.perf_counter()
    while time.perf_counter() - begin < limit:
        if await done():
            return round(time.perf_counter() - begin, 3)
        await asyncio.sleep(0.02)
    raise KitError(f"not done within {limit:.0f} s")


def measure_embedded(repeats: int = 3, idle_seconds: float = 20) -> dict[str, Any]:
    """Start embedded clusters in folders of their own and return the median and range of every number.

    Args:
        repeats: Fresh clusters; each number is the median over them.
        idle_seconds: How long to look at the idle cluster.

    Returns:
        `{name: {"median": x, "min": a, "max": b}}` and the machine's cores and memory.
    """
    runs = [_one_cluster(idle_seconds) for _ in range(repeats)]
    summary = {
        name: {"median": statistics.median(run[name] for run in runs), "min": low, "max": high}
        for name in runs[0]
        for low, high in [(min(run[name] for run in runs), max(run[name] for run in runs))]
    }
    machine = {"cores": os.cpu_count(), "memory_gib": round(psutil.virtual_memory().total / 2**30)}
    return {"machine": machine, "repeats": repeats, **summary}


@contextlib.contextmanager
def _fresh_cluster(*options: str) -> Iterator[None]:
    """Run a cluster in a folder of its own, which is the KIT_HOME meanwhile."""
    kept = os.environ.get("KIT_HOME")
    with tempfile.TemporaryDirectory(prefix="kit-bench-") as home:
        os.environ["KIT_HOME"] = home
        try:
            _kit_up(*options)
            yield
        finally:
            local.down(purge=True)
            os.environ.pop("KIT_HOME")
            if kept is not None:
                os.environ["KIT_HOME"] = kept


def _one_cluster(idle_seconds: float) -> Numbers:
    begin = time.perf_counter()
    with _fresh_cluster("--nodes", "3"):
        numbers = {"kit_up_3_nodes_ready_s": round(time.perf_counter() - begin, 3)}
        numbers["memory_after_start_mb"] = local.status()["memory_mb"]
        numbers["idle_cpu_percent_of_a_core"] = _idle_cpu(idle_seconds)
        numbers |= measure_api(str(local.kubeconfig_path()))
        state = local.status()
        numbers["memory_after_bench_mb"] = state["memory_mb"]
        numbers["memory_after_bench_rss_mb"] = _rss(state)
        return numbers


def _kit_up(*options: str) -> None:
    argv = [sys.executable, "-m", "kitlib", "up", *options]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise KitError(done.stderr.strip().removeprefix("kit: "))


def measure_scale(pods: Sequence[int] = (100, 300, 1000), hollow: int = 50) -> list[Numbers]:
    """Return what so many Pods on hollow nodes, which run nothing, cost a fresh embedded cluster.

    Args:
        pods: Replicas of one Deployment after another, each created and deleted again.
        hollow: Nodes.

    Returns:
        Per entry of `pods`: their number, seconds until all are Ready and until they are gone, milliseconds to list
        them once nothing is written any more, milliseconds of the control plane's CPU per Pod for all of it, and its
        resident memory afterwards in MiB.
    """
    with _fresh_cluster("--nodes", "1", "--hollow", str(hollow)):
        processes = {process["name"]: process["pid"] for process in local.status()["processes"]}
        control_plane, kubeconfig = psutil.Process(processes["control-plane"]), str(local.kubeconfig_path())
        _kubectl(kubeconfig, "create", "namespace", NAMESPACE)
        _kubectl(kubeconfig, "cordon", "node-1")
        return [asyncio.run(_scaled(_credentials(kubeconfig), control_plane, count)) for count in pods]


async def _scaled(access: Access, control_plane: psutil.Process, count: int) -> Numbers:
    labels, path = {"app": "bench"}, f"{DEPLOYMENTS}/bench"
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "busybox"}]}}
    spec = {"replicas": count, "selector": {"matchLabels": labels}, "template": template}
    async with _connected(access) as api:

        async def ready() -> bool:
            return bool((await api.call("GET", path))["status"].get("readyReplicas") == count)

        async def gone() -> bool:
            return not (await api.call("GET", f"{PODS}?limit=1"))["items"]

        before = sum(control_plane.cpu_times()[:2])
        await api.call("POST", DEPLOYMENTS, json={"metadata": {"name": "bench"}, "spec": spec})
        numbers: Numbers = {"pods": count, "ready_s": await _until(ready)}
        await _until(lambda: _idle(control_plane))
        numbers["list_ms"] = await _list_time(api, PODS, count)
        await api.call("DELETE", path)
        numbers["gone_s"] = await _until(gone)
    spent = sum(control_plane.cpu_times()[:2]) - before
    numbers["cpu_ms_per_pod"] = round(1e3 * spent / count, 2)
    return numbers | {"memory_rss_mb": round(control_plane.memory_info().rss / 2**20, 1)}


async def _idle(control_plane: psutil.Process) -> bool:
    """Tell whether the control plane has written what it had to: Events follow the Pods that they are about."""
    before = sum(control_plane.cpu_times()[:2])
    await asyncio.sleep(0.25)
    return sum(control_plane.cpu_times()[:2]) - before < 0.02


def _rss(state: dict[str, Any]) -> float:
    return round(sum(psutil.Process(p["pid"]).memory_info().rss for p in state["processes"]) / 2**20, 1)


def _idle_cpu(seconds: float) -> float:
    """Return the CPU time that the idle cluster's processes use, in percent of one core."""
    time.sleep(3)  # let the start-up settle
    processes = [psutil.Process(process["pid"]) for process in local.status()["processes"]]
    before = [sum(process.cpu_times()[:2]) for process in processes]
    time.sleep(seconds)
    after = [sum(process.cpu_times()[:2]) for process in processes]
    return round(100 * (sum(after) - sum(before)) / seconds, 2)
