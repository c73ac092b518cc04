"""Chapter 11: a controller of your own."""

from __future__ import annotations

from typing import Any

from kitlib.course.exercise import NotAttempted, exercise
from kitlib.course.look import deployment, endpoints, require, service

ANNOTATION = "kit/expose"


@exercise(
    "11.1",
    "A Deployment that your controller sees",
    hints=[
        "Make a Deployment `seen` with the bootcamp image, as in chapter 02.",
        "`kubectl annotate deployment seen kit/expose=80` is the wish that the controller looks for.",
    ],
    solution="%kubectl create deployment seen --image=gcr.io/google-samples/kubernetes-bootcamp:v1\n"
    "%kubectl annotate deployment seen kit/expose=80\n"
    "%kubectl rollout status deployment/seen\n"
    'await_service("seen")',
)
def seen(cluster: Any, answer: Any) -> str:
    """The Deployment `seen` has the annotation and a Service that it owns."""
    found = deployment(cluster, "seen")
    wish = (found.metadata.annotations or {}).get(ANNOTATION)
    require(wish, f"`seen` has no annotation `{ANNOTATION}`.")
    try:
        made = service(cluster, "seen")
    except NotAttempted:
        require(False, "There is no Service `seen` yet: does your controller run? Its log is in `controller.log`.")
        raise
    owners = [owner.uid for owner in made.metadata.owner_references or []]
    require(found.metadata.uid in owners, "The Service `seen` was not made by the controller: `seen` does not own it.")
    require(endpoints(cluster, "seen"), "The Service has no endpoints yet: wait a moment, check again.")
    return f"Your controller answered the wish: Service `seen` on port {made.spec.ports[0].port}."


@exercise(
    "11.2",
    "Follow a change",
    hints=[
        "The controller creates what is missing and deletes what is too much. What about a Service that is *wrong*?",
        "For each name in both `wanted` and `owned`, compare the port, and write the wanted spec if it differs.",
        "`core.patch_namespaced_service(name, namespace, wanted[name], _content_type=...)` with the content type "
        "`application/merge-patch+json` puts the wanted list of ports in place of the old one. (Without it, Kubernetes "
        "would add the new port to the list.) Then start the controller again, and look into its log.",
    ],
    solution='extra = """\n'
    "    for name in wanted.keys() & owned:\n"
    '        kind = "application/merge-patch+json"\n'
    "        core.patch_namespaced_service(name, namespace, wanted[name], _content_type=kind)\n"
    '"""\n'
    'path = cluster.folder / "reconcile.py"\n'
    'path.write_text(path.read_text().rstrip() + "\\n" + extra)\n'
    "start_controller()\n"
    "%kubectl annotate deployment seen kit/expose=8000 --overwrite\n"
    'await_service("8000/TCP")',
)
def follows(cluster: Any, answer: Any) -> str:
    """The annotation of `seen` was changed from 80, and the Service has the new port."""
    found = deployment(cluster, "seen")
    wish = (found.metadata.annotations or {}).get(ANNOTATION)
    if wish in (None, "80"):
        raise NotAttempted(f"Change the annotation of `seen` to another port: `{ANNOTATION}=8000`.")
    made = service(cluster, "seen")
    port = made.spec.ports[0].port
    require(str(port) == wish, f"`seen` wishes for port {wish}, and its Service has {port}: the controller looks away.")
    by_hand = any((entry.manager or "").startswith("kubectl") for entry in made.metadata.managed_fields or [])
    require(not by_hand, "The Service was changed with kubectl: delete it, and let your controller do the work.")
    return f"The Service followed to port {port}."
