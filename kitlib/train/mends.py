"""What mends a refusal: a sentence for what API servers, schedulers and kubelets commonly say no with."""

from __future__ import annotations

_IMAGE = "Check the name; image= takes another one, pull_secret= names the Secret of a private registry."

MENDS = {
    'namespaces "': "The chapter's namespace is gone: the set-up cell makes it again.",
    "exceeded quota": "Free some of it (`kubectl describe quota`), or ask for fewer workers, less cpu= or memory=.",
    "failed quota": "The quota wants limits that the run does not set: a LimitRange with defaults adds them.",
    "violates PodSecurity": "Leave out what the level forbids: checkpoints='pvc:CLAIM' or 'none', no hostpath.",
    "usage per Container": "A LimitRange bounds each container: give cpu= and memory= within it.",
    "usage per Pod": "A LimitRange bounds each Pod: give cpu= and memory= within it.",
    "is forbidden: User": "Your account lacks this right: ask for a role such as `edit` in the namespace.",
    "Unauthorized": "The credentials have probably expired: log in to the cluster again and reconnect.",
    "admission webhook": "A policy of the cluster refuses it; its own words say what it wants changed.",
    "ErrImagePull": _IMAGE,
    "ImagePullBackOff": _IMAGE,
    "InvalidImageName": "image= must be like registry/name:tag.",
    "CreateContainerConfigError": "Something that the Pod refers to is missing, or its image runs as root only.",
    "persistentvolumeclaim": "checkpoints='pvc:CLAIM' needs a claim of that name in this namespace: `kubectl get pvc`.",
    "OOMKilled": "Give more with memory=, or make the micro-batch smaller: batch_size= down, grad_accum= up.",
    "CUDA out of memory": "Make the micro-batch smaller: batch_size= down, grad_accum= up by as much.",
    "No space left on device": "Make room where the checkpoints are, or give another place with checkpoints=.",
    "File too large": "The place of the checkpoints takes no file so large: give another one with checkpoints=.",
    "Read-only file system": "The place of the checkpoints cannot be written: give another one with checkpoints=.",
    "could not be saved": "Look whether the place of the checkpoints is still there, or name another: checkpoints=.",
    "FailedMount": "Look whether what checkpoints= names is there, is a folder or a claim, and can be reached.",
    "Permission denied": "User 1000 must be able to read and write the place that checkpoints= names.",
    "untolerated taint": "tolerations=['KEY=VALUE:NoSchedule'] lets the workers onto tainted nodes.",
    "node affinity/selector": "No node carries what node_selector= asks for: `kubectl get nodes --show-labels`.",
}
"""Words of a refusal, and what to do about it."""


def mend(text: str) -> str:
    """Return the first mend whose words are in the text, or an empty string."""
    return next((advice for words, advice in MENDS.items() if words in text), "")
