"""What is asked again, and which missing rights a lesson can do without."""

from __future__ import annotations

from pathlib import Path

import pytest
import urllib3
from IPython.core.interactiveshell import InteractiveShell
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from kitlib import transport


@pytest.mark.parametrize(
    ("method", "status", "again"),
    [
        ("GET", 429, True),
        ("POST", 429, True),
        ("PATCH", 429, True),
        ("GET", 503, True),
        ("DELETE", 502, True),
        ("POST", 503, False),
        ("PATCH", 500, False),
        ("GET", 403, False),
        ("GET", 200, False),
    ],
)
def test_what_was_not_done_is_asked_again_and_what_may_have_been_done_only_if_that_is_harmless(
    method: str, status: int, again: bool
) -> None:
    assert transport.Patience().is_retry(method, status) is again
    assert transport.Patience(total=0).is_retry(method, status) is False


WHOLE = 'nodes is forbidden: User "ada" cannot list resource "nodes" in API group "" at the cluster scope'
OTHER = (
    'services is forbidden: User "ada" cannot list resource "services" in API group "" in the namespace "kube-system"'
)
OWN = 'pods is forbidden: User "ada" cannot create resource "pods" in API group "" in the namespace "mine"'
EXEC = 'pods "a" is forbidden: User "ada" cannot create resource "pods/exec" in API group "" in the namespace "mine"'
QUOTA = 'pods "a" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1'


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (WHOLE, "your account may not list nodes in the whole cluster"),
        (OTHER, "your account may not list services in namespace kube-system"),
        (EXEC, "your account may not create pods/exec in namespace mine"),
        (OWN, ""),
        (QUOTA, ""),
        ("no such thing", ""),
    ],
)
def test_a_lesson_does_without_a_right_outside_its_namespace(
    monkeypatch: pytest.MonkeyPatch, message: str, words: str
) -> None:
    monkeypatch.setattr(transport, "own_namespaces", {"mine"})
    said = transport.lesson_without(f"Error from server (Forbidden): {message}")
    assert words in said and bool(said) == bool(words)


def test_a_cell_ends_at_a_missing_right_and_the_notebook_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    shell = InteractiveShell.instance()
    try:
        transport.show_and_go_on(shell)
        transport.show_and_go_on(shell)
        shell.user_ns.update(NotAllowed=transport.NotAllowed, error=ApiException(status=403, reason="Forbidden"))
        first = shell.run_cell("before = 1\nraise NotAllowed(error, 'Skipped: not for you.')\nafter = 1")
        assert first.success and "before" in shell.user_ns and "after" not in shell.user_ns
        assert capsys.readouterr().out == "Skipped: not for you.\n"
        assert not shell.run_cell("raise ValueError('a bug')").success
    finally:
        InteractiveShell.clear_instance()


def test_a_notebook_shows_the_learners_line_and_one_sentence_instead_of_the_clients_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shell = InteractiveShell.instance()
    try:
        shell.user_ns["api"] = client.CoreV1Api(transport.Transport(configuration=_nowhere()))
        assert not shell.run_cell("wanted = 'web'\napi.read_namespaced_pod(wanted, 'default')").success
        shown = capsys.readouterr().out.strip().splitlines()
        assert shown[0].startswith("----> 2 api.read_namespaced_pod(wanted")
        assert "no answer from 127.0.0.1:1." in shown[1] and "`kit up`" in shown[1] and len(shown) == 2
    finally:
        InteractiveShell.clear_instance()


def test_a_watch_that_breaks_is_shown_in_short_and_fails_the_cell(capsys: pytest.CaptureFixture[str]) -> None:
    shell = InteractiveShell.instance()
    try:
        transport.show_and_go_on(shell)
        shell.user_ns["broken"] = urllib3.exceptions.ProtocolError("Response ended prematurely")
        assert not shell.run_cell("x = 1\nraise broken").success
        shown = capsys.readouterr().out.strip().splitlines()
        assert shown[0] == "----> 2 raise broken"
        assert shown[1].startswith("ProtocolError: the connection broke") and len(shown) == 2
    finally:
        InteractiveShell.clear_instance()


def test_a_file_that_is_not_there_is_the_learners_line_and_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = InteractiveShell.instance()
    try:
        transport.show_and_go_on(shell)
        assert not shell.run_cell("from pathlib import Path\nPath('no.yaml').read_text()").success
        shown = capsys.readouterr().out.strip().splitlines()
        assert shown[0] == "----> 2 Path('no.yaml').read_text()"
        assert "'no.yaml'. The cell that writes it" in shown[1] and len(shown) == 2
        monkeypatch.chdir(tmp_path)
        tmp_path.rmdir()
        shell.run_cell("open('new.yaml', 'w')")
        assert "'new.yaml'. The chapter's folder is gone: the set-up cell" in capsys.readouterr().out
    finally:
        InteractiveShell.clear_instance()


@pytest.mark.parametrize(
    ("cell", "shown", "advice"),
    [
        ("raise KeyboardInterrupt", ["----> 1 raise KeyboardInterrupt", "KeyboardInterrupt: you interrupted"], ""),
        ("x = fast", ["NameError"], "the values and the set-up"),
        ("[][0]", ["IndexError"], "goes first"),
        ("kubectl get pods", ["SyntaxError"], "%kubectl"),
        ("if True print(1)", ["SyntaxError"], ""),
    ],
)
def test_the_usual_slips_of_a_learner_are_followed_by_what_to_do(
    capsys: pytest.CaptureFixture[str], cell: str, shown: list[str], advice: str
) -> None:
    shell = InteractiveShell.instance()
    try:
        transport.show_and_go_on(shell)
        assert not shell.run_cell(cell).success
        said = capsys.readouterr()
        assert all(words in said.out for words in shown)
        assert advice in said.err and bool(said.err) == bool(advice)
    finally:
        InteractiveShell.clear_instance()


def _nowhere() -> client.Configuration:
    settings = transport.configuration()
    settings.host, settings.retries = "http://127.0.0.1:1", transport.Patience(0)
    return settings
