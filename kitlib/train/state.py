"""What the cluster says about a run at one moment: its Job and its Pods, before anything is read into them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kitlib.train import elastic


@dataclass
class State:
    """What the cluster says about a run at one moment.

    Attributes:
        phase: Pending, Running, Complete, Failed or Deleted.
        workers: Number of ranks' Pods.
        pods: The run's Pods, as plain dicts.
        message: Why the Job failed, in the Job controller's words.
        template: What the Job makes Pods from.
    """

    phase: str
    workers: int = 0
    pods: list[dict[str, Any]] = field(default_factory=list)
    message: str = ""
    template: dict[str, Any] = field(default_factory=dict)

    @property
    def refused(self) -> list[dict[str, Any]]:
        """The Pods that no node has taken."""
        pending = [pod for pod in self.pods if pod["status"].get("phase") == "Pending"]
        return [pod for pod in pending if not pod["spec"].get("nodeName")]

    @property
    def lost(self) -> list[dict[str, Any]]:
        """The Pods whose node does not answer."""
        return [pod for pod in self.pods if elastic.lost(pod)]

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.phase in ("Complete", "Failed", "Deleted")
