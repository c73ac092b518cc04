"""Figures need records and nothing else, and say on what the run ran."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from kitlib import train
from kitlib.errors import KitError
from kitlib.train import records as rec
from kitlib.train import report
from kitlib.train.scaling import INTERRUPTED, Arm, Study, arms_of, scaling_study

from . import made


def texts(figure: Any) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize("name", list(report.FIGURES))
def test_every_figure_of_a_run_is_marked_as_simulated_and_has_units(name: str) -> None:
    figure = report.plot(made.broken_run(), name)
    words = texts(figure)
    assert "simulated GPU (CPU)" in words
    assert any(unit in words for unit in ("(s)", "(ms)", "ms", "tokens/s", "nats per byte"))


@pytest.mark.parametrize("name", [name for name in report.FIGURES if name != "network"])
def test_a_figure_of_a_run_that_claimed_no_gpu_does_not_call_it_simulated(name: str) -> None:
    words = texts(report.FIGURES[name](made.run(slots="")))
    assert "CPU, no GPU" in words and "simulated" not in words


@pytest.mark.parametrize("name", [name for name in report.FIGURES if name != "network"])
def test_a_figure_of_a_real_run_names_the_device(name: str) -> None:
    words = texts(report.plot(made.run(simulated=False, device="NVIDIA H200"), name))
    assert "NVIDIA H200" in words and "simulated" not in words


@pytest.mark.parametrize("name", list(report.FIGURES))
def test_a_run_without_steps_gives_a_clear_error_instead_of_an_empty_figure(name: str) -> None:
    with pytest.raises(ValueError, match="no "):
        report.plot([], name)


@pytest.mark.parametrize(
    ("name", "said"),
    [("throughput", "tokens/s in all."), ("step_time", "rank 1 "), ("heat_map", "rank 0 "), ("loss", "at step 1 to "),
     ("network", "At 10 Gbit/s: ")],
)  # fmt: skip
def test_a_figure_says_in_its_alternative_text_what_it_shows(name: str, said: str) -> None:
    data, _ = report.plot(made.run(), name)._repr_mimebundle_()
    assert said in data["text/plain"] and said in data["text/html"] and data["image/png"].startswith(b"\x89PNG")


def test_a_figure_that_cannot_be_drawn_is_one_sentence_for_a_learner() -> None:
    with pytest.raises(KitError, match="value is one of t_data, t_compute, t_wait, t_step, not 'compute'"):
        report.plot(made.run(), "heat_map", value="compute")
    with pytest.raises(KitError, match="There is no figure 'speed': choose one of throughput, "):
        report.plot(made.run(), "speed")


def test_the_recorded_runs_are_drawn_without_a_cluster() -> None:
    assert "lost" in texts(train.plot(train.recorded_run()))
    assert "independent" in repr(train.recorded_study()) and train.recorded_study().plot().axes


def test_restarts_show_how_many_steps_were_lost() -> None:
    assert "2 steps (crosses) were lost" in texts(report.plot_throughput(made.broken_run()))


def test_the_loss_figure_states_the_largest_difference_and_refuses_a_mix() -> None:
    assert "0.0e+00" in texts(report.plot_loss(made.broken_run(), unbroken=made.run()))
    with pytest.raises(rec.MixedRecordsError):
        report.plot_loss(made.run(), unbroken=made.run(simulated=False, device="NVIDIA H200"))


def test_a_figure_reads_the_same_without_colour() -> None:
    """Lines that share a panel differ in style, marker or width, not in colour alone."""
    figure = report.plot_throughput(made.run())
    drawn = [line for panel in figure.subfigs for axis in panel.axes for line in axis.get_lines()]
    labelled = [line for line in drawn if not line.get_label().startswith("_")]
    looks = [(line.get_linestyle(), line.get_marker(), line.get_linewidth()) for line in labelled]
    assert len(looks) == 3 and len(set(looks)) == len(looks)


def test_the_ring_prediction_follows_the_formula() -> None:
    assert report.ring_all_reduce_seconds(498e6, 8, 100) == pytest.approx(2 * 7 / 8 * 498e6 / 12.5e9)
    with pytest.raises(ValueError, match="above 0"):
        report.plot_network(made.run(), gbit_per_s=0)


def test_another_models_gradients_are_compared_with_its_own_compute_time() -> None:
    with pytest.raises(ValueError, match="compute_ms must say"):
        report.plot_network(made.run(), gradient_bytes=496e6)
    words = texts(report.plot_network(made.run(), gradient_bytes=496e6, compute_ms=94))
    assert "94 ms (as given)" in words and "measured in this run" not in words


def study(repeats: int = 3) -> Study:
    found = []
    for repeat in range(repeats):
        for arm in arms_of([1, 2, 4]):
            for copy in range(arm.world if arm.kind == "copies" else 1):
                world = 1 if arm.kind == "copies" else arm.world
                mark = {"arm": arm.kind, "ranks": arm.world, "repeat": repeat, "run": f"{arm}-{repeat}-{copy}"}
                found += [{**one, **mark} for one in made.run(world)]
    return Study(found)


def test_a_study_measures_both_baselines_and_both_ceilings() -> None:
    assert set(arms_of([1, 2])) == {Arm("none", 1), Arm("ddp", 1), Arm("ddp", 2), Arm("copies", 2)}
    rows = {(row["arm"], row["ranks"]): row for row in study().table()}
    assert rows["ddp", 4]["tokens_per_s"] == pytest.approx(4 * 1280)
    assert rows["ddp", 4]["of_ideal"] == pytest.approx(1) and rows["ddp", 4]["of_machine"] == pytest.approx(1)
    assert rows["none", 1]["of_machine"] is None and np.isfinite(rows["copies", 2]["interval"]).all()


def test_an_interrupted_study_deletes_its_runs_and_says_so_in_one_line() -> None:
    begun: list[MagicMock] = []

    def start(**options: Any) -> MagicMock:
        begun.append(MagicMock(**{"wait.side_effect": KeyboardInterrupt}))
        return begun[-1]

    with pytest.raises(KeyboardInterrupt) as caught:
        scaling_study(repeats=1, start=start, say=lambda line: None)
    assert [run.delete.call_count for run in begun] == [1] * len(begun)
    assert caught.value._render_traceback_() == [INTERRUPTED]


def test_the_scaling_figure_draws_both_ceilings_and_marks_more_ranks_than_cores() -> None:
    words = texts(study().plot())
    for part in ("ideal", "machine", "no DDP", "Weak scaling", "contended", "simulated GPU (CPU)"):
        assert part in words
    assert "median of 3 runs in random order, bar = 95 % interval" in words.replace("\n", " ")
    assert "Point = one run" in texts(study(repeats=1).plot())
