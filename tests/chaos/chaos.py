"""Random SIGKILLs under load, and whether everything ends as it was asked for.

For so many minutes, control plane, nodes and containers are killed at random while a Deployment is updated over and
over, another is scaled at random, Jobs are created and ConfigMaps are written. Afterwards: desired equals actual, no
acknowledged write is lost, no process is left over.

    python tests/chaos/chaos.py --minutes 10     one JSON object; exit code 1 when something does not hold
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import EmbeddedCluster, eventually, processes_of, throwaway_cluster

IMAGES = ("gcr.io/google-samples/kubernetes-bootcamp:v1", "jocatalin/kubernetes-bootcamp:v2")


@dataclass
class Chaos:
    """One run on one cluster.

    Attributes:
        cluster: A running cluster of three nodes that may be broken.
        random: Source of every choice.
        done: How often each thing was done.
        written: ConfigMaps whose creation the API server acknowledged.
        jobs: Jobs whose creation it acknowledged.
        dead: Nodes that are powered off, and when they come back.
    """

    cluster: EmbeddedCluster
    random: random.Random
    done: Counter[str] = field(default_factory=Counter)
    written: list[str] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    dead: dict[str, float] = field(default_factory=dict)
    replicas: int = 3
    image: str = IMAGES[0]

    def start(self) -> None:
        """Create the workloads."""
        for name in ("rolling", "scaled"):
            self.cluster.apply(deployment(name, self.replicas, self.image))

    def run(self, seconds: float) -> None:
        """Break and change things until the time is over, then switch every node on again."""
        actions = [self.kill_control_plane, self.kill_node, self.kill_container, self.kill_container, self.update]
        actions += [self.scale, self.submit_job, self.write, self.write]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            action = self.random.choice(actions)
            if action():
                self.done[action.__name__] += 1
            for name in [name for name, back in self.dead.items() if back < time.monotonic()]:
                self.revive(name)
            time.sleep(self.random.uniform(0, 0.4))
        for name in list(self.dead):
            self.revive(name)

    def kill_control_plane(self) -> bool:
        """SIGKILL the control plane."""
        return self._kill("control-plane")

    def kill_node(self) -> bool:
        """SIGKILL a kubelet, which is a power cut; one node at least stays."""
        alive = [name for name in ("node-1", "node-2", "node-3") if name not in self.dead]
        if len(alive) < 2:
            return False
        name = self.random.choice(alive)
        if not self._kill(f"kubelet-{name}"):
            return False
        self.dead[name] = time.monotonic() + self.random.uniform(1, 12)
        return True

    def _kill(self, process: str) -> bool:
        """SIGKILL one of the cluster's processes; False when it is just down."""
        pids = [p["pid"] for p in self.cluster.status()["processes"] if p["name"] == process]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return bool(pids)

    def revive(self, name: str) -> None:
        """Switch a node on."""
        self.cluster.kit("node", "start", name)
        del self.dead[name]

    def kill_container(self) -> bool:
        """SIGKILL a process of a Pod."""
        found = containers(self.cluster)
        if not found:
            return False
        try:
            self.random.choice(found).kill()
        except psutil.Error:
            return False
        return True

    def update(self) -> bool:
        """Begin a rolling update, whether or not the one before is through."""
        image = self.random.choice(IMAGES)
        if self._kubectl("set", "image", "deployment/rolling", f"app={image}"):
            self.image = image
        return True

    def scale(self) -> bool:
        """Change the number of replicas."""
        wanted = self.random.randint(0, 6)
        if self._kubectl("scale", "deployment/scaled", f"--replicas={wanted}"):
            self.replicas = wanted
        return True

    def submit_job(self) -> bool:
        """Create a Job of two Pods that take a moment."""
        name = f"job-{len(self.jobs)}"
        if len(self.jobs) < 20 and self._kubectl("create", "-f", "-", stdin=json.dumps(job(name))):
            self.jobs.append(name)
        return True

    def write(self) -> bool:
        """Write a ConfigMap and remember it if the write was acknowledged."""
        name = f"note-{self.done['write']}-{self.random.randrange(10**6)}"
        if self._kubectl("create", "configmap", name, "--from-literal=a=b"):
            self.written.append(name)
        return True

    def _kubectl(self, *arguments: str, stdin: str | None = None) -> bool:
        return self.cluster.kubectl(*arguments, code=None, stdin=stdin).returncode == 0

    def verify(self, limit: float) -> dict[str, object]:
        """Wait until the cluster has settled, and return what was seen.

        Raises:
            AssertionError: Something does not hold.
        """
        eventually(lambda: all(node["ready"] for node in self.cluster.status()["nodes"]), limit)
        begin = time.monotonic()
        eventually(self._settled, limit)
        settled = time.monotonic() - begin
        names = {item["metadata"]["name"] for item in self.cluster.get("configmaps")["items"]}
        lost = set(self.written) - names
        assert not lost, f"acknowledged writes are lost: {sorted(lost)}"
        eventually(lambda: self._processes_match_pods(), limit)
        return {
            "actions": dict(self.done),
            "acknowledged_writes": len(self.written),
            "jobs": len(self.jobs),
            "settled_after_s": round(settled, 1),
        }

    def _settled(self) -> bool:
        for name, wanted, image in (("rolling", 3, self.image), ("scaled", self.replicas, None)):
            found = self.cluster.get("deployment", name)
            status, spec = found["status"], found["spec"]
            assert spec["replicas"] == wanted
            assert image is None or spec["template"]["spec"]["containers"][0]["image"] == image
            assert status.get("observedGeneration") == found["metadata"]["generation"]
            for count in ("replicas", "readyReplicas", "updatedReplicas"):
                assert status.get(count, 0) == wanted, f"{name}: {status}"
        for item in self.cluster.get("jobs")["items"]:
            conditions = {c["type"] for c in item["status"].get("conditions", []) if c["status"] == "True"}
            assert conditions & {"Complete", "Failed"}, f"{item['metadata']['name']}: {item['status']}"
        assert not [pod for pod in self.cluster.get("pods")["items"] if "deletionTimestamp" in pod["metadata"]]
        return True

    def _processes_match_pods(self) -> bool:
        running = sum(
            "running" in container["state"]
            for pod in self.cluster.get("pods")["items"]
            for container in pod["status"].get("containerStatuses", [])
        )
        assert len(containers(self.cluster)) == running, f"{len(containers(self.cluster))} processes, {running} running"
        return True


def containers(cluster: EmbeddedCluster) -> list[psutil.Process]:
    """Return the main process of every container: the children of the container runtimes."""
    runtimes = {p["pid"] for p in cluster.status()["processes"] if p["name"].startswith("runtime")}
    components = {p["pid"] for p in cluster.status()["processes"]}
    found = [process for process in processes_of(cluster.cluster_id()) if process.pid not in components]
    strangers = [p for p in found if not runtimes & {parent.pid for parent in p.parents()}]
    assert not strangers, f"processes without a container runtime: {strangers}"
    return [process for process in found if process.ppid() in runtimes]


def deployment(name: str, replicas: int, image: str) -> dict:
    """Return a Deployment whose Pods end within a second."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "app", "image": image}]},
            },
        },
    }


def job(name: str) -> dict:
    """Return an Indexed Job that survives the loss of Pods."""
    container = {"name": "work", "image": "busybox", "command": ["sh", "-c", "sleep 0.5"]}
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}
    spec = {"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimit": 50}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {**spec, "template": {"spec": pod}},
    }


def main() -> int:
    """Run chaos on a cluster of its own and print what was seen."""
    parser = argparse.ArgumentParser(description="Random SIGKILLs under load.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    with throwaway_cluster("chaos", "--nodes", "3") as cluster:
        chaos = Chaos(cluster, random.Random(arguments.seed))
        try:
            chaos.start()
            chaos.run(arguments.minutes * 60)
            print(json.dumps({"seed": arguments.seed, **chaos.verify(180)}, indent=1))
        except AssertionError as error:
            print(json.dumps({"seed": arguments.seed, "actions": dict(chaos.done), "broken": str(error)}, indent=1))
            subprocess.run(["kubectl", "get", "all,jobs", "-o", "wide"], env=cluster.env, check=False)
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
