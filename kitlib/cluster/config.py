"""Settings of the embedded cluster and what each of its processes needs to know.

Stands for the flags and kubelet configuration files of a real cluster. Times are lab-sized: a lesson
should not wait five minutes for an eviction. Every field carries the name of the real flag, and
`REAL_TIMES` holds what a real cluster uses, so that notebooks can print both.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

KUBERNETES_VERSION = "v1.36.2"
"""The release of Kubernetes whose behaviour the embedded cluster follows."""
CONTROL_SOCKET = "supervisor.sock"
"""Where the supervisor listens, in KIT_HOME."""
SHARED_MEMORY = Path("/dev/shm")
"""Where files live in memory (Linux only)."""


@dataclass(frozen=True)
class Settings:
    """Lab-sized times in seconds, under the names of Kubernetes' own flags and constants.

    Attributes:
        node_lease_renew_interval: How often a kubelet renews its Lease.
        node_monitor_period: How often the node lifecycle controller looks.
        node_monitor_grace_period: A node silent for longer is marked unreachable.
        default_not_ready_toleration_seconds: Toleration for `not-ready` that admission adds to Pods.
        default_unreachable_toleration_seconds: Toleration for `unreachable` that admission adds to Pods.
        job_pod_failure_backoff: First delay before a Job replaces a failed Pod; doubles up to 10 minutes.
        container_restart_backoff: First delay of CrashLoopBackOff; doubles up to `max_container_restart_period`.
        image_pull_backoff: First delay of ImagePullBackOff; doubles up to 300.
        back_off_period: A Pod with a container that cannot start is looked at again after this long and up to half
            as long again; the status then shows the back-off.
        generic_pleg_relist_period: A kubelet looks through all its containers this often; a deleted Pod goes from the
            API with the first look after its containers have ended.
        max_container_restart_period: Longest delay between restarts.
        event_ttl: How long Events are kept.
    """

    node_lease_renew_interval: float = 2.0
    node_monitor_period: float = 1.0
    node_monitor_grace_period: float = 6.0
    default_not_ready_toleration_seconds: int = 3
    default_unreachable_toleration_seconds: int = 3
    job_pod_failure_backoff: float = 2.0
    container_restart_backoff: float = 10.0
    image_pull_backoff: float = 10.0
    back_off_period: float = 10.0
    generic_pleg_relist_period: float = 1.0
    max_container_restart_period: float = 300.0
    event_ttl: float = 3600.0


REAL_TIMES = Settings(
    node_lease_renew_interval=10.0,
    node_monitor_period=5.0,
    node_monitor_grace_period=50.0,
    default_not_ready_toleration_seconds=300,
    default_unreachable_toleration_seconds=300,
    job_pod_failure_backoff=10.0,
)
"""The same settings as a real Kubernetes has them."""


@dataclass(frozen=True)
class ClusterConfig:
    """What the control plane needs to know.

    Attributes:
        cluster_id: Random id; every container process carries it as `KIT_CLUSTER_ID`.
        home: KIT_HOME of this cluster.
        host: Address the API server listens on (always loopback).
        port: Port of the API server.
        block: Second octet B of the cluster's address block 127.B.0.0/16.
        loopback: `multi` (every Pod its own 127.B.x.y) or `single` (everything on 127.0.0.1, ports mapped).
        kubelet_client_token: Bearer token that kubelets accept.
        settings: Lab-sized times.
        hollow: Number of nodes without a process.
    """

    cluster_id: str
    home: Path
    port: int
    block: int
    kubelet_client_token: str
    host: str = "127.0.0.1"
    loopback: str = "multi"
    settings: Settings = field(default_factory=Settings)
    hollow: int = 0

    @property
    def server(self) -> str:
        """Base URL of the API server."""
        return f"https://{self.host}:{self.port}"

    @property
    def advertised(self) -> tuple[str, int] | None:
        """Where Pods find the API server at its usual port (`--advertise-address`), None with one address for all."""
        return (f"127.{self.block}.0.254", 6443) if self.loopback == "multi" else None

    @property
    def pki(self) -> Path:
        """Folder of certificates, keys and tokens (mode 0700)."""
        return self.home / "pki"

    @property
    def ca_file(self) -> Path:
        """The cluster's own certificate authority, in PEM."""
        return self.pki / "ca.crt"

    @property
    def logs(self) -> Path:
        """Folder with one log file per component."""
        return self.home / "logs"


@dataclass(frozen=True)
class NodeConfig:
    """What one node's kubelet and container runtime need to know.

    Attributes:
        cluster: The cluster that the node joins.
        name: Node name, such as `node-1`.
        index: 1-based number N; in `multi` loopback mode the node is 127.B.0.N and its Pods are 127.B.N.2 to .254.
        token: Bearer token of user `system:node:NAME`.
        gpus: GPUs to offer as `nvidia.com/gpu`; real ones when NVML finds enough, else simulated.
        gpu_offset: How many GPUs the nodes before this one hold: this node's first GPU or first CPU core.
        cpus: CPU cores to report as capacity.
        memory_bytes: Memory to report as capacity.
        isolation: `auto`, `namespaces` or `plain`: how a container sees its volumes and its host name.
    """

    cluster: ClusterConfig
    name: str
    index: int
    token: str
    gpus: int = 0
    gpu_offset: int = 0
    cpus: int = 1
    memory_bytes: int = 2 << 30
    isolation: str = "auto"

    @property
    def node_dir(self) -> Path:
        """Folder with the node's Pods, volumes, logs and runtime socket."""
        return self.cluster.home / "nodes" / self.name

    @property
    def memory_dir(self) -> Path:
        """Folder of the Pods' volumes with `medium: Memory`, gone when the node is."""
        return SHARED_MEMORY / f"kit-{self.cluster.cluster_id}-{self.name}"

    @property
    def internal_ip(self) -> str:
        """The node's address."""
        if self.cluster.loopback == "single":
            return "127.0.0.1"
        return f"127.{self.cluster.block}.0.{self.index}"


def to_json(config: ClusterConfig) -> dict[str, Any]:
    """Return the cluster's configuration as JSON-ready values (see `from_json`)."""
    return {**asdict(config), "home": str(config.home)}


def from_json(values: dict[str, Any]) -> ClusterConfig:
    """Return the configuration that `to_json` wrote.

    Raises:
        TypeError: A field is missing or unknown.
    """
    settings = Settings(**values["settings"])
    return ClusterConfig(**{**values, "home": Path(values["home"]), "settings": settings})
