"""Every plot has units on its axes, a text, and works without a display."""

from __future__ import annotations

import html

import pytest

from kitlib import views
from kitlib.views.load import Answer, RequestLoop


def a_rollout() -> RequestLoop:
    loop = RequestLoop("http://127.0.0.1:1/")
    loop._began, loop._ended = 0.0, 10.0
    loop.answers = [Answer(n / 10, 0.01, 200, "web", "1" if n < 50 else "2") for n in range(100)]
    loop.answers[60] = Answer(6.0, 0.01, 0)
    loop.marks = [(5.0, "set image")]
    return loop


PICTURES = {
    "load_spread": lambda: views.load_spread({"web-1": 3, "web-2": 1}),
    "one_pod": lambda: views.load_spread({"web-1": 3}),
    "rollout": lambda: views.rollout(a_rollout()),
    "no_answers": lambda: views.rollout(RequestLoop("http://127.0.0.1:1/")),
    "scale_timeline": lambda: views.scale_timeline([(0, 1, 1), (2, 4, 1), (3, 4, 4)]),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_plot_has_axis_labels_an_alt_text_and_a_png(name: str) -> None:
    picture = PICTURES[name]()
    (axes,) = picture.figure.axes
    assert axes.get_xlabel()
    assert axes.get_title(loc="left")
    bundle, metadata = picture._repr_mimebundle_()
    assert bundle["image/png"].startswith(b"\x89PNG")
    assert bundle["text/plain"] == metadata["image/png"]["alt"] == repr(picture)
    assert f'alt="{html.escape(repr(picture))}"' in bundle["text/html"]


def test_the_axes_carry_units() -> None:
    axes = PICTURES["rollout"]().figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("time since the loop began (s)", "requests per second (1/s)")


def test_the_words_of_a_rollout_hold_its_numbers() -> None:
    assert PICTURES["rollout"]().alt == (
        "99 requests answered and 1 failed in 10.0 s; version 1 answered 50 from 0.0 s to 4.9 s; "
        "version 2 answered 49 from 5.0 s to 9.9 s; set image at 5.0 s."
    )


def test_the_words_of_a_timeline_hold_its_changes() -> None:
    samples = [(0, 1, 1), (1, 4, 1), (2, 4, 1), (3, 4, 4), (4, 4, 4)]
    assert views.scale_timeline(samples, title="Scale").alt == (
        "Scale: 1 wanted, 1 ready at 0.0 s; 4 wanted, 1 ready at 1.0 s; 4 wanted, 4 ready at 3.0 s."
    )


def test_a_picture_is_saved_where_asked(tmp_path) -> None:
    path = views.load_spread({"web-1": 3}).save(tmp_path / "spread.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_timeline_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        views.scale_timeline([])
