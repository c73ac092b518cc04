"""Chapter 02: deploying an application."""

from __future__ import annotations

from typing import Any

from kitlib.course.exercise import exercise
from kitlib.course.look import deployment, image, pods, require, require_available, text


@exercise(
    "02.1",
    "A second application",
    hints=[
        "It is the command that made the first one, with another name and one more flag.",
        "The flag is `--replicas=2`; `kubectl create deployment --help` lists all of them.",
        "Made it wrong at first? `%kubectl delete deployment hello`, and once more.",
    ],
    solution="%kubectl create deployment hello --replicas=2 "
    "--image=gcr.io/google-samples/kubernetes-bootcamp:v1\n%kubectl rollout status deployment/hello",
)
def second_application(cluster: Any, answer: Any) -> str:
    """A Deployment `hello` runs two Pods of the bootcamp image."""
    found = deployment(cluster, "hello")
    right = image(found).endswith("/kubernetes-bootcamp:v1")
    require(right, f"`hello` has the image `{image(found)}`, which is not that of the first application.")
    require_available(found, 2)
    return "Two Pods of `hello` are running, and you wrote one line."


@exercise(
    "02.2",
    "Ask one Pod of `hello`",
    hints=[
        "First find the name of a Pod: `%kubectl get pods -l app=hello -o name`.",
        "With the proxy running, its answer is at `.../namespaces/NAMESPACE/pods/NAME:8080/proxy/`.",
        "Read it in Python: `urllib.request.urlopen(address).read().decode()`.",
    ],
    solution="pod = %kubectl get pods -l app=hello -o jsonpath='{.items[0].metadata.name}'\n"
    "with kubectl.proxy(port=8001) as port:\n"
    '    path = f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}:8080/proxy/"\n'
    '    answer = urllib.request.urlopen(f"http://127.0.0.1:{port}{path}").read().decode()\n'
    'course.check("02.2", answer)',
    needs_answer=True,
)
def ask_one_pod(cluster: Any, answer: Any) -> str:
    """The answer is the text with which a Pod of `hello` answers."""
    given = text(answer, "the text that the Pod sent")
    names = [pod.metadata.name for pod in pods(cluster, "app=hello")]
    require(names, "There are no Pods of `hello` yet: exercise 02.1 makes them.")
    require("Running on" in given, f"That is not the app's greeting: {given[:60]!r}.")
    require(any(name in given for name in names), "Another Pod wrote this greeting, not one of `hello`.")
    return "You spoke to one chosen Pod, by name, through the API server."
