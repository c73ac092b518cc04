"""DDP's promises, held with plain processes: equality, resume, agreement on when to stop, exit codes."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from harness import thorough

from kitlib.train import records as rec

from .ranks import Ranks

Start = Callable[..., Ranks]


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[Start]:
    made: list[Ranks] = []

    def start(world: int, *flags: str, **environment: str) -> Ranks:
        made.append(Ranks(tmp_path / f"run-{len(made)}", world, *flags, **environment))
        return made[-1].start()

    yield start
    for one in made:
        one.stop()


def difference(left: Ranks, right: Ranks) -> float:
    return rec.largest_difference(left.records(), right.records())


def weights(run: Ranks) -> torch.Tensor:
    newest = max((run.folder / "checkpoints").glob("step-*.pt"))
    model = torch.load(newest, weights_only=True)["model"]
    return torch.cat([model[name].flatten() for name in sorted(model)])


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_with_batch_b_equal_one_rank_with_their_batches_together(ranks: Start, world: int) -> None:
    flags = ("--steps", "20", "--checkpoints", "checkpoints")
    together = ranks(1, *flags, "--batch-size", "8")
    apart = ranks(world, *flags, "--batch-size", str(8 // world))
    assert together.wait() == [0] and apart.wait() == [0] * world, apart.text(0)[-2000:]
    assert difference(together, apart) < 1e-5
    assert (weights(together) - weights(apart)).abs().max() < 1e-4
    ends = rec.of_kind(apart.records(), "end")
    assert len(ends) == world and len({end["parameters_bits"] for end in ends}) == 1


def test_micro_batches_without_synchronisation_equal_one_large_batch(ranks: Start) -> None:
    whole = ranks(2, "--steps", "10", "--batch-size", "8")
    pieces = ranks(2, "--steps", "10", "--batch-size", "4", "--grad-accum", "2")
    assert whole.wait() + pieces.wait() == [0] * 4
    assert difference(whole, pieces) < 1e-5


@pytest.mark.parametrize("victim", sorted(map(int, thorough({"1"}, {"0"}))))
def test_a_killed_rank_ends_the_others_and_the_run_resumes_where_it_was_saved(ranks: Start, victim: int) -> None:
    unbroken = ranks(2, "--steps", "30")
    assert unbroken.wait() == [0, 0]
    slowly = ("--slow-rank", "0", "--slow-ms", "100")  # so that the victim dies in the middle
    broken = ranks(2, "--steps", "30", "--checkpoints", "checkpoints", "--save-every", "5", *slowly)
    broken.until_step(12)
    broken.running[victim].kill()
    broken.running[victim].wait()
    broken.start(victim)  # comes back while the survivor may still serve the store of the broken attempt
    assert broken.running[1 - victim].wait(60) == 1
    broken.start(1 - victim)
    assert broken.wait() == [0, 0], broken.text(0)[-2000:]
    assert difference(unbroken, broken) < 1e-6
    assert len(rec.loss_curve(broken.records())) == 30
    assert len(rec.attempts(broken.records())) == 2
    assert all(lost <= 5 for lost in rec.lost_steps(broken.records()))


def test_forgetting_the_optimizer_state_is_noticed(ranks: Start) -> None:
    """The negative control of the resume test: what its tolerance must catch."""
    unbroken = ranks(2, "--steps", "24")
    broken = ranks(2, "--steps", "24", "--checkpoints", "checkpoints", "--save-every", "6")
    assert unbroken.wait() + broken.wait() == [0] * 4
    newest = broken.folder / "checkpoints" / "step-00000018.pt"
    newest.with_name("step-00000024.pt").unlink()
    state = torch.load(newest, weights_only=True)
    for moments in state["optimizer"]["state"].values():
        for value in moments.values():
            value.zero_()
    torch.save(state, newest)
    assert broken.start().wait() == [0, 0]
    assert difference(unbroken, broken) > 1e-3


def test_a_run_goes_on_with_fewer_ranks_and_the_same_global_batch(ranks: Start) -> None:
    unbroken = ranks(1, "--steps", "16", "--batch-size", "8")
    assert unbroken.wait() == [0]
    elastic = ranks(4, "--steps", "16", "--batch-size", "2", "--checkpoints", "checkpoints", "--save-every", "8")
    assert elastic.wait() == [0] * 4
    (elastic.folder / "checkpoints" / "step-00000016.pt").unlink()
    elastic.running.clear()
    elastic.resize(2)
    assert elastic.start().wait() == [0, 0], elastic.text(0)[-2000:]
    assert difference(unbroken, elastic) < 1e-5
    newest = rec.attempts(elastic.records())[-1]
    assert newest["resumed_from"] == 8 and newest["world"] == 2
    assert newest["header"]["global_batch"] == 8 and newest["header"]["grad_accum"] == 2


def test_sigterm_to_one_rank_stops_all_after_the_same_step_and_saves_it(ranks: Start) -> None:
    run = ranks(2, "--steps", "5000", "--checkpoints", "checkpoints", "--save-every", "5000")
    run.until_step(5)
    run.running[1].terminate()
    assert run.wait() == [143, 143]
    stopped = rec.of_kind(run.records(), "stopped")
    assert len(stopped) == 2 and len({one["step"] for one in stopped}) == 1
    assert (run.folder / "checkpoints" / f"step-{stopped[0]['step']:08d}.pt").exists()


def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(ranks: Start) -> None:
    run = ranks(1, "--steps", "12", "--checkpoints", "checkpoints", "--save-every", "4")
    assert run.wait() == [0]
    (run.folder / "checkpoints" / "step-00000012.pt").write_bytes(b"torn")
    assert run.start().wait() == [0]
    assert rec.attempts(run.records())[-1]["resumed_from"] == 8


@pytest.mark.parametrize("kind", sorted(thorough({"parts"}, {"schema", "list"})))
def test_a_checkpoint_of_something_else_ends_the_run_with_64_and_stays_as_it_was(ranks: Start, kind: str) -> None:
    run = ranks(1, "--steps", "4", "--checkpoints", "checkpoints")
    assert run.wait() == [0]
    own, flags = run.folder / "checkpoints" / "step-00000004.pt", run.flags
    parts = {**torch.load(own, weights_only=True), "model": {}}
    foreign = {"schema": {"schema": 99}, "list": [1, 2, 3], "parts": parts}[kind]
    run.flags = [*flags, "--n-head", "2"]
    assert run.start().wait() == [64]
    assert f"{own.relative_to(run.folder)} holds another model (n_head 4 there and 2 here)" in run.text(0)
    run.flags = flags
    torch.save(foreign, own)
    before = own.read_bytes()
    assert run.start().wait() == [64]
    assert "give another folder" in run.text(0).splitlines()[-1] and own.read_bytes() == before


def test_a_full_disk_costs_no_step_and_leaves_no_half_file(ranks: Start) -> None:
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, usual[1]))  # less than a checkpoint
    try:
        run = ranks(1, "--steps", "12", "--checkpoints", "checkpoints", "--save-every", "4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert run.wait() == [1] and len(rec.loss_curve(run.records())) == 12
    assert [one["text"][:25] for one in rec.of_kind(run.records(), "warning")] == [
        "step 4 could not be saved", "step 8 could not be saved"]  # fmt: skip
    assert "the last step, 12, could not be saved in checkpoints" in run.text(0)
    assert not list((run.folder / "checkpoints").iterdir())
    assert run.start().wait() == [0], "with room again, the retry that the Job makes ends well"


def test_a_checkpoint_folder_that_is_deleted_is_made_again(ranks: Start) -> None:
    slowly = ("--slow-rank", "0", "--slow-ms", "50")
    run = ranks(1, "--steps", "20", "--checkpoints", "checkpoints", "--save-every", "2", *slowly)
    run.until(lambda: rec.of_kind(run.records(), "save"))
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
    assert run.wait() == [0] and (run.folder / "checkpoints" / "step-00000020.pt").exists()


def test_a_rank_that_does_not_come_is_named(ranks: Start) -> None:
    run = ranks(2, "--steps", "4", "--rendezvous-timeout", "3")
    run.running[1].kill()
    assert run.running[0].wait(120) == 1
    assert "TimeoutError: rank 1 did not come to 127.0.0.1" in run.text(0)


def test_a_rank_that_hangs_ends_itself_and_says_where(ranks: Start) -> None:
    run = ranks(2, "--steps", "4", "--timeout", "15", "--slow-rank", "1", "--slow-ms", "600000")
    assert run.wait() == [1, 1]
    assert "Timed out waiting" in run.text(0) and "Timeout (" not in run.text(0), "it waited, and gave up before"
    assert "Timeout (0:00:30)" in run.text(1) and "in gradients" in run.text(1)


def test_a_finished_run_that_is_started_again_ends_at_once_with_success(ranks: Start) -> None:
    run = ranks(1, "--steps", "4", "--checkpoints", "checkpoints")
    assert run.wait() == [0]
    assert run.start().wait() == [0]
    assert len(rec.of_kind(run.records(), "step")) == 4


def test_a_rank_that_comes_back_after_the_others_have_ended_well_ends_well_too(ranks: Start) -> None:
    run = ranks(2, "--steps", "4", "--checkpoints", "checkpoints", "--rendezvous-timeout", "5")
    assert run.wait() == [0, 0]
    for rank in (0, 1):
        assert run.start(rank).running[rank].wait(120) == 0
        assert "the run is complete" in run.text(rank)


def test_a_wrong_configuration_ends_with_64_and_one_line(ranks: Start) -> None:
    for flags, word in ((("--preset", "huge"), "unknown preset"), (("--steps", "0"), "at least 1"),
                        (("--steps", "many"), "steps"), (("--nonsense", "1"), "nonsense")):  # fmt: skip
        run = ranks(1, *flags)
        assert run.wait() == [64]
        assert word in run.text(0) and len(run.text(0).splitlines()) == 1


def test_ranks_below_torchrun_end_with_the_codes_that_the_job_must_see(ranks: Start) -> None:
    run = ranks(1, "--steps", "5000", "--checkpoints", "checkpoints", KIT_GPUS="2")
    run.until_step(2)
    run.running[0].terminate()
    assert run.wait() == [143] and len(rec.of_kind(run.records(), "stopped")) == 2
    run.flags += ["--n-head", "2"]  # another model than the checkpoint's: only the ranks can find that out
    assert run.start().wait() == [64] and "holds another model" in run.text(0)


def test_a_pod_outside_the_run_is_a_wrong_configuration(ranks: Start) -> None:
    run = ranks(1, "--steps", "2")
    run.wait()
    run.start(3)
    assert run.running[3].wait(30) == 64
    assert "completions and the file workers do not agree" in run.text(3)


def test_a_batch_that_cannot_be_shared_is_a_wrong_configuration(ranks: Start) -> None:
    run = ranks(1, "--steps", "8", "--batch-size", "3", "--checkpoints", "checkpoints", "--save-every", "4")
    assert run.wait() == [0]
    run.flags[run.flags.index("8")] = "12"
    run.resize(2)
    assert set(run.start().wait()) == {64}
    assert "a global batch of 3 sequences cannot be shared equally by 2 ranks" in run.text(0)


def test_every_rank_records_every_step_and_what_it_ran_on(ranks: Start) -> None:
    run = ranks(2, "--steps", "9", "--probe", "6")
    assert run.wait() == [0, 0]
    records = run.records()
    steps = {(one["rank"], one["step"]) for one in rec.of_kind(records, "step")}
    assert steps == {(rank, step) for rank in range(2) for step in range(1, 10)}
    for one in rec.of_kind(records, "step"):
        parts = one["t_data"] + one["t_compute"] + one["t_wait"]
        assert parts <= one["t_step"] * 1.001 + 1e-5
    assert all(head["simulated"] and head["backend"] == "gloo" for head in rec.of_kind(records, "header"))
    assert {one["arm"] for one in rec.of_kind(records, "probe")} == {"sync", "control", "no_sync"}
    numbers = rec.metrics(records)
    assert numbers["world_size"] == 2 and numbers["ranks_equal"] and numbers["finished"] and numbers["simulated"]
    assert len(numbers["tokens_per_s_per_rank"]) == 2 and numbers["flops_utilization"] is None
    json.dumps(numbers)
