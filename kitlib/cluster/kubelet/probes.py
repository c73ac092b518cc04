"""Probes: startup, liveness and readiness, by exec, HTTP, TCP or gRPC.

Stands for the kubelet's prober, whose loop begins with the Pod: a container is first probed a period after its start.
Only readiness is asked sooner, so that a Pod need not wait for it. Left out: the `grpc` health protocol, of which only
the connection is tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import aiohttp

from kitlib.cluster.objects import Object

Exec = Callable[[list[str], float], Awaitable[tuple[int, str]]]
"""Runs a command in the container within some seconds: exit code and output."""

BODY_LIMIT = 10 << 10
_EARLY = (0.05, 0.1, 0.2, 0.4, 0.25)
"""Pauses between the first looks at readiness; together the second within which a real kubelet sees a start."""


@dataclass(frozen=True)
class Target:
    """The container that a probe looks at.

    Attributes:
        container: Its spec.
        ip: Address of the Pod.
        port_map: Ports that are mapped.
        exec: Runs commands in it.
    """

    container: Object
    ip: str
    port_map: Mapping[int, int]
    exec: Exec

    def port(self, port: int | str) -> int:
        """Return the local port of a number or of a named port."""
        if isinstance(port, str) and not port.isdigit():
            named = {p.get("name"): p["containerPort"] for p in self.container.get("ports") or []}
            port = named.get(port, 0)
        return self.port_map.get(int(port), int(port))


async def probe_once(probe: Object, target: Target) -> tuple[bool, str]:
    """Probe a container once.

    Args:
        probe: The probe's spec.
        target: The container.

    Returns:
        Whether it succeeded, and the output for the event when it did not.
    """
    timeout = float(probe.get("timeoutSeconds") or 1)
    if "exec" in probe:
        return await _exec(probe["exec"]["command"], target, timeout)
    if "httpGet" in probe:
        return await http_get(probe["httpGet"], target, timeout)
    handler = probe.get("tcpSocket") or probe.get("grpc") or {}
    return await _connect(handler.get("host") or target.ip, target.port(handler["port"]), timeout)


async def _exec(command: list[str], target: Target, timeout: float) -> tuple[bool, str]:
    try:
        code, output = await target.exec(command, timeout)
    except asyncio.TimeoutError:
        return False, f"command timed out: {' '.join(command)!r} timed out after {timeout:g}s"
    except Exception as error:
        return False, str(error)
    return code == 0, output


async def http_get(handler: Object, target: Target, timeout: float) -> tuple[bool, str]:
    """Get a URL of the container; any status from 200 to 399 is success."""
    scheme = (handler.get("scheme") or "HTTP").lower()
    path = handler.get("path") or "/"
    host, port = handler.get("host") or target.ip, target.port(handler["port"])
    url = f"{scheme}://{host}:{port}{path if path.startswith('/') else '/' + path}"
    headers = {"User-Agent": "kube-probe/1.36", "Accept": "*/*", "Connection": "close"}
    headers.update({item["name"]: item["value"] for item in handler.get("httpHeaders") or []})
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout)) as session:
            async with session.get(url, headers=headers, ssl=False, allow_redirects=False) as response:
                await response.content.read(BODY_LIMIT)
                good = 200 <= response.status < 400
                return good, "" if good else f"HTTP probe failed with statuscode: {response.status}"
    except asyncio.TimeoutError:
        return False, f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
    except aiohttp.ClientConnectorError:
        return False, f'Get "{url}": dial tcp {host}:{port}: connect: connection refused'
    except aiohttp.ClientError:
        return False, f'Get "{url}": EOF'


async def _connect(host: str, port: int, timeout: float) -> tuple[bool, str]:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), timeout)
    except asyncio.TimeoutError:
        return False, f"dial tcp {host}:{port}: i/o timeout"
    except OSError:
        return False, f"dial tcp {host}:{port}: connect: connection refused"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True, ""


async def _come_up(probe: Object, target: Target) -> None:
    """Wait until a container answers for the first time, at most a second."""
    for pause in _EARLY:
        if (await probe_once(probe, target))[0]:
            return
        await asyncio.sleep(pause)


async def watch(
    kind: str,
    probe: Object,
    target: Target,
    on_change: Callable[[str, bool], None],
    on_failure: Callable[[str, str], None],
) -> None:
    """Probe a container again and again until cancelled; a startup probe ends with its first success.

    Args:
        kind: `startup`, `liveness` or `readiness`.
        probe: The probe's spec.
        target: The container.
        on_change: Called with kind and result when a threshold is passed.
        on_failure: Called with kind and output of each failed probe.
    """
    period = float(probe.get("periodSeconds") or 10)
    thresholds = {True: int(probe.get("successThreshold") or 1), False: int(probe.get("failureThreshold") or 3)}
    state: bool | None = None
    last, count = None, 0
    delay = float(probe.get("initialDelaySeconds") or 0)
    if kind == "readiness" and not delay:
        await _come_up(probe, target)
    else:
        await asyncio.sleep(period * max(1, math.ceil(delay / period)))
    while True:
        good, output = await probe_once(probe, target)
        if not good:
            on_failure(kind, output)
        count = count + 1 if good == last else 1
        last = good
        if count >= thresholds[good] and (good != state or not good):
            state = good
            on_change(kind, good)
            if kind == "startup" and good:
                return
        await asyncio.sleep(period)
