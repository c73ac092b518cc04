"""`%kubectl` runs the real kubectl; these tests use a stand-in that says what it was given, and the real one once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import EmbeddedCluster, eventually
from IPython.core.interactiveshell import InteractiveShell

from kitlib import KitError, kubectl, kubectl_program

FAKE = """#!/bin/sh
case "$1" in
fail) echo "error: it failed" >&2; exit 7 ;;
diff) [ "$2" = same ] && exit 0; [ "$2" = bad ] && { echo "error: bad" >&2; exit 1; }; echo "-a"; exit 1 ;;
stdin) cat ;;
color) echo "$NO_COLOR $TERM $KUBECTL_KUBERC" ;;
slow) echo first; sleep 600 ;;
nobreak) printf 'no line break' ;;
umlaut) printf '\\303'; sleep 0.05; printf '\\244\\n' ;;
proxy) trap 'exit 0' TERM; echo "Starting to serve on 127.0.0.1:45678"; while :; do sleep 0.05; done ;;
port-forward) [ "$2" = nope ] && { echo "error: no such pod" >&2; exit 1; }
  trap 'exit 0' TERM; echo "Forwarding from 127.0.0.1:45679 -> 8080"; while :; do echo chatter; done ;;
*) for word in "$@"; do echo "<$word>"; done ;;
esac
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("KIT_KUBECTL", raising=False)
    return program


@pytest.fixture
def shell(fake: Path) -> Iterator[Any]:
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance()
    kubectl.register(made)
    yield made
    InteractiveShell.clear_instance()


def run(shell: Any, cell: str) -> Any:
    return shell.run_cell(textwrap.dedent(cell))


def test_a_line_is_a_command(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(shell, "%kubectl get pods -l 'app in (a, b)'").raise_error()
    assert capsys.readouterr().out.startswith("<get>\n<pods>\n<-l>\n<app in (a, b)>\n")


def test_names_in_braces_and_dollar_names_are_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAME", "from-env")
    names = {"name": "web", "n": 3, "pods": ["a", "b"], "pod": type("Pod", (), {"id": 7})(), "table": {"k": "v"}}
    line = "logs {name} --tail={n} {pods[1]} {pod.id} {table['k']} $POD_NAME ${POD_NAME}-0 $name"
    expected = ["logs", "web", "--tail=3", "b", "7", "v", "from-env", "from-env-0", "web"]
    assert kubectl.expand(line, names) == expected


@pytest.mark.parametrize(
    "text",
    [
        '{{range .items}}{{.metadata.name}}{{"\\n"}}{{end}}',
        "{.items[*].metadata.name}",
        "{range .items[*]}{.metadata.name}{end}",
        "{{(index .spec.ports 0).nodePort}}",
        "$unknown {unknown}",
    ],
)
def test_templates_need_no_escaping(text: str) -> None:
    assert kubectl.expand(f"get pods -o jsonpath='{text}'", {"name": "x"}) == ["get", "pods", "-o", f"jsonpath={text}"]


def test_nothing_in_braces_is_executed() -> None:
    assert kubectl.expand("get '{name.upper()}' {name.strip}x", {"name": "x"})[1] == "{name.upper()}"


def test_a_value_with_spaces_stays_one_word() -> None:
    assert kubectl.expand("create {x}", {"x": "a b; c"}) == ["create", "a b; c"]


@pytest.mark.parametrize("line", ["get pods | grep x", "get pods > file", "get pods && true"])
def test_the_shells_signs_are_sent_to_bash(shell: Any, line: str) -> None:
    with pytest.raises(KitError, match="%%bash"):
        kubectl.expand(line, {})


def test_an_open_quote_is_one_sentence() -> None:
    with pytest.raises(KitError, match="No closing quotation"):
        kubectl.expand("get 'pods", {})


def test_a_failure_is_kubectls_message_and_stops_the_notebook(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(shell, "%kubectl fail")
    error = result.error_in_exec
    assert isinstance(error, kubectl.KubectlError) and error.code == 7
    assert shell.user_ns["_exit_code"] == 7
    said = capsys.readouterr()
    assert "error: it failed" in said.err
    assert "Traceback" not in said.out + said.err


@pytest.mark.parametrize(
    ("result", "word"),
    [((130, "", ""), "interrupted"), ((130, "", "no"), "130"), ((1, "", ""), "nothing"), ((1, "", "no"), "above")],
)
def test_how_a_command_ended_is_told(result: tuple[int, str, str], word: str) -> None:
    assert word in kubectl._ended(kubectl.Result(*result))


@pytest.mark.parametrize(
    ("line", "missing"), [("fail {POD}", "`POD`"), ("fail {pod.name}", "`pod.name`"), ("fail -o jsonpath={end}", "")]
)
def test_a_name_that_no_cell_has_set_is_named(shell: Any, line: str, missing: str) -> None:
    with pytest.raises(kubectl.KubectlError) as caught:
        kubectl.magic(line, None, {})
    assert missing in str(caught.value) and ("run the cell that sets it" in str(caught.value)) is bool(missing)


def test_a_failure_that_is_meant_goes_on(shell: Any) -> None:
    run(shell, "%kubectl --fails fail").raise_error()
    assert shell.user_ns["_exit_code"] == 7
    assert "meant to fail" in str(run(shell, "%kubectl --fails get pods").error_in_exec)


def test_differences_are_no_failure(shell: Any) -> None:
    run(shell, "%kubectl diff -f file").raise_error()
    assert shell.user_ns["_exit_code"] == 1
    run(shell, "%kubectl diff same").raise_error()
    assert run(shell, "%kubectl diff bad").error_in_exec


def test_what_was_printed_is_the_value_and_is_shown_once(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(shell, "got = %kubectl nobreak").raise_error()
    assert shell.user_ns["got"] == "no line break"
    assert capsys.readouterr().out == "no line break\n"


def test_a_cell_is_a_list_of_commands(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(
        shell,
        """\
        %%kubectl
        # a comment
        get pods
        kubectl get \\
          nodes
        """,
    ).raise_error()
    out = capsys.readouterr().out
    assert out.startswith("$ kubectl get pods\n<get>\n<pods>\n$ kubectl get")
    assert out.rstrip().endswith("<get>\n<nodes>")


def test_a_cell_below_a_command_is_its_standard_input(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(shell, "%%kubectl stdin -f -\nkind: Pod\nmetadata: {name: {{x}}}\n").raise_error()
    assert capsys.readouterr().out == "kind: Pod\nmetadata: {name: {{x}}}\n"


def test_a_long_standard_input_does_not_block(fake: Path) -> None:
    text = "x" * 1_000_000
    assert kubectl.run("stdin", stdin=text).stdout == text


def test_output_has_no_colours_and_no_habits_of_a_person(fake: Path) -> None:
    assert kubectl.run("color").stdout == "1 dumb false\n"


def test_a_letter_cut_in_two_is_put_together(fake: Path) -> None:
    assert kubectl.run("umlaut").stdout == "ä\n"


def test_an_interrupt_ends_the_command(fake: Path) -> None:
    script = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from kitlib import kubectl\nresult = kubectl.run('slow', show=True)\nprint('code', result.code, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-u", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "first\n"
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert "code 130" in process.stdout.read()
    assert isinstance(children, list)
    eventually(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))


# --- finding kubectl --------------------------------------------------------------------------------------------


def test_kubectl_is_found_in_kit_home_when_it_is_not_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("KIT_KUBECTL", raising=False)
    with pytest.raises(KitError, match=r"conda install .* https://kubernetes.io.*kubectl.download\(\)"):
        kubectl.find_kubectl()
    own = tmp_path / "bin" / "kubectl"
    own.parent.mkdir()
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    assert kubectl.find_kubectl() == str(own)


def test_a_download_is_checked_and_leaves_nothing_when_it_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIT_HOME", str(tmp_path))
    asked: list[str] = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return CHECKSUM if url.endswith(".sha256") else program[0]

    program = [b"#!/bin/sh\n"]
    monkeypatch.setattr(kubectl_program, "_fetch", fetch)
    path = kubectl.download()
    assert path == tmp_path / "bin" / "kubectl" and os.access(path, os.X_OK)
    assert kubectl_program.PINNED_VERSION in asked[0] and asked[0].startswith("https://dl.k8s.io/release/")
    path.unlink()
    program[0] = b"something else"
    with pytest.raises(KitError, match="does not match its checksum"):
        kubectl.download()
    assert not list(path.parent.iterdir())


CHECKSUM = b"a8076d3d28d21e02012b20eaf7dbf75409a6277134439025f282e368e3305abf\n"


def test_without_a_network_a_download_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(url: str) -> bytes:
        raise OSError("no route to host")

    monkeypatch.setenv("KIT_HOME", str(tmp_path))
    monkeypatch.setattr(kubectl_program, "_fetch", fetch)
    with pytest.raises(KitError, match="Is there a network"):
        kubectl.download()


# --- in the background ------------------------------------------------------------------------------------------


def test_a_proxy_ends_with_its_block(fake: Path) -> None:
    background = kubectl.proxy(port=0)
    assert background.alive and background in kubectl.running
    with background as port:
        assert port == 45678 and background.url == "http://127.0.0.1:45678"
    assert not background.alive and background not in kubectl.running
    background.stop()


def test_a_port_that_is_taken_is_replaced_and_said(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with kubectl.proxy(port=port):
            pass
    assert f"Port {port} is taken" in capsys.readouterr().out


def test_a_cell_that_starts_a_proxy_may_run_twice(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = kubectl.proxy(port=45678)
    second = kubectl.proxy(port=45678)
    assert second.alive and not first.alive and kubectl.running == [second]
    second.stop()
    assert "taken" not in capsys.readouterr().out


@pytest.mark.parametrize("port", [-1, 99999, "x", 80.5])
def test_what_is_no_port_is_one_sentence(port: Any) -> None:
    with pytest.raises(KitError, match="from 0 to 65535"):
        kubectl.proxy(port=port)


def test_a_port_forward_that_fails_says_why(fake: Path) -> None:
    with pytest.raises(kubectl.KubectlError, match="error: no such pod"):
        kubectl.port_forward("nope", 8080)
    assert not kubectl.running


def test_an_interrupt_before_the_port_is_known_leaves_nothing(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def interrupted(background: kubectl.Background, *_: object) -> int:
        begun.append(background)
        raise KeyboardInterrupt

    monkeypatch.setattr(kubectl.Background, "_await_port", interrupted)
    with pytest.raises(KeyboardInterrupt):
        kubectl.proxy(port=0)
    assert not begun[0].alive and not kubectl.running


def test_a_talkative_command_is_not_blocked(fake: Path) -> None:
    with kubectl.port_forward("service/web", 8080) as port:
        assert port == 45679


def test_everything_can_be_stopped_at_once(fake: Path) -> None:
    started = [kubectl.proxy(port=0), kubectl.port_forward("pod/x", 80)]
    kubectl.stop_all()
    assert not any(background.alive for background in started) and not kubectl.running


@pytest.mark.parametrize(
    "command",
    ["kubectl.proxy(port=0); print('first', flush=True); time.sleep(600)", "kubectl.run('slow', stdin='x', show=True)"],
)
def test_nothing_outlives_a_killed_kernel(fake: Path, command: str) -> None:
    script = f"import time\nfrom kitlib import kubectl\n{command}"
    with subprocess.Popen([sys.executable, "-u", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "first\n"
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        process.kill()
    eventually(lambda: not any(map(lives, children)))


def test_nothing_is_left_of_a_command_that_has_ended(fake: Path) -> None:
    fake.write_text("#!/bin/sh\nsleep 600 >/dev/null 2>&1 &\necho $$\n")
    group = int(kubectl.run("get pods").stdout)
    eventually(lambda: not [process for process in psutil.process_iter() if group_of(process.pid) == group])


def group_of(pid: int) -> int | None:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def test_a_guarded_command_that_obeys_is_not_waited_for() -> None:
    program = "import kitlib.guard as g; g.GRACE_SECONDS = 1000; print(g.main(['sh', '-c', 'echo on; exec sleep 999']))"
    guard = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert guard.stdout is not None and guard.stdout.readline() == "on\n"
    guard.terminate()
    assert guard.communicate(timeout=60)[0] == f"{-signal.SIGTERM}\n"


def test_a_guarded_command_that_ends_by_itself_is_no_accident() -> None:
    command = [sys.executable, "-m", "kitlib.guard", "sh", "-c", "echo no; exit 3"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout and process.stdout.read() == b"no\n"
        assert process.wait() == 3


def test_the_real_kubectl_talks_to_the_cluster(cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", cluster.env["KUBECONFIG"])
    assert len(kubectl.run("get nodes -o name").stdout.split()) == 3
    with kubectl.proxy(port=0) as port:
        assert b"gitVersion" in kubectl_program._fetch(f"http://127.0.0.1:{port}/version")


@pytest.mark.parametrize(
    ("said", "mend"),
    [
        ("The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?", "`kit up`"),
        ("dial tcp 127.0.0.1:1: connect: connection refused", "`kit up`"),
        ('Error from server (NotFound): namespaces "kit-05" not found', "set-up cell"),
        ('error: failed to create configmap: configmaps "hello" already exists', "delete"),
        ('Error from server (AlreadyExists): error when creating "STDIN": pods "web" already exists', "delete"),
        ("error: error parsing STDIN: error converting YAML to JSON: yaml: line 5: did not find expected key", "tab"),
        ('strict decoding error: unknown field "spec.template.spec.restartPolice"', "misspelt"),
        ("Deployment is invalid: spec.selector: Invalid value: {}: field is immutable", "`%kubectl delete` the object"),
        ('the path "kubernetes.yaml" does not exist', "cell that writes"),
        ("error: error reading /home/a/train.py: no such file or directory", "cell that writes"),
        ('error executing jsonpath "{.items[0].a}": array index out of bounds: index 0, length 0', "goes first"),
        ('Error from server (NotFound): pods "web" not found', ""),
        ('Error from server (NotFound): deployments.apps "kubernetes-bootcamp" not found', "set-up cell"),
        ("error dialing backend: dial tcp 127.1.0.1:10250: connect: connection refused", "start_node"),
        ('Get "https://127.1.0.1:10250/containerLogs/a/b/c": dial tcp: connection refused', "start_node"),
    ],
)
def test_a_failure_that_kubectl_leaves_open_comes_with_its_mend(said: str, mend: str) -> None:
    found = kubectl.mend(said)
    assert mend in found and bool(found) == bool(mend)
    assert not mend or f". {found.strip()}" in kubectl.with_mend(said)
