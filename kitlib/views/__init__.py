"""Pictures: the live cluster map, and plots of requests, rollouts and scale.

Everything here talks to the Kubernetes API that `KUBECONFIG` names, and to nothing else, so the same cell
draws the embedded cluster and a real one. Each picture also says what it shows in plain text.
"""

from __future__ import annotations

from kitlib.views.load import Answer, RequestLoop
from kitlib.views.map import ClusterMap, cluster_map
from kitlib.views.picture import Picture
from kitlib.views.plots import load_spread, rollout, scale_timeline
from kitlib.views.scale import ScaleLog

__all__ = [
    "Answer",
    "ClusterMap",
    "Picture",
    "RequestLoop",
    "ScaleLog",
    "cluster_map",
    "load_spread",
    "rollout",
    "scale_timeline",
]
