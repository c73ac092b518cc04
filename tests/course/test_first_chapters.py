"""What learners type in the first chapters: other spellings of a right answer, and answers that only look right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness import eventually

from course.test_checkers import APP, HELLO, POD_OF, READY, do
from kitlib import course, kubectl
from kitlib.course.exercise import CORRECT, NOT_YET, NotYet
from kitlib.course.look import number, text
from kitlib.session import Cluster

EXPOSE = "expose deployment/kubernetes-bootcamp --name=inside --port=8080"


@pytest.mark.parametrize("given", [3, "3", " 3\n", 3.0])
def test_a_number_may_come_as_text(given: Any) -> None:
    assert number(given) == 3


@pytest.mark.parametrize("given", ["three", 3.5, [3], None, "", float("nan"), float("inf")])
def test_what_is_no_whole_number_is_said(given: Any) -> None:
    with pytest.raises(NotYet, match="number, not"):
        number(given)


@pytest.mark.parametrize("given", ["Hello", b"Hello\n", ["Hello"], " Hello "])
def test_a_text_may_come_as_bytes_or_as_lines(given: Any) -> None:
    assert text(given, "a text") == "Hello"


@pytest.mark.parametrize("given", [7, [], [7], "", " ", b""])
def test_what_is_no_text_is_said(given: Any) -> None:
    with pytest.raises(NotYet, match="The answer is a text, not"):
        text(given, "a text")


def test_the_name_of_a_runtime_is_not_its_version(lesson: Cluster, record: Path) -> None:
    whole = str(lesson.core.list_node().items[0].status.node_info.container_runtime_version)
    assert "version as well" in course.check("01.1", whole.split(":")[0]).text
    assert course.check("01.1", f" {whole}").outcome == CORRECT


def test_another_version_of_the_image_is_another_image(lesson: Cluster, record: Path) -> None:
    do(f"{HELLO}1 --replicas=2")
    assert "is not that of the first application" in course.check("02.1").text


def test_the_lines_of_curl_are_an_answer(lesson: Cluster, record: Path) -> None:
    do(HELLO)
    do("rollout status deployment/hello --timeout=90s")
    pod = kubectl.run(POD_OF.format("hello")).stdout
    assert course.check("02.2", [f"Hello Kubernetes bootcamp! | Running on: {pod} | v=1"]).outcome == CORRECT


def test_only_a_pod_that_was_there_has_a_successor(lesson: Cluster, record: Path) -> None:
    do(APP)
    do(READY)
    old = kubectl.run(POD_OF.format("kubernetes-bootcamp")).stdout
    invented = f"{old.rsplit('-', 1)[0]}-zzzzz"
    assert "no Pod `" in course.check("03.2", (invented, old)).text
    do(f"delete pod {old}")
    do(READY)
    new = kubectl.run(POD_OF.format("kubernetes-bootcamp")).stdout
    assert course.check("03.2", (f"pod/{old}", f"pod/{new}")).outcome == CORRECT


def test_a_service_that_leads_to_another_port_leads_nowhere(lesson: Cluster, record: Path) -> None:
    for command in (APP, READY, f"{EXPOSE} --target-port=80"):
        do(command)
    assert "not on 80" in course.check("04.1").text
    do("delete service inside")
    do(EXPOSE)
    eventually(lambda: course.check("04.1").outcome == CORRECT)


def test_a_value_that_is_wrong_is_never_correct_for_its_form(lesson: Cluster, record: Path) -> None:
    assert course.check("00.1", "4000").outcome == course.check("01.2", ["110"]).outcome == NOT_YET
