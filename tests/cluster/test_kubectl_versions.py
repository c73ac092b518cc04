"""Real kubectl, old and new, does real work unchanged.

The binaries are the one on PATH and those that `KIT_TEST_KUBECTLS` lists (`.ci/run` fetches an old and a new one).
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from harness import EmbeddedCluster, eventually, kubectls, minor_of

BOOTCAMP = "gcr.io/google-samples/kubernetes-bootcamp:v1"
MANIFEST = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
---
apiVersion: v1
kind: Service
metadata: {name: app}
spec: {selector: {app: app}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, labels: {app: app}}
spec:
  replicas: 2
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: app
        image: gcr.io/google-samples/kubernetes-bootcamp:v1
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
"""


@dataclass
class Kubectl:
    """One kubectl binary on the shared cluster, in a namespace of its own."""

    path: str
    cluster: EmbeddedCluster
    namespace: str
    env: dict[str, str]

    def __call__(self, *arguments: str, code: int = 0, stdin: str | None = None) -> str:
        argv = [self.path, "-n", self.namespace, *arguments]
        done = subprocess.run(argv, env=self.env, input=stdin, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, f"{' '.join(argv)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @property
    def minor(self) -> int:
        return minor_of(self.path)

    def pod(self) -> str:
        return self("get", "pods", "-o", "name").split()[0]


@pytest.fixture(scope="module", params=kubectls(), ids=lambda path: re.sub(r"\W+", "-", path)[-20:])
def kubectl(
    request: pytest.FixtureRequest, cluster: EmbeddedCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kubectl]:
    env = {**cluster.env, "HOME": str(tmp_path_factory.mktemp("home"))}
    made = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "kubectl-"}})
    name = cluster.kubectl("create", "-f", "-", "-o", "name", stdin=made).stdout.strip().partition("/")[2]
    mine = Kubectl(request.param, cluster, name, env)
    mine("apply", "-f", "-", stdin=MANIFEST)
    mine("rollout", "status", "deployment/app", "--timeout=60s")
    yield mine
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def test_apply_diff_and_server_side_apply_agree(kubectl: Kubectl) -> None:
    kubectl("diff", "-f", "-", stdin=MANIFEST)
    changed = MANIFEST.replace("blue", "green")
    kubectl("diff", "-f", "-", stdin=changed, code=1)
    kubectl("apply", "-f", "-", stdin=changed)
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=MANIFEST)
    assert kubectl("get", "configmap", "settings", "-o", "jsonpath={.data.colour}") == "blue"


@pytest.mark.parametrize(
    "arguments",
    [
        ("namespace", "made-{n}"),
        ("deployment", "made", f"--image={BOOTCAMP}"),
        ("job", "made", "--image=busybox", "--", "true"),
        ("configmap", "made", "--from-literal=a=b"),
        ("secret", "generic", "made", "--from-literal=a=b"),
        ("serviceaccount", "made"),
        ("role", "made", "--verb=get", "--resource=pods"),
        ("quota", "made", "--hard=pods=100"),
        ("cronjob", "made", "--image=busybox", "--schedule=0 0 1 1 *", "--", "true"),
        ("ingress", "made", "--rule=host/path=app:80"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_kubectl_create_makes_every_kind_it_knows(kubectl: Kubectl, arguments: tuple[str, ...]) -> None:
    if arguments[0] == "cronjob" and kubectl.minor < 21:
        return  # it asks for batch/v1beta1, which Kubernetes 1.25 removed
    words = [word.format(n=kubectl.minor) for word in arguments]
    kubectl("create", *words)
    name = next(word for word in words if word.startswith("made"))
    kubectl("delete", words[0], name, "--wait=false")


def test_logs_and_exec_reach_the_container(kubectl: Kubectl) -> None:
    pod = kubectl.pod()
    assert "Kubernetes Bootcamp App Started" in kubectl("logs", pod)
    assert kubectl("logs", "-l", "app=app", "--tail=1").count("Running On") == 2
    assert kubectl("exec", pod, "--", "sh", "-c", "echo $HOSTNAME").strip() == pod.removeprefix("pod/")
    assert kubectl("exec", "-i", pod, "--", "cat", stdin="x" * 300_000) == "x" * 300_000
    kubectl("exec", pod, "--", "sh", "-c", "exit 3", code=3)


def test_port_forward_carries_http(kubectl: Kubectl) -> None:
    argv = [kubectl.path, "-n", kubectl.namespace, "port-forward", "deployment/app", ":8080"]
    forward = subprocess.Popen(argv, env=kubectl.env, stdout=subprocess.PIPE, text=True)
    try:
        assert forward.stdout is not None
        port = re.search(r"127.0.0.1:(\d+)", forward.stdout.readline())
        assert port
        for _ in range(5):
            with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/", timeout=20) as answer:
                assert b"Hello Kubernetes bootcamp!" in answer.read()
    finally:
        forward.terminate()
        forward.wait()


def test_scale_update_and_undo(kubectl: Kubectl) -> None:
    kubectl("scale", "deployment/app", "--replicas=3")
    kubectl("rollout", "status", "deployment/app", "--timeout=60s")
    kubectl("set", "image", "deployment/app", "app=jocatalin/kubernetes-bootcamp:v2")
    kubectl("rollout", "status", "deployment/app", "--timeout=60s")
    assert kubectl("rollout", "history", "deployment/app").count("<none>") >= 2
    kubectl("rollout", "undo", "deployment/app")
    kubectl("rollout", "status", "deployment/app", "--timeout=60s")
    assert BOOTCAMP in kubectl("get", "deployment", "app", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
    kubectl("rollout", "restart", "deployment/app")
    kubectl("rollout", "status", "deployment/app", "--timeout=60s")


@pytest.mark.parametrize("kind", ["pods", "deployments", "services", "nodes", "configmaps", "replicasets"])
def test_get_and_describe_have_something_to_say(kubectl: Kubectl, kind: str) -> None:
    assert len(kubectl("get", kind, "-o", "wide").splitlines()) >= 2
    assert "Name:" in kubectl("describe", kind)


def test_label_annotate_patch_and_edit(kubectl: Kubectl) -> None:
    kubectl("label", "configmap/settings", "tier=front")
    kubectl("annotate", "configmap/settings", "note=hello")
    kubectl("patch", "configmap/settings", "-p", '{"data": {"size": "2"}}')
    kubectl("patch", "configmap/settings", "--type=json", "-p", '[{"op": "add", "path": "/data/x", "value": "3"}]')
    editing = {**kubectl.env, "KUBE_EDITOR": "sed -i s/blue/red/"}
    Kubectl(kubectl.path, kubectl.cluster, kubectl.namespace, editing)("edit", "configmap/settings")
    found = json.loads(kubectl("get", "configmap", "settings", "-o", "json"))
    assert found["data"] == {"colour": "red", "size": "2", "x": "3"}
    assert found["metadata"]["labels"]["tier"] == "front"


def test_explain_knows_the_fields(kubectl: Kubectl) -> None:
    assert "maxSurge" in kubectl("explain", "deployment.spec.strategy.rollingUpdate")


def test_wait_and_delete(kubectl: Kubectl) -> None:
    kubectl("create", "job", "short", "--image=busybox", "--", "true")
    kubectl("wait", "--for=condition=complete", "job/short", "--timeout=60s")
    kubectl("delete", "job", "short")
    kubectl("get", "job", "short", code=1)


def test_cordon_drain_and_uncordon(kubectl: Kubectl) -> None:
    kubectl("cordon", "node-3")
    assert "SchedulingDisabled" in kubectl("get", "node", "node-3")
    kubectl("uncordon", "node-3")
    assert "SchedulingDisabled" not in kubectl("get", "node", "node-3")


def test_a_dry_run_asks_the_server_and_changes_nothing(kubectl: Kubectl) -> None:
    changed = MANIFEST.replace("replicas: 2", "replicas: 5")
    assert "server dry run" in kubectl("apply", "--dry-run=server", "-f", "-", stdin=changed)
    assert kubectl("get", "deployment", "app", "-o", "jsonpath={.spec.replicas}") != "5"


def test_debug_adds_an_ephemeral_container_or_copies_the_pod(kubectl: Kubectl) -> None:
    if kubectl.minor < 25:
        return  # `debug` was `alpha debug`, or uses an older form of the API
    name = kubectl.pod().removeprefix("pod/")
    kubectl("debug", name, "--image=busybox", "--container=look", "--", "echo", "hello from here")
    eventually(lambda: "hello from here" in kubectl("logs", name, "-c", "look"))
    kubectl("debug", name, "--image=busybox", "--copy-to=copy", "--", "true")
    kubectl("delete", "pod", "copy", "--wait=false")


def test_a_certificate_can_be_asked_for_and_approved(kubectl: Kubectl) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "me")])
    asked = x509.CertificateSigningRequestBuilder().subject_name(subject)
    signed = asked.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM)
    spec = {"request": base64.b64encode(signed).decode(), "signerName": "example.com/none", "usages": ["client auth"]}
    name = kubectl.namespace
    request = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name}}
    kubectl("create", "-f", "-", stdin=json.dumps({**request, "spec": spec}))
    assert "approved" in kubectl("certificate", "approve", name)
    row = kubectl("get", "csr", name, "--no-headers").split()
    assert (row[-1], "kubernetes-admin" in row) == ("Approved", True)
    kubectl("delete", "csr", name)


def test_a_user_may_act_as_another(kubectl: Kubectl) -> None:
    if kubectl.minor >= 28:
        assert re.search(r"Username\s+bob", kubectl("auth", "whoami", "--as=bob"))


def test_questions_about_rights_and_resources(kubectl: Kubectl) -> None:
    assert kubectl("auth", "can-i", "create", "pods").strip() == "yes"
    assert "deployments" in kubectl("api-resources")
    assert "apps/v1" in kubectl("api-versions")
    assert "app-" in str(eventually(lambda: kubectl("top", "pods")))
