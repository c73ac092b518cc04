"""What the API server does not answer itself: logs, exec, attach, port-forward, proxies and metrics.

Stands for `pkg/registry/core/{pod,node,service}/rest`. Each request is passed on to the kubelet of the Pod's node,
or to the Pod itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import aiohttp
from aiohttp import web

from kitlib.cluster.apiserver import errors
from kitlib.cluster.apiserver.streaming import metrics, proxying
from kitlib.cluster.apiserver.streaming.kubelets import dial_error, kubelet_of_pod, relay, session
from kitlib.cluster.apiserver.streaming.upgrade import Backend, forward_upgrade, is_upgrade
from kitlib.cluster.client import ApiError
from kitlib.cluster.objects import Object

if TYPE_CHECKING:
    from kitlib.cluster.apiserver.server import APIServer

_LOG_PARAMETERS = (
    "follow",
    "previous",
    "timestamps",
    "tailLines",
    "sinceSeconds",
    "sinceTime",
    "limitBytes",
    "stream",
)
_STREAM_PARAMETERS = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}


async def handle(request: web.Request, server: APIServer, info: Any) -> web.StreamResponse:
    """Answer a request for a streaming subresource or for `metrics.k8s.io`.

    Args:
        request: The client's request, authenticated.
        server: The API server.
        info: What the path means (`RequestInfo`).

    Returns:
        The answer, sent to its end where it is a stream.

    Raises:
        ApiError: The request is refused; nothing has been sent.
    """
    client = server.client("system:apiserver")
    if info.group == "metrics.k8s.io":
        return await metrics.handle(request, client, server.config, info)
    if info.subresource == "proxy":
        return await proxying.handle(request, client, server.config, info)
    pod = await client.get("pods", info.name, info.namespace)
    if info.subresource == "log":
        return await _log(request, server, pod)
    return await _stream(request, server, pod, info.subresource)


def container_name(pod: Object, wanted: str) -> str:
    """Return the container that a request means.

    Raises:
        ApiError: There is no such container, or several and none is named.
    """
    spec, name = pod["spec"], pod["metadata"]["name"]
    groups = ("containers", "initContainers", "ephemeralContainers")
    names = [[container["name"] for container in spec.get(group) or ()] for group in groups]
    if wanted:
        if not any(wanted in group for group in names):
            raise errors.bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(names[0]) == 1:
        return str(names[0][0])
    message = f"a container name must be specified for pod {name}, choose one of: [{' '.join(names[0])}]"
    if names[1]:
        message += f" or one of the init containers: [{' '.join(names[1])}]"
    raise errors.bad_request(message)


def _check_log_options(query: Mapping[str, str], name: str) -> None:
    causes = []
    for field, least, words in (
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ):
        text = query.get(field, "")
        if text and not re.fullmatch(r"[-+]?[0-9]{1,18}", text):
            raise errors.bad_request(f'strconv.ParseInt: parsing "{text[:64]}": invalid syntax')
        if text and int(text) < least:
            message = f"Invalid value: {int(text)}: {words}"
            causes.append({"reason": "FieldValueInvalid", "message": message, "field": field})
    if query.get("sinceTime") and query.get("sinceSeconds"):
        message = "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"
        causes.append({"reason": "FieldValueForbidden", "message": message, "field": ""})
    if causes:
        lines = [f"{cause['field']}: {cause['message']}".removeprefix(": ") for cause in causes]
        text = lines[0] if len(lines) == 1 else "[" + ", ".join(lines) + "]"
        details = {"name": name, "kind": "PodLogOptions", "causes": causes}
        message = f'PodLogOptions "{name}" is invalid: {text}'
        raise ApiError(errors.status(422, "Invalid", message, details))


async def _log(request: web.Request, server: APIServer, pod: Object) -> web.StreamResponse:
    meta = pod["metadata"]
    _check_log_options(request.query, meta["name"])
    container = container_name(pod, request.query.get("container", ""))
    if not pod["spec"].get("nodeName"):
        return web.Response(content_type="text/plain")
    backend = await kubelet_of_pod(server.client("system:apiserver"), pod, server.config)
    path = f"/containerLogs/{meta['namespace']}/{meta['name']}/{container}"
    parameters = {name: request.query[name] for name in _LOG_PARAMETERS if request.query.get(name)}
    url = f"{backend.base}{path}?{urlencode(parameters)}".rstrip("?")
    async with session() as http:
        try:
            answer = await http.get(url, ssl=backend.ssl or True, headers={"Authorization": backend.authorization})
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable("Get", url, error, backend) from None
        async with answer:
            if answer.status != 200:
                raise _refused(answer.status, (await answer.text()).strip())
            return await relay(request, answer, web.StreamResponse(headers={"Content-Type": "text/plain"}))


def _unreachable(verb: str, url: str, error: BaseException, backend: Backend) -> ApiError:
    message = f'{verb} "{url}": {dial_error(error, backend)}'
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return ApiError({**status, "message": message, "code": 500})


def _refused(code: int, message: str) -> ApiError:
    """Return the API server's form of a kubelet's refusal."""
    if code == 400:
        return errors.bad_request(message)
    if code == 404:
        return ApiError(errors.status(404, "NotFound", message))
    return errors.internal(message)


async def _stream(request: web.Request, server: APIServer, pod: Object, verb: str) -> web.StreamResponse:
    meta = pod["metadata"]
    if not is_upgrade(request):
        raise errors.bad_request("Upgrade request required")
    if not pod["spec"].get("nodeName"):
        raise errors.bad_request(f"pod {meta['name']} does not have a host assigned")
    where = f"{quote(meta['namespace'])}/{quote(meta['name'])}"
    if verb == "portforward":
        path, query = f"/portForward/{where}", [("port", port) for port in request.query.getall("ports", [])]
    else:
        path = f"/{verb}/{where}/{quote(container_name(pod, request.query.get('container', '')))}"
        query = _stream_query(request)
    backend = await kubelet_of_pod(server.client("system:apiserver"), pod, server.config)
    try:
        return await forward_upgrade(request, backend, f"{path}?{urlencode(query)}")
    except OSError as error:
        raise errors.internal(f"error dialing backend: {dial_error(error, backend)}") from None


def _stream_query(request: web.Request) -> list[tuple[str, str]]:
    """Translate the API's query parameters to the kubelet's; output is wanted unless it is refused."""
    query = [("command", word) for word in request.query.getall("command", [])]
    for name, kubelet_name in _STREAM_PARAMETERS.items():
        default = "true" if name in ("stdout", "stderr") else "false"
        if request.query.get(name, default).lower() in ("true", "1"):
            query.append((kubelet_name, "1"))
    return query
