"""Numbers are made from records alone, and say no more than the records hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from kitlib import KitError
from kitlib.train import records as rec

from . import made


def test_lines_without_the_mark_and_lines_of_other_versions_are_no_records() -> None:
    lines = ["step 10 of 20", '@kit {"v": 1, "kind": "end"}', '@kit {"v": 99, "kind": "end"}', "@kit {torn", "@kit 3"]
    assert [one["v"] for one in rec.parse(lines)] == [1]


def test_throughput_is_all_tokens_over_the_slowest_ranks_time() -> None:
    records = [made.header(rank=rank) for rank in range(2)]
    records += [made.step(n, rank, t_step=0.1 + 0.1 * rank) for n in range(1, 11) for rank in range(2)]
    numbers = rec.metrics(records)
    assert numbers["tokens_per_s"] == pytest.approx(256 / 0.2)
    assert numbers["tokens_per_s_per_rank"] == pytest.approx([1280, 640])


def test_warm_up_steps_of_every_start_are_not_measured() -> None:
    assert len(rec.measured(made.run(steps=20))) == 18
    assert len(rec.measured(made.broken_run())) == (12 - 2) + (10 - 2)


def test_steps_that_not_every_rank_has_reported_are_not_measured() -> None:
    assert len(rec.measured([*made.run(steps=20), made.step(21)])) == 18


def test_steps_between_the_last_save_and_a_failure_count_as_lost() -> None:
    numbers = rec.metrics(made.broken_run())
    assert numbers["restarts"] == 1 and numbers["lost_steps"] == 2 and numbers["finished"]


def test_a_run_with_too_few_steps_has_no_throughput_and_no_invented_one() -> None:
    assert rec.metrics(made.run(steps=2))["tokens_per_s"] is None


def test_a_run_without_a_step_has_no_numbers_yet() -> None:
    with pytest.raises(KitError, match="No records yet"):
        rec.metrics([])


def test_ranks_with_different_parameters_are_not_called_equal() -> None:
    assert rec.metrics([*made.run()[:-1], made.end(1, bits=8)])["ranks_equal"] is False


def test_simulated_and_real_records_never_meet() -> None:
    with pytest.raises(rec.MixedRecordsError, match="two figures"):
        rec.is_simulated([made.header(), made.header(simulated=False)])


def test_a_bootstrap_interval_is_the_same_each_time_and_holds_the_median() -> None:
    values = [float(n % 7) for n in range(60)]
    assert rec.interval(values) == rec.interval(values)
    low, high = rec.interval(values)
    assert low <= 3 <= high


def test_utilisation_is_given_for_known_devices_only_and_never_for_a_cpu() -> None:
    assert rec.flops_utilization(made.run()) is None
    assert rec.flops_utilization(made.run(simulated=False, device="NVIDIA T4")) is None
    known = rec.flops_utilization(made.run(simulated=False, device="NVIDIA H200", peak_flops=989e12))
    assert known and known["mfu"] == pytest.approx(1280 * 6000 / 989e12) and "9.89e+14" in known["formula"]


def test_a_communication_share_inside_the_control_has_no_number() -> None:
    def records(no_sync: float) -> list[rec.Record]:
        jitter = [0.98, 1.0, 1.02, 0.99, 1.01, 1.03, 0.97, 1.0]
        arms = {"sync": 0.1, "control": 0.1, "no_sync": no_sync}
        return [made.probe(n, arm, t * jitter[(n * 3 + len(arm)) % 8]) for n in range(16) for arm, t in arms.items()]

    clear, quiet = rec.communication(records(0.06)), rec.communication(records(0.1))
    assert clear and clear["share"] == pytest.approx(0.4, abs=0.05)
    assert quiet and quiet["share"] is None
    assert rec.communication(made.run()) is None


def test_two_runs_without_a_common_step_cannot_be_compared() -> None:
    with pytest.raises(KitError, match="no step in common"):
        rec.largest_difference([made.step(1)], [made.step(2)])


def test_cost_follows_from_a_price_that_the_user_types() -> None:
    assert rec.cost_per_million_tokens(400_000, 1, 3.60) == pytest.approx(0.0025)


def test_records_survive_a_file(tmp_path: Path) -> None:
    path = rec.dump(made.run(), tmp_path / "run.jsonl")
    assert rec.load(path) == made.run()
    (tmp_path / "other.jsonl").write_text('{"v": 2}\n')
    with pytest.raises(ValueError, match="version 1"):
        rec.load(tmp_path / "other.jsonl")
