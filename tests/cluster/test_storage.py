"""What is written to a claim outlives Pods and the cluster's end, and goes when its owner says so."""

from __future__ import annotations

from harness import EmbeddedCluster, eventually

CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "notes"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


def pod(name: str, command: str) -> dict:
    container = {"name": "main", "image": "busybox", "command": ["sh", "-c", command]}
    container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "notes"}}
    spec = {"restartPolicy": "Never", "containers": [container], "volumes": [volume]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def output(cluster: EmbeddedCluster, name: str) -> str:
    eventually(lambda: cluster.get("pod", name)["status"].get("phase") == "Succeeded")
    return cluster.kubectl("logs", name).stdout


def test_data_of_a_claim_survives_pods_and_a_restart_of_the_cluster_but_not_a_purge(
    own_cluster: EmbeddedCluster,
) -> None:
    own_cluster.kit("up", "--nodes", "2")
    assert own_cluster.kubectl("get", "storageclass", "--no-headers").stdout.split()[:6] == [
        "standard",
        "(default)",
        "rancher.io/local-path",
        "Delete",
        "WaitForFirstConsumer",
        "false",
    ]
    own_cluster.apply(CLAIM, pod("writer", "echo remember > /data/note; cat /data/note"))
    assert output(own_cluster, "writer") == "remember\n"
    shown = own_cluster.kubectl("describe", "pvc", "notes").stdout
    assert "Used By:       writer" in shown
    assert "ProvisioningSucceeded" in shown
    own_cluster.kit("down")
    own_cluster.kit("up", "--nodes", "2")
    own_cluster.apply(pod("reader", "cat /data/note"))
    assert output(own_cluster, "reader") == "remember\n"
    (folder,) = (own_cluster.home / "volumes").iterdir()
    assert (folder / "note").read_text() == "remember\n"
    own_cluster.kit("down", "--purge")
    assert not (own_cluster.home / "volumes").exists()
