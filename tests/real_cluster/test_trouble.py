"""What goes wrong on a cluster of somebody else's is said in a sentence with the mend, and nothing is left unsaid."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import KIT, EmbeddedCluster, eventually
from real_cluster.conftest import Learner
from real_cluster.door import Door, Request

import kitlib
from kitlib import course, train
from kitlib.errors import KitError
from kitlib.train import api as train_api
from kitlib.train import explain
from kitlib.train import run as runs
from kitlib.train.api import Api

SMALL = {"n_layer": 2, "n_embd": 64, "block_size": 32, "batch_size": 4, "data_bytes": 300_000, "gpus_per_worker": 0}
EXEC = "client.authentication.k8s.io/v1"
connecting = sys.modules["kitlib.connect"]


@contextlib.contextmanager
def kernel_of(who: EmbeddedCluster) -> Iterator[io.StringIO]:
    """Be a learner's kernel for a while; gives what is printed meanwhile."""
    before, outer = dict(os.environ), connecting._outer
    os.environ.clear()
    os.environ.update(who.env)
    connecting._outer = who.env["KUBECONFIG"]
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            yield printed
    finally:
        os.environ.clear()
        os.environ.update(before)
        connecting._outer = outer


def refused(who: EmbeddedCluster) -> str:
    """Return the line with which `connect` refuses."""
    with kernel_of(who), pytest.raises(KitError) as raised:
        kitlib.connect("02")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def connected(who: EmbeddedCluster, clean: bool = False) -> str:
    """Connect, clean up again if so wanted, and return what was printed."""
    with kernel_of(who) as printed:
        cluster = kitlib.connect("02")
        if clean:
            cluster.clean_up()
    return printed.getvalue()


@pytest.fixture
def api(school: EmbeddedCluster, door: Door, learner: Learner, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """A run's API through the door, in a namespace of its own."""
    who = learner(door)
    monkeypatch.setenv("KUBECONFIG", who.env["KUBECONFIG"])
    monkeypatch.setenv("KIT_HOME", who.env["KIT_HOME"])
    school.kubectl("create", "namespace", "trouble")
    yield Api("trouble")
    school.kubectl("delete", "namespace", "trouble")


def submit(api: Api, **options: Any) -> train.Run:
    return runs.submit(train.describe(**{**SMALL, "workers": 1, "steps": 5, **options}), api)


def until_explained(run: train.Run, *words: str) -> str:
    def look() -> str:
        said = run.explain()
        assert all(word in said for word in words), said
        return said

    return str(eventually(look, 60))


# --- on the way in


def test_expired_credentials_say_log_in_again(door: Door, learner: Learner) -> None:
    who = learner(door)
    door.token = "another one now"
    said = refused(who)
    assert "does not accept the credentials of context 'school' (401)" in said and "Log in" in said


def test_an_account_without_namespaces_is_told_whom_to_ask(narrow_door: Door, learner: Learner) -> None:
    narrow_door.only = "team-b"
    who = learner(narrow_door)
    text = open(who.env["KUBECONFIG"]).read().replace("    namespace: team-b\n", "")
    open(who.env["KUBECONFIG"], "w").write(text)
    said = refused(who)
    assert "lacks a right" in said and "KIT_NAMESPACE" in said


def test_the_contexts_namespace_is_used_if_it_is_empty_and_refused_if_not(
    narrow_door: Door, learner: Learner, school: EmbeddedCluster
) -> None:
    school.kubectl("create", "configmap", "theirs", "--namespace=team-a")
    who = learner(narrow_door)
    said = refused(who)
    assert "team-a, the context's own, is in use (ConfigMap/theirs" in said and "KIT_NAMESPACE=team-a" in said
    school.kubectl("delete", "configmap", "theirs", "--namespace=team-a")
    assert "team-a (assigned to you)" in connected(who, clean=True)


def test_a_context_that_looks_like_production_needs_a_second_word(door: Door, learner: Learner) -> None:
    who = learner(door, KIT_PRODUCTION_PATTERN="^sch")
    assert "looks like production" in refused(who)
    assert "looks like production" in refused(learner(door, KIT_PRODUCTION_PATTERN=r":\d+$"))
    assert "kit-02-ada" in connected(learner(door, KIT_PRODUCTION_PATTERN="^sch", KIT_ALLOW_CONTEXT="school"))
    assert "kit-02-ada" in connected(learner(door, KIT_PRODUCTION_PATTERN=""), clean=True)
    assert "no regular expression" in refused(learner(door, KIT_PRODUCTION_PATTERN="("))


def test_connecting_says_what_it_makes_and_how_to_remove_it(door: Door, learner: Learner) -> None:
    who = learner(door)
    said = connected(who, clean=True)
    assert not (who.home / "cluster.json").exists(), "the embedded cluster was started"
    assert "everything goes into namespace kit-02-ada" in said
    assert "kit clean --context school" in said and "kit-02-ada is gone" in said


def test_a_credential_program_beside_the_kubeconfig_is_asked_for_the_token(door: Door, learner: Learner) -> None:
    who = learner(door)
    path = Path(who.env["KUBECONFIG"])
    credential = {"apiVersion": EXEC, "kind": "ExecCredential", "status": {"token": door.token}}
    program = path.parent / "log-in"
    program.write_text(f"#!/bin/sh\necho '{json.dumps(credential)}'\n")
    program.chmod(0o700)
    config = yaml.safe_load(path.read_text())
    asked = {"apiVersion": EXEC, "command": "./log-in", "interactiveMode": "Never"}
    config["users"] = [{"name": "u", "user": {"exec": asked}}]
    path.write_text(yaml.safe_dump(config))
    with kernel_of(who):
        cluster = kitlib.connect("02")
        assert kitlib.kubectl.run("get pods").code == 0
        cluster.clean_up()


def test_without_a_right_to_see_nodes_the_quota_or_the_learner_counts_gpus(
    narrow_door: Door, learner: Learner, school: EmbeddedCluster
) -> None:
    with kernel_of(learner(narrow_door, KIT_NAMESPACE="team-a")) as printed:
        cluster = kitlib.connect("02")
        assert cluster.gpu_count() == 0 and "say how many you may use with KIT_USABLE_GPUS" in printed.getvalue()
        school.kubectl("create", "quota", "gpus", "--hard=requests.nvidia.com/gpu=2", "--namespace=team-a")
        assert cluster.gpu_count() == 2
        os.environ["KIT_USABLE_GPUS"] = "3"
        assert cluster.gpu_count() == 3


def test_without_a_right_to_see_nodes_a_service_is_reached_through_the_api(narrow_door: Door, learner: Learner) -> None:
    with kernel_of(learner(narrow_door, KIT_NAMESPACE="team-a")):
        cluster = kitlib.connect("02")
        course.ensure_app(service=True)
        with urllib.request.urlopen(cluster.service_url("kubernetes-bootcamp"), timeout=20) as answer:
            assert b"Hello Kubernetes bootcamp!" in answer.read()
        cluster.clean_up()


# --- runs that are refused


def test_no_gpu_is_said_with_what_the_cluster_has(api: Api) -> None:
    run = submit(api, workers=4, gpus_per_worker=1)
    until_explained(run, "Rank 3 waits for 1 GPU", "the cluster has 3")
    run.delete()


def test_an_image_that_cannot_be_pulled_is_said_with_the_mend(api: Api) -> None:
    run = submit(api, image="registry.example/nobody/nothing:v1")
    until_explained(run, "Image", "pull_secret=")
    run.delete()


def test_a_quota_that_is_used_up_is_said_with_the_mend(api: Api, school: EmbeddedCluster) -> None:
    school.kubectl("create", "quota", "small", "--hard=pods=1", "--namespace=trouble")
    run = submit(api, workers=2)
    until_explained(run, "1 of 2 workers were refused", "exceeded quota: small", "kubectl describe quota")
    run.delete()


def test_a_pod_security_refusal_is_said_with_the_mend(api: Api) -> None:
    message = 'Error creating: pods "one-0-x7" is forbidden: violates PodSecurity "restricted:latest": hostPath volumes'
    involved = {"kind": "Job", "name": "one", "namespace": "trouble", "apiVersion": "batch/v1"}
    event = {"metadata": {"name": "one.1"}, "involvedObject": involved, "reason": "FailedCreate", "message": message}
    api.core.create_namespaced_event("trouble", {**event, "type": "Warning"})
    (said,) = explain.not_made("one", 2, [], api)
    assert said.startswith("2 of 2 workers were refused: violates PodSecurity") and "pvc:CLAIM" in said


def test_nodes_that_no_worker_may_use_are_said_with_the_mend(api: Api) -> None:
    run = submit(api, node_selector={"disk": "fast"})
    until_explained(run, "no node fits", "node_selector=")
    run.delete()


@pytest.mark.parametrize(
    ("status", "message", "mend"),
    [
        (401, "Unauthorized", "log in to the cluster again"),
        (403, 'jobs.batch is forbidden: User "ada" cannot create resource "jobs"', "ask for a role"),
        (403, 'admission webhook "no-jobs.example" denied the request: ask first', "its own words"),
    ],
)
def test_a_run_that_may_not_be_made_leaves_nothing_and_says_what_to_do(
    api: Api, door: Door, school: EmbeddedCluster, status: int, message: str, mend: str
) -> None:
    door.refuse = lambda request: (status, "No", message) if request.method == "POST" else None
    with pytest.raises(KitError) as raised:
        submit(api)
    assert message in str(raised.value) and mend in str(raised.value) and "\n" not in str(raised.value)
    assert not school.get("jobs", "-n", "trouble")["items"]


# --- a network that loses things


def posts(request: Request) -> bool:
    return request.method == "POST"


def test_lost_answers_make_nothing_twice(api: Api, door: Door, school: EmbeddedCluster) -> None:
    """Each object is made, the answer gets lost, and the second try finds what the first has made."""
    lost: list[str] = []

    def once(request: Request) -> bool:
        found = request.resource()
        new = posts(request) and found is not None and found[2] not in lost
        lost.extend([found[2]] if new and found else [])
        return new

    door.lose = once
    run = submit(api, workers=2)
    assert sorted(lost) == ["configmaps", "jobs", "services"]
    run.wait(timeout=120, file=io.StringIO())
    assert run.metrics()["finished"] and len(run.state().pods) == 2
    assert len(school.get("jobs", "-n", "trouble")["items"]) == 1
    run.delete()


def test_a_cluster_that_is_gone_in_mid_run_leaves_word_of_what_is_there(
    api: Api, door: Door, school: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_api, "PATIENCE", 1.0)
    run = submit(api, steps=100_000, name="cut-off")
    run.wait(timeout=120, file=io.StringIO(), until=lambda known: any(one["kind"] == "step" for one in known))
    door.close()
    with pytest.raises(KitError) as raised:
        run.wait(timeout=60, file=io.StringIO())
    said = str(raised.value)
    assert "does not answer" in said and "kubectl delete job cut-off --namespace trouble" in said
    door.open = True
    assert run.state().phase == "Running", "it went on"
    run.delete()
    assert not school.get("jobs,pods,services", "-n", "trouble")["items"]


def test_the_train_command_leaves_nothing_after_ctrl_c(door: Door, learner: Learner, school: EmbeddedCluster) -> None:
    who = learner(door)
    words = ["train", "--workers", "1", "--gpus-per-worker", "0", "--steps", "5000", "--out", str(who.home / "out")]
    process = subprocess.Popen([*KIT, *words], env=who.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        eventually(lambda: school.get("jobs", "-n", "kit-shell-ada")["items"], 60)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 130, (out, err)
    assert "kit-shell-ada" not in json.dumps(school.get("namespaces")["items"])


# --- afterwards


def test_clean_lists_what_the_kit_made_and_removes_it(door: Door, learner: Learner, school: EmbeddedCluster) -> None:
    who = learner(door)
    connected(who)
    listed = who.kit("clean", "--context", "school", code=None).stdout
    assert "namespace kit-02-ada" in listed and school.get("namespace", "kit-02-ada")
    assert "nothing of the kit is left" in learner(door, KIT_LEARNER="bob").kit("clean", "--yes").stdout
    assert "namespace kit-02-ada" in learner(door, KIT_LEARNER="bob").kit("clean", "--everyone", code=None).stdout
    assert "removed 1" in who.kit("clean", "--yes").stdout
    eventually(lambda: "kit-02-ada" not in json.dumps(school.get("namespaces")["items"]), 60)


def test_clean_in_a_single_namespace_leaves_what_is_not_the_kits(
    narrow_door: Door, learner: Learner, school: EmbeddedCluster
) -> None:
    school.kubectl("create", "configmap", "theirs", "--namespace=team-a")
    who = learner(narrow_door, KIT_NAMESPACE="team-a")
    with kernel_of(who):
        kitlib.connect("02")
        course.ensure_app(service=True)
    listed = who.kit("clean", "--yes").stdout.split("\n")
    assert {"deployment team-a/kubernetes-bootcamp", "service team-a/kubernetes-bootcamp"} <= set(listed)
    left = school.kubectl("get", "all,configmaps", "--namespace=team-a", "-o", "name").stdout.split()
    assert left == ["configmap/kube-root-ca.crt", "configmap/theirs"]
