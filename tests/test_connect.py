"""Which cluster a notebook gets, and what it says when it gets none."""

from __future__ import annotations

import base64
import http.server
import json
import os
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import EmbeddedCluster, eventually
from IPython.core.interactiveshell import InteractiveShell
from kubernetes import client

import kitlib
from kitlib import KitError, course, kubectl, kubectl_program
from kitlib.session import Cluster, gpus

connecting = sys.modules["kitlib.connect"]


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Path]:
    """The environment of a fresh kernel: an empty HOME and KIT_HOME, nothing chosen. Returns HOME."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(("KIT_", "KUBE")) or name.lower() == "no_proxy":
            del os.environ[name]
    os.environ.update(HOME=str(tmp_path / "home"), KIT_HOME=str(tmp_path / "kit"), KIT_LEARNER="Ada L.")
    (tmp_path / "home" / ".kube").mkdir(parents=True)
    outer, connecting._outer = connecting._outer, None
    yield tmp_path / "home"
    connecting._outer = outer
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def embedded(kernel: Path, cluster: EmbeddedCluster) -> EmbeddedCluster:
    """The same, with the shared embedded cluster running in KIT_HOME."""
    os.environ["KIT_HOME"] = str(cluster.home)
    return cluster


def kubeconfig(server: str, *names: str, **user: Any) -> dict[str, Any]:
    """Return a kubeconfig whose contexts all lead to one server; the first is current."""
    return {
        "current-context": names[0],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": name, "context": {"cluster": "c", "user": "u"}} for name in names],
    }


def write(home: Path, config: dict[str, Any]) -> Path:
    path = home / ".kube" / "config"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def api(kernel: Path) -> Iterator[Callable[[int, str], str]]:
    """Start an API server that gives one answer to everything but its version; returns its address."""
    servers = []

    def start(code: int, message: str) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                version = code != 401 and self.path.startswith("/version")
                good = {"major": "1", "minor": "30", "gitVersion": "v1.30.0", **dict.fromkeys(EMPTY, "")}
                bad = {"kind": "Status", "status": "Failure", "message": message, "code": code}
                body = json.dumps(good if version else bad).encode()
                self.send_response(200 if version else code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


EMPTY = ("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform")


# --- the choice -----------------------------------------------------------------------------------------------


def test_the_current_context_is_never_taken_by_itself(embedded: EmbeddedCluster, kernel: Path) -> None:
    write(kernel, kubeconfig("https://127.0.0.1:1", "somebody-elses"))
    made = kitlib.connect("choice")
    assert made.embedded and made.context == "kit"
    made.clean_up()


def test_a_context_is_taken_when_it_is_named(embedded: EmbeddedCluster, kernel: Path) -> None:
    path = write(kernel, yaml.safe_load((embedded.home / "kubeconfig").read_text()))
    text = path.read_bytes()
    os.environ["KIT_CLUSTER"] = "context:kit"
    made = kitlib.connect("named")
    assert (made.engine, made.namespace) == ("context", "kit-named-ada-l")
    assert os.environ["KUBECONFIG"] == str(made.kubeconfig) != str(path)
    assert kubectl.run("config view --minify -o jsonpath={..namespace}").stdout == made.namespace
    assert path.read_bytes() == text
    with pytest.raises(KitError, match="Only nodes of the embedded cluster"):
        made.kill_node("node-1")
    made.clean_up()


def test_an_unknown_context_names_those_that_exist(kernel: Path) -> None:
    write(kernel, kubeconfig("https://127.0.0.1:1", "lab", "home"))
    with pytest.raises(KitError, match="no context 'lap'; your kubeconfig has: home, lab"):
        kitlib.connect("x", context="lap")


@pytest.mark.parametrize("name", ["prod", "eks-production-eu", "gke_acme_live_1", "PRD-2"])
def test_what_looks_like_production_must_be_confirmed(kernel: Path, name: str) -> None:
    write(kernel, kubeconfig("https://127.0.0.1:1", name))
    with pytest.raises(KitError, match="looks like production"):
        kitlib.connect("x", context=name)
    with pytest.raises(KitError, match="No answer from"):
        kitlib.connect("x", context=name, confirm=name)
    os.environ["KIT_ALLOW_CONTEXT"] = name
    with pytest.raises(KitError, match="No answer from"):
        kitlib.connect("x", context=name)


@pytest.mark.parametrize("name", ["products", "deliver", "alive-lab", "reproduce"])
def test_other_names_are_no_production(kernel: Path, name: str) -> None:
    write(kernel, kubeconfig("https://127.0.0.1:1", name))
    with pytest.raises(KitError, match="No answer from"):
        kitlib.connect("x", context=name)


def test_nonsense_in_kit_cluster_is_refused(kernel: Path) -> None:
    os.environ["KIT_CLUSTER"] = "minikube"
    with pytest.raises(KitError, match="must be `embedded`, `in-cluster` or `context:NAME`"):
        kitlib.connect("x")


def test_several_kubeconfig_files_are_merged_and_file_names_made_absolute(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "one", tmp_path / "two"
    first.parent.mkdir()
    one = kubeconfig("https://one", "x")
    one["clusters"][0]["cluster"]["certificate-authority"] = "ca.crt"
    first.write_text(yaml.safe_dump(one))
    second.write_text(yaml.safe_dump(kubeconfig("https://two", "x", "y")))
    merged = connecting.read_kubeconfigs(f"{first}{os.pathsep}{second}{os.pathsep}{tmp_path}/missing")
    found = connecting.single_context(merged, "x")
    assert found["clusters"][0]["cluster"] == {
        "server": "https://one",
        "certificate-authority": str(tmp_path / "a" / "ca.crt"),
    }
    assert [entry["name"] for entry in connecting.single_context(merged, "y")["contexts"]] == ["y"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"contexts: [", "cannot be read as a kubeconfig"),
        (b"\xff\xfe\x00", "cannot be read as a kubeconfig"),
        (b"only words", "is no kubeconfig"),
        (b"contexts: [lab]", "is no kubeconfig"),
        (b"contexts: [{context: {cluster: lab}}]", "is no kubeconfig"),
    ],
)
def test_a_damaged_kubeconfig_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "config"
    path.write_bytes(content)
    with pytest.raises(KitError, match=f"{path} {said}"):
        connecting.read_kubeconfigs(str(path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda config: config["contexts"][0].pop("context"), "names no cluster"),
        (lambda config: config["clusters"].clear(), "names cluster '.*', which is missing"),
        (lambda config: config["clusters"][0].update(cluster={"server": "lab.example"}), "https://"),
    ],
)
def test_a_context_that_leads_nowhere_is_named(change: Callable[[Any], object], said: str) -> None:
    config = kubeconfig("https://one", "x")
    change(config)
    with pytest.raises(KitError, match=said):
        connecting.single_context(config, "x")


def test_in_cluster_needs_a_service_account(kernel: Path) -> None:
    os.environ["KIT_CLUSTER"] = "in-cluster"
    with pytest.raises(KitError, match="only inside a Pod"):
        kitlib.connect("x")


def test_in_a_pod_the_service_account_is_used(
    embedded: EmbeddedCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load((embedded.home / "kubeconfig").read_text())
    server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    (tmp_path / "token").write_text(user["token"])
    authority = server.get("certificate-authority-data")
    text = base64.b64decode(authority) if authority else Path(server["certificate-authority"]).read_bytes()
    (tmp_path / "ca.crt").write_bytes(text)
    (tmp_path / "namespace").write_text("default")
    monkeypatch.setattr(connecting, "SERVICE_ACCOUNT", tmp_path)
    host, _, port = server["server"].removeprefix("https://").partition(":")
    os.environ.update(KIT_CLUSTER="in-cluster", KUBERNETES_SERVICE_HOST=host, KUBERNETES_SERVICE_PORT=port)
    made = kitlib.connect("pod")
    assert made.engine == "in-cluster"
    assert kubectl.run("get serviceaccounts").code == 0
    made.clean_up()


# --- what can be wrong ------------------------------------------------------------------------------------------


def test_a_cluster_that_is_gone_is_one_sentence(kernel: Path) -> None:
    write(kernel, kubeconfig("https://127.0.0.1:1", "lab"))
    with pytest.raises(KitError, match=r"No answer from https://127.0.0.1:1 \(context 'lab'\)"):
        kitlib.connect("x", context="lab")


def test_expired_credentials_are_one_sentence(api: Callable[[int, str], str], kernel: Path) -> None:
    write(kernel, kubeconfig(api(401, "Unauthorized"), "lab", token="old"))
    with pytest.raises(KitError, match="does not accept the credentials .* expired"):
        kitlib.connect("x", context="lab")


def test_missing_rights_are_said_in_the_servers_words(api: Callable[[int, str], str], kernel: Path) -> None:
    write(kernel, kubeconfig(api(403, "namespaces is forbidden: you cannot create"), "lab", token="t"))
    with pytest.raises(KitError, match="lacks a right: namespaces is forbidden"):
        kitlib.connect("x", context="lab")


def test_a_credential_program_that_is_missing_is_one_sentence(kernel: Path) -> None:
    program = {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-login", "interactiveMode": "Never"}
    write(kernel, kubeconfig("https://127.0.0.1:1", "lab", exec=program))
    with pytest.raises(KitError, match="lab"):
        kitlib.connect("x", context="lab")


def test_errors_show_no_traceback() -> None:
    assert KitError("Do this.")._render_traceback_() == ["KitError: Do this."]


# --- the namespace ----------------------------------------------------------------------------------------------


def test_connecting_again_leads_back_to_the_same_namespace(
    embedded: EmbeddedCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    first = kitlib.connect("again")
    kubectl.run("create configmap kept --from-literal=a=b")
    second = kitlib.connect("again")
    assert first.namespace == second.namespace == "kit-again"
    assert second.core.read_namespaced_config_map("kept", second.namespace).data == {"a": "b"}
    said = capsys.readouterr().out
    assert "kit-again (new)" in said and "kit-again (continued)" in said
    second.clean_up()
    third = kitlib.connect("again")
    assert kubectl.run("get configmap kept").code == 1
    third.clean_up()


def test_it_says_where_you_are(embedded: EmbeddedCluster, capsys: pytest.CaptureFixture[str]) -> None:
    made = kitlib.connect("where")
    said = capsys.readouterr().out
    for part in ("embedded", made.version, "Context    kit", "3 of 3 Ready", "simulated (CPU)", "kit-where"):
        assert part in said
    made.clean_up()


def test_it_says_how_a_silent_node_is_switched_on(embedded: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    made = kitlib.connect("silent")
    nodes = made.core.list_node()
    assert "switch on" not in made.describe()
    for condition in nodes.items[1].status.conditions:
        condition.status = "Unknown"
    monkeypatch.setattr(made.core, "list_node", lambda **_: nodes)
    assert '2 of 3 Ready; switch on: cluster.start_node("node-2")' in made.describe()
    made.clean_up()


HELD = """
apiVersion: v1
kind: Pod
metadata: {name: held, finalizers: [kit.test/hold]}
spec: {nodeName: node-2, containers: [{name: main, image: busybox, command: [sleep, "600"]}]}
"""


def test_a_clean_up_that_a_silent_node_holds_up_says_so_and_how_it_goes_on(
    embedded: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = kitlib.connect("held")
    kubectl.run("apply -f -", stdin=HELD)
    nodes = made.core.list_node()
    monkeypatch.setattr(made.core, "list_node", lambda **_: nodes)
    for condition in nodes.items[1].status.conditions:
        condition.status = "Unknown"
    monkeypatch.setattr(sys.modules["kitlib.session"], "SILENCE", 0.0)
    made.clean_up()
    assert "waits for its Pod held on node-2, which is off" in capsys.readouterr().out.splitlines()[-1]
    kubectl.run("""patch pod held --type=merge -p '{"metadata": {"finalizers": null}}'""")
    for condition in nodes.items[1].status.conditions:
        condition.status = "True"
    made.clean_up()
    assert "is gone" in capsys.readouterr().out


def test_the_namespace_is_labelled(embedded: EmbeddedCluster) -> None:
    made = kitlib.connect("labels")
    labels = made.core.read_namespace(made.namespace).metadata.labels
    assert labels["app.kubernetes.io/part-of"] == "kit" and labels["kit/course"] == "labels"
    made.clean_up()


def test_a_namespace_of_somebody_else_is_left_alone(embedded: EmbeddedCluster) -> None:
    embedded.kubectl("create", "namespace", "kit-taken")
    with pytest.raises(KitError, match="exists and is not the kit's.*kubectl delete namespace kit-taken"):
        kitlib.connect("taken")
    embedded.kubectl("get", "namespace", "kit-taken")
    embedded.kubectl("delete", "namespace", "kit-taken")


def test_in_an_assigned_namespace_what_was_there_before_stays(embedded: EmbeddedCluster, namespace: str) -> None:
    embedded.kubectl("create", "configmap", "theirs", f"--namespace={namespace}")
    os.environ["KIT_NAMESPACE"] = namespace
    made = kitlib.connect("assigned")
    assert made.namespace == namespace
    kubectl.run("create configmap ours")
    again = kitlib.connect("assigned")
    kubectl.run("create deployment app --image=nginx")
    again.clean_up()
    assert kubectl.run("get configmap theirs").code == 0
    assert kubectl.run("get configmap ours").code == kubectl.run("get deployment app").code == 1
    assert kubectl.run("get pods,replicasets -o name").stdout == ""


def test_a_namespace_made_for_the_course_is_emptied_but_kept(embedded: EmbeddedCluster, namespace: str) -> None:
    embedded.kubectl("label", "namespace", namespace, "app.kubernetes.io/part-of=kit")
    os.environ["KIT_NAMESPACE"] = namespace
    made = kitlib.connect("emptied")
    kubectl.run("create configmap mine")
    kubectl.run("create deployment app --image=nginx --replicas=0")
    made.clean_up()
    assert kubectl.run("get namespace", show=False).code == 0
    assert kubectl.run("get configmap mine").code == kubectl.run("get deployment app").code == 1


def test_an_assigned_namespace_must_exist(embedded: EmbeddedCluster) -> None:
    os.environ["KIT_NAMESPACE"] = "no-such"
    with pytest.raises(KitError, match="KIT_NAMESPACE names 'no-such'"):
        kitlib.connect("x")


# --- the way out ------------------------------------------------------------------------------------------------


def test_clean_up_may_be_called_at_any_moment(
    embedded: EmbeddedCluster, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = kitlib.connect("out")
    (made.folder / "file").write_text("x")
    checkpoints = embedded.home / "train" / made.namespace / "run.abc"
    checkpoints.mkdir(parents=True)
    os.chdir(made.folder)
    proxy = kubectl.proxy(port=0)
    sleeping = sys.executable, "-c", "import time; time.sleep(600)"
    program = made.background(*sleeping, log=tmp_path / "log")
    beside = made.background(*sleeping, log=tmp_path / "other log")
    made = kitlib.connect("out")  # the set-up cell once more
    again = made.background(*sleeping, log=tmp_path / "log")
    assert program.poll() is not None and beside.poll() is None
    made.clean_up()
    made.clean_up()
    assert not proxy.alive and again.poll() is not None and beside.poll() is not None
    assert not (embedded.home / "files" / made.namespace).exists() and not checkpoints.exists()
    assert Path.cwd().exists()
    assert capsys.readouterr().out.count("Cleaned up: namespace kit-out is gone") == 2


def test_a_folder_that_somebody_deleted_is_left(
    embedded: EmbeddedCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = kitlib.connect("gone")
    os.chdir(made.folder)
    shutil.rmtree(made.folder)
    kitlib.connect("gone").clean_up()
    assert Path.cwd().exists()


def test_a_clean_up_that_is_interrupted_goes_on_the_next_time(
    kernel: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Cluster("context", connecting.single_context(kubeconfig("https://127.0.0.1:1", "lab"), "lab"))
    said: list[str] = []

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(made, "_delete_objects", lambda: said.append("deleted") or "all")
    for action in (interrupted, lambda: 1 / 0, lambda: said.append("first")):
        made.on_clean_up(action)
    made.on_clean_up(lambda: said.append("last"), last=True)
    with pytest.raises(KeyboardInterrupt):
        made.clean_up()
    assert said == []
    made.clean_up()
    assert said == ["first", "deleted", "last"]


def test_an_interrupted_connect_is_shown_in_short(
    kernel: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = InteractiveShell.instance()
    try:

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(connecting, "_choose", interrupted)
        assert not shell.run_cell("import kitlib\nkitlib.connect('00')").success
        shown = capsys.readouterr().out.strip().splitlines()
        assert shown[0] == "----> 2 kitlib.connect('00')" and "you interrupted" in shown[1] and len(shown) == 2
    finally:
        InteractiveShell.clear_instance()


def test_clean_up_without_a_cluster_is_a_sentence(kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Cluster("context", connecting.single_context(kubeconfig("https://127.0.0.1:1", "lab"), "lab"))
    made.owns_namespace = True
    made.clean_up()
    assert capsys.readouterr().out.startswith("Not cleaned up: No answer from https://127.0.0.1:1")


def test_the_kubeconfig_is_private(embedded: EmbeddedCluster) -> None:
    made = kitlib.connect("private")
    assert stat.S_IMODE(made.kubeconfig.stat().st_mode) == 0o600
    made.clean_up()


def test_loopback_needs_no_proxy(embedded: EmbeddedCluster) -> None:
    os.environ["NO_PROXY"] = "example.com"
    kitlib.connect("proxy").clean_up()
    assert os.environ["NO_PROXY"].split(",")[:3] == ["example.com", "localhost", "127.0.0.1"]


def test_waiting_has_an_end_and_says_for_what(embedded: EmbeddedCluster) -> None:
    made = kitlib.connect("waiting")
    answers = iter([False, True])
    made.wait_until("a second look", lambda: next(answers))
    with pytest.raises(KitError, match="in vain for every Pod to go.*get events"):
        made.wait_until("every Pod to go", lambda: False, seconds=0)
    made.clean_up()


def test_a_new_app_is_waited_for_whole_and_an_old_one_in_trouble_holds_nobody_up(
    embedded: EmbeddedCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    made = kitlib.connect("app")
    course.ensure_app(replicas=3)
    assert "3 of 3 replicas available" in capsys.readouterr().out
    kubectl.run("set image deployment/kubernetes-bootcamp kubernetes-bootcamp=kubernetes-bootcamp:v10")
    course.ensure_app(replicas=3)
    assert "of 3 replicas available" in capsys.readouterr().out
    made.clean_up()


def test_a_service_has_an_address_from_here(embedded: EmbeddedCluster) -> None:
    made = kitlib.connect("service")
    kubectl.run("create deployment web --image=gcr.io/google-samples/kubernetes-bootcamp:v1")
    kubectl.run("expose deployment web --port=8080 --type=NodePort")
    kubectl.run("rollout status deployment/web")
    assert eventually(lambda: "bootcamp" in kubectl_program._fetch(made.service_url("web")).decode())
    kubectl.run("""patch service web -p '{"spec": {"type": "ClusterIP"}}'""")
    through = made.service_url("web")
    assert "/services/web:8080/proxy/" in through
    assert eventually(lambda: "bootcamp" in kubectl_program._fetch(through).decode())
    made.clean_up()


def test_simulated_gpus_are_never_mistaken() -> None:
    def node(count: str, **labels: str) -> Any:
        return client.V1Node(
            metadata=client.V1ObjectMeta(labels={key.replace("__", "/"): value for key, value in labels.items()}),
            status=client.V1NodeStatus(allocatable={"nvidia.com/gpu": count}),
        )

    assert gpus([node("0")]) == "none"
    assert gpus([node("1", kit__gpu="simulated"), node("1", kit__gpu="simulated")]) == "2 simulated (CPU)"
    real = client.V1Node(
        metadata=client.V1ObjectMeta(labels={"nvidia.com/gpu.product": "NVIDIA-H200"}),
        status=client.V1NodeStatus(allocatable={"nvidia.com/gpu": "8"}),
    )
    assert gpus([real, node("1", kit__gpu="simulated")]) == "8 x NVIDIA-H200, 1 simulated (CPU)"
