from __future__ import annotations

from typing import Any

from lab import Lab, deployment


def service(**spec: Any) -> dict[str, Any]:
    ports = [{"port": 80, "targetPort": 8080}]
    metadata = {"name": "web", "namespace": "default", "labels": {"team": "a"}}
    spec = {"selector": {"app": "web"}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


async def _slice(lab: Lab, number: int) -> dict[str, Any] | None:
    slices = await lab.list("endpointslices.discovery.k8s.io", selector="kubernetes.io/service-name=web")
    found = slices[0] if len(slices) == 1 else {}
    return found if len(found.get("endpoints") or ()) == number else None


async def test_endpoints_follow_the_ready_pods_of_a_service(lab: Lab) -> None:
    lab.start()
    await lab.client.create("services", service(), "default")
    assert await lab.until(lambda: _slice(lab, 0))
    await lab.client.create("deployments.apps", deployment("web", 3), "default")
    found = await lab.until(lambda: _slice(lab, 3))
    assert found["metadata"]["name"].startswith("web-")
    assert found["metadata"]["labels"] == {
        "team": "a",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    assert found["ports"] == [{"name": "", "port": 8080, "protocol": "TCP"}]
    one = found["endpoints"][0]
    assert one["conditions"] == {"ready": True, "serving": True, "terminating": False}
    assert (one["targetRef"]["kind"], one["nodeName"]) == ("Pod", "node-1")

    async def old_form() -> bool:
        (subset,) = (await lab.get("endpoints", "web"))["subsets"]
        return len(subset["addresses"]) == 3 and subset["ports"] == [{"port": 8080, "protocol": "TCP"}]

    await lab.until(old_form)


async def test_a_pod_being_deleted_still_serves_but_is_not_ready(lab: Lab) -> None:
    lab.start()
    await lab.client.create("services", service(), "default")
    await lab.client.create("deployments.apps", deployment("web", 2), "default")
    await lab.until(lambda: _slice(lab, 2))
    lab.silent.add("node-1")
    victim = (await lab.list("pods"))[0]["metadata"]["name"]
    await lab.client.delete("pods", victim, "default")

    async def terminating() -> Any:
        found = await _slice(lab, 2)
        return [e for e in (found or {}).get("endpoints", []) if e["conditions"]["terminating"]]

    (endpoint,) = await lab.until(terminating)
    assert endpoint["conditions"] == {"ready": False, "serving": True, "terminating": True}


async def test_a_headless_service_names_its_pods_and_publishes_them_early(lab: Lab) -> None:
    lab.start(kubelet=False)
    headless = service(clusterIP="None", publishNotReadyAddresses=True)
    await lab.client.create("services", headless, "default")
    web = deployment("web", 1)
    web["spec"]["template"]["spec"].update(hostname="web-0", subdomain="web")
    await lab.client.create("deployments.apps", web, "default")

    async def bound() -> Any:
        pods = await lab.list("pods")
        return pods[0] if pods and pods[0]["spec"].get("nodeName") else None

    one = await lab.until(bound)
    status = {"podIP": "127.77.1.9", "podIPs": [{"ip": "127.77.1.9"}], "phase": "Running"}
    await lab.client.patch("pods", one["metadata"]["name"], {"status": status}, "default", subresource="status")
    found = await lab.until(lambda: _slice(lab, 1))
    assert found["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
    assert (found["endpoints"][0]["hostname"], found["endpoints"][0]["conditions"]["ready"]) == ("web-0", True)
