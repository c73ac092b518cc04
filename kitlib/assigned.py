"""A namespace that was given to us: what was in it before the course came, and what the course must take away again.

What is there at the first `connect` is remembered in KIT_HOME, so that clean-up can tell it from what was made since,
also after a kernel restart, and whatever tool made it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from kitlib import kubectl
from kitlib.errors import KitError
from kitlib.home import kit_home

KINDS = (
    "deployments,statefulsets,daemonsets,jobs,cronjobs,replicasets,pods,services,configmaps,secrets,"
    "persistentvolumeclaims"
)
COLUMNS = "KIND:.kind,NAME:.metadata.name,UID:.metadata.uid,OWNER:.metadata.ownerReferences[0].kind,TYPE:.type"
MADE_BY_KUBERNETES = ("ConfigMap/kube-root-ca.crt", "ConfigMap/openshift-service-ca.crt", "Service/kubernetes")


@dataclass(frozen=True)
class Thing:
    """An object that nothing else owns.

    Attributes:
        name: Kind and name, as kubectl takes it: `Deployment/app`.
        uid: Its identity.
    """

    name: str
    uid: str


def things(kubeconfig: Path, namespace: str) -> list[Thing]:
    """Return the objects of a namespace that no controller made; kinds that may not be listed are left out."""
    command = ["get", KINDS, "--no-headers", f"--output=custom-columns={COLUMNS}"]
    answer = kubectl.run([f"--kubeconfig={kubeconfig}", f"--namespace={namespace}", *command])
    rows = [line.split() for line in answer.stdout.splitlines()]
    if answer.code and not rows and "orbidden" not in answer.stderr:
        raise KitError(f"Cannot look into namespace {namespace}: {answer.stderr.strip().splitlines()[-1]}")
    own = [row for row in rows if len(row) == 5 and row[3] == "<none>" and "service-account-token" not in row[4]]
    found = [Thing(f"{kind}/{name}", uid) for kind, name, uid, *_ in own]
    return [thing for thing in found if thing.name not in MADE_BY_KUBERNETES]


def remember(kubeconfig: Path, namespace: str) -> None:
    """Write down what is there, unless that was done and nothing cleaned up since."""
    file = _file(kubeconfig)
    if not file.exists():
        file.write_text(json.dumps([thing.uid for thing in things(kubeconfig, namespace)]))


def made_since(kubeconfig: Path, namespace: str) -> list[Thing]:
    """Return what was made in the namespace since it was remembered; nothing, if it never was."""
    file = _file(kubeconfig)
    before = set(json.loads(file.read_text())) if file.exists() else None
    return [] if before is None else [one for one in things(kubeconfig, namespace) if one.uid not in before]


def remembered(kubeconfig: Path) -> bool:
    """Return whether it is known what was in the namespace before."""
    return _file(kubeconfig).exists()


def remove(kubeconfig: Path, namespace: str) -> int:
    """Delete what was made since, wait until it is gone, and return how many objects that were.

    Raises:
        KitError: The cluster refuses; nothing is forgotten then.
    """
    made = [thing.name for thing in made_since(kubeconfig, namespace)]
    if made:
        words = ["delete", *made, "--ignore-not-found", "--cascade=foreground", "--timeout=120s"]
        result = kubectl.run([f"--kubeconfig={kubeconfig}", f"--namespace={namespace}", *words])
        if result.code:
            raise KitError(f"{result.stderr.strip()} (still in {namespace}: {', '.join(made)})")
    _file(kubeconfig).unlink(missing_ok=True)
    return len(made)


def files(context: str) -> list[Path]:
    """Return the kubeconfigs of namespaces of a context in which the course may have left something."""
    folder = kit_home() / "connect"
    pairs = [(path, path.name.removesuffix(".before.json")) for path in sorted(folder.glob("*.before.json"))]
    found = [folder / f"{name}.kubeconfig" for _, name in pairs if name.startswith(f"{safe(context)}-")]
    return [path for path in found if path.exists()]


def safe(context: str) -> str:
    """Return a context's name as part of a file name."""
    return "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in context)


def _file(kubeconfig: Path) -> Path:
    return kubeconfig.with_name(kubeconfig.name.removesuffix(".kubeconfig") + ".before.json")
