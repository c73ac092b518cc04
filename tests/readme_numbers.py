"""Writes the README's tables of numbers from the JSON that `kit bench` printed.

kit bench cluster > docs/bench/cluster.json
kit bench train > docs/bench/train.json
python tests/readme_numbers.py --write
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "docs" / "bench"
BEGIN, END = "<!-- numbers:", "<!-- end of numbers -->"

CLUSTER_ROWS = [  # name in the JSON, what it is, unit, what a real Kubernetes 1.36.2 needs on the same kind of machine
    ("kit_up_3_nodes_ready_s", "`kit up` until 3 nodes are Ready", "s", "5 to 8 (1 node)"),
    ("memory_after_bench_rss_mb", "memory after all of this, resident", "MiB", "833"),
    ("memory_after_start_mb", "memory after start, shared pages counted once", "MiB", ""),
    ("idle_cpu_percent_of_a_core", "idle CPU", "% of a core", "about 7"),
    ("kubectl_alone_ms", "`kubectl version --client`, which asks no cluster", "ms", ""),
    ("kubectl_get_pods_ms", "`kubectl get pods`", "ms", "50.6"),
    ("create_per_s_1_clients", "creates, 1 client", "per s", "781"),
    ("create_per_s_16_clients", "creates, 16 clients", "per s", "1864"),
    ("get_per_s_1_clients", "gets, 1 client", "per s", "1146"),
    ("get_per_s_16_clients", "gets, 16 clients", "per s", "5764"),
    ("list_1000_ms", "list 1000 ConfigMaps", "ms", "13.7"),
    ("watch_100_patches_20_watchers_s", "100 patches seen by 20 watchers", "s", "0.20"),
    ("delete_per_s_16_clients", "deletes, 16 clients", "per s", "2191"),
    ("deploy_1_ready_s", "Deployment of 1 ready", "s", "0.24"),
    ("scale_1_to_4_ready_s", "scale 1 to 4, ready", "s", "0.37"),
    ("scale_4_to_20_ready_s", "scale 4 to 20, ready", "s", "2.04"),
    ("rollout_20_s", "rolling update of 20", "s", "4.6"),
    ("scale_20_to_0_s", "scale 20 to 0, gone", "s", "2.7"),
]


def cluster_table(bench: dict[str, Any]) -> str:
    """Return the table of the embedded cluster beside a real one."""
    machine = f"{bench['machine']['cores']} cores, {bench['machine']['memory_gib']} GiB"
    head = [
        f"`kit bench cluster` on {machine}, no GPU: median of {bench['repeats']} fresh clusters, and their range.",
        "The last column is a Kubernetes 1.36.2 (etcd without fsync, containerd, one node, images present) on the same",
        "kind of machine, measured once with the same requests.",
        "",
        "| | median | range | real 1.36.2 |",
        "|---|---|---|---|",
    ]
    rows = []
    for name, what, unit, real in CLUSTER_ROWS:
        found = bench[name]
        rows.append(f"| {what} ({unit}) | {_n(found['median'])} | {_n(found['min'])} to {_n(found['max'])} | {real} |")
    return "\n".join(head + rows)


def train_table(bench: dict[str, Any]) -> str:
    """Return the table of training through the cluster beside bare torchrun."""
    rows = [
        f"| {what} | {_n(bench[name])} | {', '.join(_n(value) for value in bench['pairs'][pairs])} |"
        for name, pairs, what in [
            ("throughput_over_torchrun", "throughput", "tokens/s through the cluster over bare `torchrun`"),
            ("first_step_over_torchrun", "first_step", "submit to first step over `torchrun` start to first step"),
            ("communication_efficiency", "communication", "tokens/s of 2 DDP ranks over 2 independent copies at once"),
        ]
    ]
    head = [
        f"`kit bench train`: {bench['repeats']} pairs of {bench['workers']} workers on simulated GPUs (CPU).",
        "",
        "| ratio | median | pairs |",
        "|---|---|---|",
    ]
    return "\n".join(head + rows)


def _n(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:g}"


def numbers() -> str:
    """Return the README's section of numbers, its marks included."""
    cluster = json.loads((BENCH / "cluster.json").read_text())
    train = json.loads((BENCH / "train.json").read_text())
    mark = f"{BEGIN} made by `python tests/readme_numbers.py --write` from docs/bench/*.json -->"
    return "\n".join([mark, cluster_table(cluster), "", train_table(train), END])


def section(readme: str) -> str:
    """Return the section of numbers that a README holds."""
    found = re.search(re.escape(BEGIN) + ".*?" + re.escape(END), readme, re.DOTALL)
    if found is None:
        raise ValueError("the README has no section of numbers")
    return found.group(0)


if __name__ == "__main__":
    path = ROOT / "README.md"
    text = path.read_text()
    if "--write" in sys.argv:
        path.write_text(text.replace(section(text), numbers()))
    elif section(text) != numbers():
        sys.exit("the README's numbers are not those of docs/bench: run with --write")
