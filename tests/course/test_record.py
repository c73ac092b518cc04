"""The record of progress: a local file that survives what happens to kernels and to files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kitlib import KitError, course
from kitlib.course.exercise import find


def test_hints_come_one_after_the_other_and_are_counted(record: Path) -> None:
    first, second, third = course.hint("05.1"), course.hint("05.1"), course.hint("05.1")
    assert first.text != second.text == third.text
    assert "last hint" in second.text
    assert course.hint("05.1", 1).text == first.text
    assert json.loads(record.read_text())["exercises"]["05.1"]["hints"] == 3


def test_a_solution_that_was_seen_is_noted(record: Path) -> None:
    assert "math.ceil" in course.solution("05.3").text
    assert "solution seen" in course.progress().text


def test_an_unknown_exercise_names_those_that_exist() -> None:
    with pytest.raises(KitError, match=r"no exercise '05.9'; there are 05.1, 05.2, 05.3"):
        course.check("05.9")


def test_the_zero_in_front_of_a_number_may_be_left_out() -> None:
    assert find(5.1) is find("5.1") is find("05.1")


def test_a_damaged_record_is_put_aside(record: Path) -> None:
    record.write_text('{"exercises": ')
    assert course.check("05.3", 6).correct
    assert record.with_suffix(".damaged").exists()
    assert json.loads(record.read_text())["exercises"]["05.3"]["outcome"] == "correct"


def test_the_record_can_be_given_to_an_instructor(record: Path, tmp_path: Path) -> None:
    course.check("05.3", 6)
    exported = json.loads(course.export(tmp_path / "ada.json", name="Ada").read_text())
    rows = {row["exercise"]: row for row in exported["exercises"]}
    assert exported["learner"] == "Ada"
    assert rows["05.3"]["outcome"] == "correct" and rows["00.1"]["outcome"] == "not attempted"
    with pytest.raises(KitError, match="Could not write"):
        course.export(tmp_path / "no" / "such" / "folder.json")


def test_results_show_themselves_as_markdown_and_as_text(record: Path) -> None:
    result = course.check("05.3", 4)
    bundle = result._repr_mimebundle_()
    assert bundle["text/plain"].startswith("… Not yet (05.3)")
    assert bundle["text/markdown"].startswith("**… Not yet (05.3)**")
    assert bundle["application/vnd.kit.result+json"]["outcome"] == "not yet"


def test_without_a_connection_a_check_says_what_to_do(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from kitlib import connect  # noqa: F401

    monkeypatch.setattr(sys.modules["kitlib.connect"], "_current", [])
    with pytest.raises(KitError, match="set-up cell"):
        course.check("05.1")
