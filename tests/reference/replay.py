"""Replays recorded kubectl commands on a cluster and tells which answers are alike.

`kubectl.json` holds what a real Kubernetes 1.36.2 answered. An answer is alike when the exit code is the recorded
one and the output, with names, ages, addresses, times and ports replaced by marks, has the recorded set of lines.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RANDOM = "[bcdfghjklmnpqrstvwxz2456789]"
UID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
MARKS = [
    (rf"\b{UID}\b", "UID"),
    (r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}", "TIME"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)", "TIME"),
    (rf"-{RANDOM}{{8,10}}\b", "-HASH"),
    (rf"-{RANDOM}{{5}}\b", "-RAND"),
    (r"pod-template-hash=\w+", "pod-template-hash=HASH"),
    (r"\b\d{1,3}(?:\.\d{1,3}){3}\b", "IP"),
    (r"\b3[0-2]\d{3}/TCP", "NODEPORT/TCP"),
    (r"https?://(?:IP|localhost|127\.0\.0\.1):\d+", "URL"),
    (r"(?:/tmp|<tmp>)/(?:LIVE|MERGED)-\d+", "DIR"),
    (r"\bnode-\w+\b", "NODE"),
    (r"\b(?:containerd|kit|process)://\S+", "CONTAINER"),
    (r"sha256:[0-9a-f]+", "SHA"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ [+-]\d{4}", "TIME"),
    (r"\b(?:\d+[dhms]){1,3}\b", "AGE"),
    (r"\b3[0-2]\d{3}\b", "NODEPORT"),
    (r'" (force )?deleted from [a-z0-9-]+ namespace', r'" \1deleted'),
    (r"spec\.(?:initContainers|containers)\{[a-z0-9-]+\}: ", ""),
    (r"\s+", " "),
]
"""Patterns and marks, in order; the last but two are words that kubectl has added since the recording (1.32)."""


@dataclass
class Answer:
    """What the cluster under test answered to one recorded command."""

    number: int
    command: str
    exit_alike: bool
    output_alike: bool
    missing: list[str]
    unexpected: list[str]

    @property
    def alike(self) -> bool:
        """Whether exit code and output are the recorded ones."""
        return self.exit_alike and self.output_alike


def lines(text: str) -> list[str]:
    """Return the lines of an output with everything that varies from run to run replaced by marks."""
    for pattern, mark in MARKS[:-1]:
        text = re.sub(pattern, mark, text)
    marked = [re.sub(*MARKS[-1], line).strip() for line in text.splitlines()]
    return [line for line in marked if line and "WARNING: version difference" not in line]


def replay(transcript: Path, env: dict[str, str]) -> Iterator[Answer]:
    """Run every recorded command in order and compare.

    Args:
        transcript: File with the recorded commands.
        env: Environment with KUBECONFIG of the cluster under test.
    """
    for number, recorded in enumerate(json.loads(transcript.read_text())):
        argv = ["bash", "-c", recorded["command"]]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=90)
        want, got = set(lines(recorded["stdout"])), set(lines(done.stdout))
        same_error = lines(recorded["stderr"])[:1] == lines(done.stderr)[:1]
        missing = sorted(want - got) + ([] if same_error else lines(recorded["stderr"])[:1])
        unexpected = sorted(got - want) + ([] if same_error else lines(done.stderr)[:1])
        yield Answer(
            number,
            recorded["command"],
            done.returncode == recorded["exit"],
            want == got and same_error,
            missing,
            unexpected,
        )
        if recorded["wait"]:
            time.sleep(recorded["wait"])
