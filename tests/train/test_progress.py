"""The progress of a run in a notebook: what it says, and how it ends."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from kitlib.train import Run
from kitlib.train.progress import INTERRUPTED, Notebook, eta, live_picture
from kitlib.train.records import Record
from kitlib.train.state import State

from . import made


def test_the_label_names_steps_only_when_they_are_known() -> None:
    with Notebook("run") as bar:
        bar.show(0, 0, "pending")
        assert bar._label.value == "&nbsp;pending"
        bar.show(0, 60, "")
        assert bar._label.value == "&nbsp;0/60"
        bar.show(3, 60, "9,000 tokens/s  loss 3.1  7 s left")
    words = bar._label.value.replace("&nbsp;", "").split(" · ")
    assert words == ["3/60", "9,000 tokens/s", "loss 3.1", "7 s left"]


def test_an_interruption_is_one_line_that_says_that_the_run_goes_on() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, Notebook("run"):
        raise KeyboardInterrupt
    assert caught.value._render_traceback_() == [INTERRUPTED]


def test_the_live_picture_says_in_words_what_it_shows() -> None:
    assert 'aria-label="tokens/s in all over ' in live_picture(made.run())


def test_the_cluster_is_asked_about_a_run_only_now_and_then_while_its_records_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, asked = [0.0], []
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr("kitlib.train.run.time", clock)
    records = [one for one in made.run(steps=200) if one["kind"] != "end"]  # ten steps a second
    metadata = {"uid": "", "name": "", "creationTimestamp": "2026-01-01T00:00:00Z"}
    pods = [{"metadata": metadata, "spec": {}, "status": {"phase": "Running"}}] * 2

    def state() -> State:
        asked.append(now[0])
        stuck = 10 < now[0] < 15
        return State("Complete", 2, pods) if now[0] > 30 else State("Running", 2, pods[stuck:])

    def known() -> list[Record]:
        seen = min(now[0], 10.0) if now[0] < 15 else now[0] - 5
        return [{**one, "steps": 200} for one in records if one["time"] <= 101 + seen]

    run = Run("made", SimpleNamespace(namespace="default"))
    for name, instead in (("state", state), ("_known", known)):
        monkeypatch.setattr(run, name, instead)
    monkeypatch.setattr("kitlib.train.explain.not_made", lambda *_: [])
    run.wait(file=io.StringIO())
    assert len([at for at in asked if 2 < at < 10]) <= 2 and len([at for at in asked if 16 < at < 24]) <= 2
    assert len([at for at in asked if 11 < at < 15]) >= 3, "nothing comes any more: what has happened?"


def test_after_a_restart_progress_and_time_left_are_those_of_the_new_start() -> None:
    known = [one for one in made.broken_run() if one["attempt"] < 105 or one.get("step", 0) <= 11]
    assert Run("made", SimpleNamespace(namespace="default"))._progress(known) == (11, 20)
    assert eta(11, 20, known) == "", "one step is too few, and those before the restart do not count"
