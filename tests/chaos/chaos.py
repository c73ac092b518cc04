"""Random SIGKILLs under load, and whether everything ends as it was asked for.

For so many minutes, control plane, nodes and containers are killed at random while a Deployment is updated over and
over, another is scaled at random, Jobs are created and ConfigMaps are written and watched. Afterwards: desired equals
actual, no acknowledged write is lost or undone, the watch missed none, and no process, mount or folder is left over;
after `kit down --purge` there is nothing at all.

    python tests/chaos/chaos.py --minutes 10     one JSON object; exit code 1 when something does not hold
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import EmbeddedCluster, eventually, processes_of, throwaway_cluster, with_argument
from writes import Watcher, Writer

from kitlib.cluster.kubelet import isolation

IMAGES = ("gcr.io/google-samples/kubernetes-bootcamp:v1", "jocatalin/kubernetes-bootcamp:v2")


@dataclass
class Chaos:
    """One run on one cluster.

    Attributes:
        cluster: A running cluster of three nodes that may be broken.
        random: Source of every choice.
        done: How often each thing was done.
        writer: Writes ConfigMaps and remembers what was acknowledged.
        watcher: Watches them, across every restart of the API server.
        jobs: Jobs whose creation it acknowledged.
        dead: Nodes that are powered off, and when they come back.
    """

    cluster: EmbeddedCluster
    random: random.Random
    done: Counter[str] = field(default_factory=Counter)
    jobs: list[str] = field(default_factory=list)
    dead: dict[str, float] = field(default_factory=dict)
    replicas: int = 3
    image: str = IMAGES[0]

    def __post_init__(self) -> None:
        """Choose what this run's daemons are known by, whatever they do to their environment."""
        self.writer = Writer(self.cluster, self.random.randrange(10**9))
        self.watcher = Watcher(self.cluster)
        self.daemon = f"{self.random.randrange(10**8, 10**9)}"

    def start(self) -> None:
        """Create the workloads."""
        self.cluster.apply(deployment("rolling", 3, self.image), service("rolling"))
        self.cluster.apply(deployment("scaled", self.replicas, "busybox", daemons(self.daemon)))
        self.watcher.start()
        self.writer.start()

    def run(self, seconds: float) -> None:
        """Break and change things until the time is over, then switch every node on again."""
        actions = [self.kill_control_plane, self.kill_node, self.kill_container, self.kill_container, self.update]
        actions += [self.scale, self.submit_job]
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
        self.writer.stop()

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
        self.writer.verify()
        self.watcher.verify(self.writer.revisions)
        eventually(self._processes_match_pods, limit)
        eventually(self._folders_match_pods, limit)
        return {
            "actions": dict(self.done),
            "acknowledged_writes": self.writer.acknowledged,
            "unanswered_writes": self.writer.unanswered,
            "watch_began_again": self.watcher.began - 1,
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
            pods = self.cluster.get("pods", "-l", f"app={name}")["items"]
            assert len(pods) == wanted, f"{name}: {len(pods)} Pods"
        self._assert_jobs_are_done()
        pods = self.cluster.get("pods")["items"]
        held = [pod for pod in pods if "deletionTimestamp" in pod["metadata"] or pod["metadata"].get("finalizers")]
        assert not held, f"Pods that are held or on their way out: {[pod['metadata']['name'] for pod in held]}"
        slices = self.cluster.get("endpointslices", "-l", "kubernetes.io/service-name=rolling")["items"]
        served = sorted(a for each in slices for endpoint in each["endpoints"] for a in endpoint["addresses"])
        assert served == sorted(p["status"]["podIP"] for p in pods if p["metadata"]["labels"].get("app") == "rolling")
        return True

    def _assert_jobs_are_done(self) -> None:
        jobs = {item["metadata"]["name"]: item["status"] for item in self.cluster.get("jobs")["items"]}
        assert set(self.jobs) <= jobs.keys()
        for name, status in jobs.items():
            conditions = {c["type"] for c in status.get("conditions", []) if c["status"] == "True"}
            assert "Complete" in conditions and status.get("succeeded") == 2, f"{name}: {status}"
            assert not status.get("active"), f"{name}: {status}"

    def _running(self, **labels: str) -> int:
        return sum(
            "running" in container["state"]
            for pod in self.cluster.get("pods")["items"]
            if labels.items() <= pod["metadata"]["labels"].items()
            for container in pod["status"].get("containerStatuses", [])
        )

    def _processes_match_pods(self) -> bool:
        running, found = self._running(), containers(self.cluster)
        assert len(found) == running, f"{len(found)} processes, {running} running"
        running, left = self._running(app="scaled"), with_argument(self.daemon)
        assert len(left) == running, f"{running} containers have {len(left)} daemons: {left}"
        return True

    def _folders_match_pods(self) -> bool:
        uids = {pod["metadata"]["uid"] for pod in self.cluster.get("pods")["items"]}
        shared = Path("/dev/shm").glob(f"kit-{self.cluster.cluster_id()}-*/*")
        folders = [*self.cluster.home.glob("nodes/*/pods/*"), *shared]
        left = [str(folder) for folder in folders if folder.name not in uids]
        assert folders and not left, f"folders without a Pod: {left}"
        return True

    def end(self) -> None:
        """Stop the cluster.

        Raises:
            AssertionError: Something of it is left: a process, a port, a mount, a file.
        """
        mark, home = self.cluster.cluster_id(), str(self.cluster.home)
        ports = sorted({c.laddr for p in processes_of(mark) for c in p.net_connections("inet") if c.status == "LISTEN"})
        assert ports, "no process of the cluster listens"
        self.cluster.kit("down", "--purge")
        left = [*processes_of(mark), *with_argument(self.daemon), *at_home(home)]
        assert not left, f"processes are left: {left}"
        for address in ports:
            assert closed(address), f"somebody still listens at {address}"
        assert home not in Path("/proc/self/mountinfo").read_text(), "something is still mounted"
        kept = {".kube"} if self.cluster.env["HOME"] == home else set()
        files = [*({path.name for path in Path(home).glob("*")} - kept), *Path("/dev/shm").glob(f"kit-{mark}*")]
        assert not files, f"files are left: {files}"


def at_home(home: str) -> list[psutil.Process]:
    """Return the processes that work in a folder or have a file of it open."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            used = [process.cwd(), *(file.path for file in process.open_files())]
            if any(path == home or path.startswith(f"{home}/") for path in used):
                found.append(process)
    return found


def closed(address: tuple[str, int]) -> bool:
    """Tell whether nobody listens at an address."""
    with socket.socket() as probe:
        return probe.connect_ex(address) != 0


def daemons(argument: str) -> list[str]:
    """Return a command with a child that leaves its session and, where namespaces tell whose it is, its environment."""
    clear = "env -i" if isolation.mode("auto") == "namespaces" else ""
    return ["sh", "-c", f"setsid {clear} sleep {argument} & echo $$ > /cache/pid; exec sleep 86400"]


def containers(cluster: EmbeddedCluster) -> list[psutil.Process]:
    """Return the main process of every container: the children of the container runtimes."""
    runtimes = {p["pid"] for p in cluster.status()["processes"] if p["name"].startswith("runtime")}
    components = {p["pid"] for p in cluster.status()["processes"]}
    found = [process for process in processes_of(cluster.cluster_id()) if process.pid not in components]
    strangers = [p for p in found if not runtimes & {parent.pid for parent in p.parents()}]
    assert not strangers, f"processes without a container runtime: {strangers}"
    return [process for process in found if process.ppid() in runtimes]


def deployment(name: str, replicas: int, image: str, command: list[str] | None = None) -> dict:
    """Return a Deployment whose Pods have files in memory and end within a second."""
    container = {"name": "app", "image": image, "volumeMounts": [{"name": "cache", "mountPath": "/cache"}]}
    spec = {
        "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "cache", "emptyDir": {"medium": "Memory"}}],
        "containers": [{**container, **({"command": command} if command else {})}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    }


def service(name: str) -> dict:
    """Return a Service of the Pods of a Deployment."""
    spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


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
            seen = chaos.verify(180)
            chaos.end()
            print(json.dumps({"seed": arguments.seed, **seen}, indent=1))
        except AssertionError as error:
            print(json.dumps({"seed": arguments.seed, "actions": dict(chaos.done), "broken": str(error)}, indent=1))
            if (cluster.home / "kubeconfig").exists():
                subprocess.run(["kubectl", "get", "all", "-o", "wide"], env=cluster.env, check=False)
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
