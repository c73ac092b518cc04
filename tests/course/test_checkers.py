"""Every checker knows a right answer (the solutions' tests), wrong ones, and none, and says which it saw."""

# ruff: noqa: E501  (the table reads best with one case a line)

from __future__ import annotations

import json
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import eventually

from kitlib import course, kubectl
from kitlib.course.exercise import CORRECT, NOT_ATTEMPTED, NOT_YET, all_exercises, find
from kitlib.session import Cluster

V1 = "gcr.io/google-samples/kubernetes-bootcamp:v1"
APP = f"create deployment kubernetes-bootcamp --image={V1}"
READY = "rollout status deployment/kubernetes-bootcamp --timeout=90s"
HELLO = f"create deployment hello --image={V1}"
SEEN = f"create deployment seen --image={V1}"
CONFIG = "create configmap greeting --from-literal=GREETING="
POD_OF = "get pods -l app={} -o jsonpath={{.items[0].metadata.name}}"


def deployment(name: str, image: str, command: list[str], limits: dict[str, Any] | None = None) -> str:
    container = {"name": "main", "image": image, "command": command, "resources": {"limits": limits or {}}}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    spec = {"selector": {"matchLabels": {"app": name}}, "template": template}
    return json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec})


def job(name: str, completions: int, parallelism: int, command: str = "true") -> str:
    containers = [{"name": "task", "image": "busybox", "command": ["sh", "-c", command]}]
    template = {"spec": {"restartPolicy": "Never", "containers": containers}}
    spec = {"completions": completions, "parallelism": parallelism, "backoffLimit": 0, "template": template}
    return json.dumps({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})


SLEEP = ["sleep", "3600"]
CAREFUL = deployment("careful", V1, ["node", "server.js"])
NEEDS_GPU = deployment("needs-gpu", "busybox", SLEEP, {"nvidia.com/gpu": 64})
HUNGRY = deployment("hungry", "busybox", SLEEP, {"memory": "64Mi"})
CRASHER = deployment("crasher", "busybox", ["false"])
TYPO = deployment("typo", "busibox", SLEEP)


NONE: dict[str, list[str]] = {  # exercise: commands before the learner did anything
    "04.2": [APP],
    "05.1": [f"{APP} --replicas=2"],
    "05.2": [APP, "create service clusterip lost --tcp=8080", "set selector service/lost app=kubernetes-bootkamp"],
    "06.1": [APP],
    "06.2": [APP],
    "07.1": [f"{CONFIG}'Good morning'"],
    "08.2": [NEEDS_GPU],
    "08.3": [HUNGRY],
    "08.4": [CRASHER, TYPO],
    "11.2": [SEEN, "annotate deployment seen kit/expose=80"],
}

WRONG: list[tuple[str, list[str], Any, str]] = [  # exercise, commands, answer, a word of the message
    ("00.1", [], 0, "0 node"),
    ("00.1", [], "three", "number"),
    ("00.2", ["create configmap hello"], ..., "no key"),
    ("00.2", ["create configmap hello --from-literal=name=Ada"], ..., "no key"),
    ("01.1", [], "docker://1", "No node"),
    ("01.1", [], 7, "text"),
    ("01.2", [], 110, "one node"),
    ("01.2", [], 10**6, "allocatable"),
    ("02.1", ["create deployment hello --image=nginx --replicas=2"], ..., "image"),
    ("02.1", [HELLO], ..., "1 replica, not 2"),
    ("02.2", [HELLO], "Hello! | Running on: web-1 | v=1", "Another Pod"),
    ("02.2", [HELLO], "404 page not found", "greeting"),
    ("02.2", [HELLO], "Hello", "greeting"),
    ("03.1", [APP, READY], "moon", "not the name of a node"),
    ("03.1", [APP, READY], lambda cluster: other_node(cluster), "no Pod"),
    ("03.2", [APP, READY], ("a", "a"), "same"),
    ("03.2", [APP, READY], lambda cluster: (kubectl.run(POD_OF.format("kubernetes-bootcamp")).stdout, "x"), "still there"),
    ("04.1", [APP, READY, "expose deployment/kubernetes-bootcamp --name=inside --port=8080 --type=NodePort"], ..., "NodePort"),
    ("04.1", [APP, READY, "expose deployment/kubernetes-bootcamp --name=inside --port=80"], ..., "8080"),
    ("04.2", [APP, READY, f"run quarantine --image={V1} --labels=app=quarantine"], ..., "none of"),
    ("04.2", ["create deployment kubernetes-bootcamp --image=none:v0", f"run kubernetes-bootcamp-x --image={V1} --labels=app=quarantine"], ..., "not ready yet"),
    ("05.1", [f"{APP} --replicas=4"], ..., "4 replicas"),
    ("05.1", [f"{APP} --replicas=0"], ..., "0 replicas"),
    ("05.2", [APP, READY, "create service clusterip lost --tcp=8080", "set selector service/lost app=bootcamp"], ..., "no ready Pod"),
    ("05.2", [f"{APP} --replicas=2", READY, "create service clusterip lost --tcp=8080", "set selector service/lost app=lost"], ..., "no ready Pod"),
    ("05.3", [], 5, "dies"),
    ("05.3", [], 20, "one fewer"),
    ("05.3", [], 250 / 60, "whole"),
    ("06.1", [APP, 'patch deployment kubernetes-bootcamp -p \'{"spec":{"strategy":{"rollingUpdate":{"maxUnavailable":1,"maxSurge":1}}}}\''], ..., "maxUnavailable"),
    ("06.1", [APP, 'patch deployment kubernetes-bootcamp -p \'{"spec":{"strategy":{"rollingUpdate":{"maxUnavailable":0,"maxSurge":2}}}}\''], ..., "maxSurge"),
    ("06.2", [APP, "set image deployment/kubernetes-bootcamp kubernetes-bootcamp=kubernetes-bootcamp:v99"], ..., "still wants"),
    ("06.2", [APP, READY, "set image deployment/kubernetes-bootcamp kubernetes-bootcamp=kubernetes-bootcamp:v99", "set image deployment/kubernetes-bootcamp kubernetes-bootcamp=kubernetes-bootcamp:v98"], ..., "not complete"),
    ("07.1", [APP, READY, f"{CONFIG}'Good evening'"], ..., "no variable GREETING"),
    ("07.1", [APP, READY, f"{CONFIG}Hello"], ..., "not 'Good evening'"),
    ("07.1", [APP, "set env deployment/kubernetes-bootcamp GREETING=Hello", READY, f"{CONFIG}'Good evening'"], ..., "old text"),
    ("07.2", [f"create deployment careful --image={V1}"], ..., "apply"),
    ("07.2", [CAREFUL], ..., "readinessProbe"),
    ("07.2", [CAREFUL.replace('{"app": "careful"}', '{"app": "kubernetes-bootcamp"}')], ..., "other app"),
    ("08.1", [job("six", 3, 2)], ..., "3 completions"),
    ("08.1", [job("six", 6, 6)], ..., "6 at once"),
    ("08.2", [NEEDS_GPU, "set resources deployment/needs-gpu --limits=nvidia.com/gpu=32"], ..., "32 GPUs"),
    ("08.2", [NEEDS_GPU, "set resources deployment/needs-gpu --limits=nvidia.com/gpu=0"], ..., "ask for one"),
    ("08.3", [HUNGRY, 'patch deployment hungry --type=json -p \'[{"op":"remove","path":"/spec/template/spec/containers/0/resources/limits"}]\''], ..., "no memory limit"),
    ("08.3", [deployment("hungry", "busybox", SLEEP, {"memory": "65Mi"}), "rollout status deployment/hungry"], ..., "too little"),
    ("08.3", [deployment("hungry", "busybox", SLEEP, {"memory": "0"})], ..., "no memory limit"),
    ("08.3", [deployment("hungry", "busybox", ["false"], {"memory": "165Mi"})], ..., "rollout"),
    ("08.4", [CRASHER, TYPO, "set env deployment/crasher TOKEN=x"], ..., "typo"),
    ("08.4", [CRASHER, TYPO, "set image deployment/typo main=busybox"], ..., "crasher"),
    ("08.4", [deployment("crasher", "busybox", SLEEP), TYPO, 'patch deployment crasher --type=json -p \'[{"op":"add","path":"/spec/template/spec/containers/0/envFrom","value":[{"secretRef":{"name":"door"}}]}]\''], ..., "crasher` is mended"),
    ("09.1", [], np.array([12.0, 0.0]), "mean"),
    ("09.1", [], [3, 1], "position"),
    ("09.2", [], 124e6 * 4, "size"),
    ("09.2", [], 7 / 4 * 124e6, "four bytes"),
    ("09.1", [], [3, "x"], "list of two numbers"),
    ("09.1", [], "30", "list of two numbers"),
    ("09.2", [], float("nan"), "number of bytes"),
    ("09.2", [], 868, "bytes"),
    ("09.3", [], lambda _: lambda samples, rank, world: samples[rank], "TypeError"),
    ("09.3", [], lambda _: lambda samples, rank, world: samples, "two ranks"),
    ("09.3", [], lambda _: lambda samples, rank, world: samples[rank::world], "different sizes"),
    ("11.1", [SEEN], ..., "no annotation"),
    ("11.1", [SEEN, "annotate deployment seen kit/expose=80"], ..., "no Service"),
    ("11.2", [SEEN, "annotate deployment seen kit/expose=81", "expose deployment seen --port=80"], ..., "has 80"),
    ("11.2", [SEEN, "annotate deployment seen kit/expose=8080", "expose deployment seen --port=80"], ..., "has 80"),
    ("11.2", [SEEN, "annotate deployment seen kit/expose=8080", "expose deployment seen --port=8080"], ..., "with kubectl"),
]  # fmt: skip

MINE = [exercise for exercise in all_exercises() if not exercise.name.startswith("10")]


def other_node(cluster: Cluster) -> str:
    """Return a node on which the app does not run."""
    pods = cluster.core.list_namespaced_pod(cluster.namespace, label_selector="app=kubernetes-bootcamp").items
    return next(n.metadata.name for n in cluster.core.list_node().items if n.metadata.name != pods[0].spec.node_name)


def do(command: str) -> None:
    """Run a kubectl command, or apply an object given as JSON."""
    result = kubectl.run("apply -f -", stdin=command) if command.startswith("{") else kubectl.run(command)
    assert result.code == 0, result.stderr


@pytest.mark.parametrize("name", [exercise.name for exercise in MINE])
def test_nothing_done_is_not_attempted(lesson: Cluster, record: Path, name: str) -> None:
    for command in NONE.get(name, []):
        do(command)
    result = course.check(name)
    assert result.outcome == NOT_ATTEMPTED
    assert result.text.endswith((".", "`."))
    assert json.loads(record.read_text())["exercises"][name]["tries"] == 0


@pytest.mark.parametrize(
    ("name", "commands", "answer", "word"), WRONG, ids=[f"{case[0]}-{i % 2 + 1}" for i, case in enumerate(WRONG)]
)
def test_a_wrong_answer_is_not_yet_and_says_what_is_missing(
    lesson: Cluster, record: Path, name: str, commands: list[str], answer: Any, word: str
) -> None:
    for command in commands:
        do(command)
    if callable(answer):
        answer = answer(lesson)
    result = eventually(lambda: (r := course.check(name, answer)).outcome == NOT_YET and word in r.text and r, 30)
    assert isinstance(result, course.Result)
    assert not result.correct


def test_two_wrong_answers_or_more_are_tried_for_each_exercise() -> None:
    tried = [case[0] for case in WRONG]
    assert not [exercise.name for exercise in MINE if tried.count(exercise.name) < 2]


@pytest.mark.parametrize(
    ("name", "answer"),
    [("05.3", " 6 "), ("05.3", np.int64(6)), ("09.1", ["3", 0]), ("09.2", Fraction(868_000_000)),
     ("10.3", np.float32(85.7))],
)  # fmt: skip
def test_a_number_counts_whatever_holds_it(record: Path, name: str, answer: Any) -> None:
    assert course.check(name, answer).correct


@pytest.mark.parametrize(("answer", "word"), [(0.857, "Nearly"), (0.3, "Divide"), (-1, "Divide"), ("86 %", "percent")])
def test_how_far_an_answer_in_percent_is_off(record: Path, answer: Any, word: str) -> None:
    result = course.check("10.3", answer)
    assert result.outcome == NOT_YET and word in result.text


def test_once_correct_stays_correct(record: Path) -> None:
    assert course.check("05.3", 6).outcome == CORRECT
    assert course.check("05.3", 4).outcome == NOT_YET
    row = next(row for row in course.progress_table() if row["exercise"] == "05.3")
    assert (row["outcome"], row["tries"]) == (CORRECT, 2)
    assert row["solved"] <= time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


def test_every_exercise_has_hints_and_a_solution() -> None:
    for exercise in MINE:
        assert len(exercise.hints) >= 2 and all(exercise.hints)
        assert exercise.solution.strip() and exercise.title
        assert find(exercise.name) is exercise
