"""The progress of a run in a notebook: what it says, and how it ends."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kitlib.train import Run
from kitlib.train.progress import INTERRUPTED, Notebook, eta, live_picture

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


def test_after_a_restart_progress_and_time_left_are_those_of_the_new_start() -> None:
    known = [one for one in made.broken_run() if one["attempt"] < 105 or one.get("step", 0) <= 11]
    assert Run("made", SimpleNamespace(namespace="default"))._progress(known) == (11, 20)
    assert eta(11, 20, known) == "", "one step is too few, and those before the restart do not count"
