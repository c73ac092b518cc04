"""Runs on the embedded cluster: they complete, survive what happens to Pods, explain themselves, and leave nothing."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from harness import EmbeddedCluster, processes_of, thorough

from kitlib import train
from kitlib.course.exercise import NotAttempted, NotYet
from kitlib.course.exercises import chapter_10
from kitlib.errors import KitError
from kitlib.train import elastic, explain
from kitlib.train import job as jobs
from kitlib.train import records as records_of
from kitlib.train import run as runs
from kitlib.train.api import Api
from kitlib.train.cli import keep_results, study_command, summary, train_command
from kitlib.train.logs import PodLog
from kitlib.train.state import State

from . import made

SMALL = {"n_layer": 2, "n_embd": 64, "block_size": 32, "batch_size": 4, "data_bytes": 300_000, "gpus_per_worker": 0}
SLOW = {"slow_rank": 0, "slow_ms": 100}
STEPS = 30
UNBROKEN: list[dict[str, Any]] = []

Submit = Callable[..., train.Run]


def use(cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KIT_HOME"):
        monkeypatch.setenv(name, cluster.env[name])


@pytest.fixture
def api(cluster: EmbeddedCluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Api:
    use(cluster, monkeypatch)
    return Api(namespace)


@pytest.fixture
def submit(api: Api) -> Iterator[Submit]:
    made: list[train.Run] = []

    def start(**options: Any) -> train.Run:
        made.append(runs.submit(train.describe(**{**SMALL, **options}), api))
        return made[-1]

    yield start
    for run in made:
        run.delete()


@pytest.fixture
def unbroken(submit: Submit) -> list[dict[str, Any]]:
    """The records of a run of two workers to which nothing happened; made once."""
    if not UNBROKEN:
        UNBROKEN.extend(follow(submit(workers=2, steps=STEPS)).records())
    return UNBROKEN


def follow(run: train.Run, **options: Any) -> train.Run:
    return run.wait(timeout=150, file=io.StringIO(), **options)


def at_step(step: int) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda known: any(one.get("step", 0) >= step for one in known if one["kind"] == "step")


def processes_of_pod(cluster: EmbeddedCluster, pod: str) -> list[int]:
    return [one.pid for one in processes_of(cluster.cluster_id()) if one.environ().get("POD_NAME") == pod]


def objects(api: Api, name: str) -> list[str]:
    selector = {"label_selector": f"kit/run={name}"}
    calls = [api.batch.list_namespaced_job, api.core.list_namespaced_pod, api.core.list_namespaced_service,
             api.core.list_namespaced_config_map]  # fmt: skip
    return [item["metadata"]["name"] for call in calls for item in api.ask(call, api.namespace, **selector)["items"]]


def until(true: Callable[[], object], limit: float = 60) -> None:
    deadline = time.monotonic() + limit
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_run_completes_with_equal_ranks_is_found_again_and_leaves_nothing(submit: Submit, api: Api) -> None:
    run = follow(submit(workers=2, steps=STEPS, gpus_per_worker=1, save_every=10))
    numbers = run.metrics()
    assert numbers["finished"] and numbers["ranks_equal"] and numbers["steps"] == STEPS
    assert numbers["simulated"] is True and len(numbers["tokens_per_s_per_rank"]) == 2
    again = runs.get_run(run.name, Api(api.namespace))
    assert len(again.records()) == len(run.records()) and "Complete" in repr(again)
    assert len(run.events()) > 3 and any("step" in line for line in run.logs(rank=0))
    folder = train.describe(**SMALL, checkpoints=run._settings["checkpoints"]).checkpoint_folder
    assert folder and sorted(folder.glob("step-*.pt"))
    assert {event["reason"] for event in run.events()} >= {"SuccessfulCreate", "Scheduled", "Completed"}
    run.delete()
    until(lambda: not objects(api, run.name))
    assert not folder.exists() and "does not exist" in run.explain()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_costs_at_most_one_save_interval_and_changes_nothing(
    submit: Submit, cluster: EmbeddedCluster, unbroken: list[dict[str, Any]], victim: int
) -> None:
    broken = submit(workers=2, steps=STEPS, save_every=10, **SLOW)
    follow(broken, until=at_step(14))
    pod = next(pod for pod in broken.state().pods if explain.rank_of(pod) == victim)
    for pid in processes_of_pod(cluster, pod["metadata"]["name"]):
        os.kill(pid, signal.SIGKILL)
    follow(broken)
    numbers = broken.metrics()
    assert numbers["steps"] == STEPS and numbers["finished"] and numbers["restarts"] == 1
    assert numbers["lost_steps"] <= 10
    assert train.largest_difference(broken.records(), unbroken) < 1e-6


def script_with(folder: Path, before: str, *lines: str) -> Path:
    """Return a copy of the worker with lines of somebody's own before one of its lines."""
    text = (Path(train.__file__).parent / "worker.py").read_text()
    assert text.count(before) == 1
    indent = " " * (len(before) - len(before.lstrip()))
    (folder / "mine.py").write_text(text.replace(before, "".join(f"{indent}{line}\n" for line in lines) + before))
    return folder / "mine.py"


def test_a_worker_that_raises_shows_its_rank_and_its_last_lines(submit: Submit, tmp_path: Path) -> None:
    bug = ("if step == 3 and rank == 1:", '    raise ValueError("a bug of mine")')
    mine = script_with(tmp_path, "    loss, data_ready = gradients(step)\n", *bug)
    run = submit(workers=2, steps=STEPS, script=mine, restarts=0)
    with pytest.raises(train.TrainingFailed) as raised:
        follow(run)
    assert "Rank 1 failed" in str(raised.value) and "ValueError: a bug of mine" in str(raised.value)
    assert "Mend what its last lines name" in str(raised.value)
    assert "Rank 0 failed" not in str(raised.value), "its peer's end is a consequence, not the cause"


def test_a_worker_that_uses_too_much_memory_is_told_so_with_the_mend(submit: Submit, tmp_path: Path) -> None:
    greed = ("if step == 3 and rank == 1:", "    hoard = bytearray(900_000_000)", "    time.sleep(60)")
    mine = script_with(tmp_path, "    loss, data_ready = gradients(step)\n", *greed)
    run = submit(workers=2, steps=STEPS, script=mine, restarts=0, memory="600Mi")
    with pytest.raises(train.TrainingFailed, match="Rank 1 failed .* OOMKilled: .*memory=.*batch_size= down"):
        follow(run)


def test_a_worker_that_hangs_is_named_with_its_last_lines_and_the_run_goes_on_from_its_last_save(
    submit: Submit, tmp_path: Path
) -> None:
    nap = ("if step == 4 and rank == 1 and not found:", "    print('asleep', flush=True)", "    time.sleep(600)")
    mine = script_with(tmp_path, "    loss, data_ready = gradients(step)\n", *nap)
    run, seen = submit(workers=2, steps=8, script=mine, timeout=15, save_every=2), io.StringIO()
    run.wait(timeout=150, file=seen)
    assert "hangs: rank 0 waited for it in vain. `kubectl delete pod" in seen.getvalue()
    assert "    asleep" in seen.getvalue()
    numbers = run.metrics()
    assert numbers["finished"] and numbers["restarts"] == 1 and numbers["lost_steps"] == 0


def with_beside(folder: Path, line: str, instead: str) -> Path:
    """Return a folder with the scripts beside the worker, with another line in place of one of launch.py's."""
    for name in jobs.BESIDE:
        (folder / name).write_text((jobs.SCRIPTS / name).read_text())
    text = (folder / "launch.py").read_text()
    assert text.count(line) == 1
    (folder / "launch.py").write_text(text.replace(line, instead))
    return folder


def test_a_worker_that_never_comes_to_the_others_is_named(
    submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = script_with(
        tmp_path,
        "cfg: Config = settings(Config, PRESETS, sys.argv[1:])\n",
        "if os.environ['RANK'] == '1':",
        "    time.sleep(600)",
    )
    monkeypatch.setattr(jobs, "SCRIPTS", with_beside(tmp_path, "NOTICE = 30.0", "NOTICE = 2.0"))
    run, seen = submit(workers=2, steps=4, script=mine, restarts=0, rendezvous_timeout=8), io.StringIO()
    with pytest.raises(train.TrainingFailed, match="Rank 0 failed(?s:.*)TimeoutError: rank 1 did not come"):
        run.wait(timeout=150, file=seen)
    assert f"has not come to the others for 2 s. `kubectl delete pod {run.name}-1-" in seen.getvalue()


def test_a_wrong_configuration_fails_the_job_at_once_without_a_retry(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import os\nprint('wrong colour', flush=True)\nos._exit(64)\n")
    run = submit(workers=1, script=tmp_path / "mine.py", restarts=3)
    with pytest.raises(train.TrainingFailed, match="configuration is wrong"):
        follow(run)
    assert "wrong colour" in run.explain() and len(run.state().pods) == 1


def test_one_worker_more_than_there_are_gpus_waits_and_says_why(submit: Submit, api: Api) -> None:
    job = train.describe(**{**SMALL, "workers": 4, "gpus_per_worker": 1})
    predicted = train.fit.preflight(job, api)
    assert (predicted.start, predicted.possible, predicted.fits) == (3, 3, False)
    with pytest.raises(KitError, match="4 ranks would wait for ever(?s:.*)holds only 3"):
        train.scaling_study(worlds=(1, 4), repeats=1, steps=10, **{**SMALL, "gpus_per_worker": 1})
    large = train.fit.preflight(train.describe(workers=1, cpu="9000"), api)
    assert "A worker asks for 9000 CPU cores, a node has at most" in str(large)
    real = train.fit.preflight(train.describe(workers=1, preset="gpt2-124m"), api)
    assert real.possible == 0 and "made for real GPUs: bfloat16" in str(real) and "4 CPU cores and 16 GiB" in str(real)
    run = submit(workers=4, gpus_per_worker=1)
    until(lambda: "waits for 1 GPU; the cluster has 3" in run.explain())
    phases = [pod["status"]["phase"] for pod in run.state().pods]
    until(lambda: len([pod for pod in run.state().pods if pod["status"]["phase"] == "Running"]) == 3)
    assert len(phases) == 4 and f"{run.name}-0" in run.explain(), "who holds the GPUs is named"
    assert repr(run.explain()) == str(run.explain()), "shown as lines, also as the last value of a cell"


def test_a_run_goes_on_with_fewer_workers_and_the_same_loss(submit: Submit, unbroken: list[dict[str, Any]]) -> None:
    run = submit(workers=2, steps=STEPS, save_every=5, min_workers=1, **SLOW)
    follow(run, until=at_step(8))
    run.resize(1)
    follow(run)
    last = run.records()
    assert run.state().workers == 1 and [one["world"] for one in last if one["kind"] == "header"][-1] == 1
    assert train.largest_difference(last, unbroken) < 1e-5


@pytest.mark.parametrize(("batch_size", "started"), [(6, 3), (4, 2)])
def test_an_elastic_run_starts_with_what_fits_and_divides_its_batch(
    submit: Submit, capsys: pytest.CaptureFixture[str], batch_size: int, started: int
) -> None:
    run = submit(workers=4, gpus_per_worker=1, min_workers=2, steps=4, batch_size=batch_size, grad_accum=1)
    follow(run)
    assert run.metrics()["world_size"] == started
    assert {one["global_batch"] for one in run.records() if one["kind"] == "header"} == {4 * batch_size}
    assert f"3 of 4 workers fit now, min_workers is 2: starting with {started}" in capsys.readouterr().out


@pytest.mark.parametrize("victim", sorted(map(int, thorough({"0"}, {"1"}))))
def test_an_elastic_run_goes_on_with_one_worker_while_a_node_is_off_and_with_two_when_it_is_back(
    own_cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch, victim: int
) -> None:
    own_cluster.kit("up", "--nodes", "2", "--gpus", "1")
    use(own_cluster, monkeypatch)
    monkeypatch.setattr(elastic, "GROW_AFTER", 0.5)
    options = {**SMALL, "workers": 2, "steps": 200, "save_every": 10}
    run = runs.submit(train.describe(**{**options, **SLOW, "gpus_per_worker": 1, "min_workers": 1}), Api())
    follow(run, until=at_step(12))
    node = next(pod["spec"]["nodeName"] for pod in run.state().pods if explain.rank_of(pod) == victim)
    own_cluster.kit("node", "kill", node)
    seen = io.StringIO()
    run.wait(timeout=150, file=seen, until=lambda known: known[-1].get("step", 0) > 14 and worlds(known)[-1] == 1)
    assert "1 of 2 workers have no node: going on with 1. The global batch stays." in seen.getvalue()
    own_cluster.kit("node", "start", node)
    follow(run)
    records = run.records()
    assert worlds(records) == [2, 1, 2] and run.metrics()["finished"] and run.metrics()["ranks_equal"]
    unbroken = follow(runs.submit(train.describe(**options), Api()))
    assert train.largest_difference(records, unbroken.records()) < 1e-5


def test_a_node_that_is_off_is_named_and_a_run_on_it_can_be_deleted(
    own_cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_cluster.kit("up", "--nodes", "1")
    use(own_cluster, monkeypatch)
    api = Api()
    run = runs.submit(train.describe(**{**SMALL, **SLOW, "workers": 1, "steps": 500}), api)
    follow(run, until=at_step(1))
    own_cluster.kit("node", "kill", "node-1")
    until(lambda: "Rank 0 is on node-1, which does not answer" in run.explain())
    run.delete()
    assert not api.core.list_namespaced_pod(run.namespace).items


def worlds(known: list[dict[str, Any]]) -> list[int]:
    return [part["world"] for part in records_of.attempts(known)]


def test_the_exercises_of_chapter_10_tell_right_from_wrong(submit: Submit, api: Api) -> None:
    cluster = SimpleNamespace(core=api.core, batch=api.batch, namespace=api.namespace)
    with pytest.raises(NotAttempted):
        chapter_10.too_many(cluster, None)
    submit(workers=4, gpus_per_worker=1, name="too-many")
    until(lambda: len([pod for pod in runs.get_run("too-many", api).state().pods if pod["spec"].get("nodeName")]) == 3)
    assert "3 workers hold their GPUs" in chapter_10.too_many(cluster, None)
    submit(workers=2, steps=2, name="straggler", slow_rank=1, slow_ms=1)
    with pytest.raises(NotYet, match="Rank 0 waits"):
        chapter_10.straggler(cluster, 0)
    assert chapter_10.straggler(cluster, 1) == chapter_10.straggler(cluster, "1")


def test_a_submit_without_a_cluster_says_so_at_once(
    cluster: EmbeddedCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path(cluster.env["KUBECONFIG"]).read_text()
    (tmp_path / "config").write_text(re.sub(r"https://[^\s\"]+", "https://127.0.0.1:9", text))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    begin = time.monotonic()
    with pytest.raises(KitError, match="does not answer. Is the cluster there"):
        train.submit(**SMALL)
    assert time.monotonic() - begin < 10


def test_a_proxy_is_not_asked_for_this_machine(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    again = Api(api.namespace)
    assert again.ask(again.core.list_namespaced_pod, again.namespace)["items"] == []


def test_a_rank_is_called_late_only_after_as_long_and_its_newest_failure_is_told(api: Api) -> None:
    def pod(name: str, phase: str) -> dict[str, Any]:
        index = {"batch.kubernetes.io/job-completion-index": "1"}
        created = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata = {"name": name, "uid": name, "creationTimestamp": created, "annotations": index}
        return {"metadata": metadata, "spec": {}, "status": {"phase": phase}}

    record = {"kind": "late", "time": time.time(), "absent": [1], "seconds": 30.0}
    assert not explain.late([pod("new", "Running")], [record], {}), "it has just come in place of another one"
    assert explain.late([pod("new", "Running")], [{**record, "seconds": -1.0}], {})

    run, failed = train.Run("made", api), [pod("old", "Failed"), pod("new", "Failed")]
    for one in failed:
        log = run._logs[one["metadata"]["name"]] = PodLog(api, one)
        log.lines, log.ended = [f"ValueError: the {one['metadata']['name']} one"], True
    (said,) = run._failures(State("Failed", pods=failed))
    assert "ValueError: the new one" in said


def test_an_interrupted_submit_leaves_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api.core, "create_namespaced_service", interrupt)
    with pytest.raises(KeyboardInterrupt):
        runs.submit(train.describe(**SMALL, name="interrupted"), api)
    until(lambda: not objects(api, "interrupted"))


def test_names_that_are_taken_or_unknown_get_a_clear_answer(submit: Submit, api: Api) -> None:
    submit(workers=1, steps=2, name="taken")
    with pytest.raises(KitError, match=r"namespaces \"away\" not found\. The chapter's namespace is gone"):
        runs.submit(train.describe(**SMALL, workers=1), Api("away"))
    with pytest.raises(KitError, match="Delete it first"):
        submit(workers=1, name="taken")
    with pytest.raises(KitError, match="there is: taken"):
        runs.get_run("unknown", api)


def test_following_survives_a_killed_control_plane(
    own_cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_cluster.kit("up", "--nodes", "1")
    use(own_cluster, monkeypatch)
    run = runs.submit(train.describe(**SMALL, workers=2, steps=STEPS, **SLOW), Api())
    follow(run, until=at_step(5))
    os.kill(own_cluster.pid("control-plane"), signal.SIGKILL)
    numbers = follow(run).metrics()
    assert numbers["finished"] and numbers["restarts"] == 0, "the Pods never noticed"
    assert len([one for one in run.records() if one["kind"] == "step"]) == 2 * STEPS


def test_the_train_command_writes_numbers_records_and_figures(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {name: value for name, value in SMALL.items() if name != "gpus_per_worker"}
    assert train_command(2, 1, "tiny", STEPS, tmp_path, as_json=True, **small) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert printed == written and printed["tokens_per_s"] > 0 and printed["world_size"] == 2
    assert len(train.load(tmp_path / "records.jsonl")) > 2 * STEPS
    assert (tmp_path / "throughput.png").stat().st_size > 10_000


def test_a_run_that_finds_its_last_checkpoint_is_reported_as_complete(tmp_path: Path) -> None:
    known = [*(made.header(rank=rank, resumed_from=20) for rank in range(2)), made.end(), made.end(1)]
    numbers = keep_results(SimpleNamespace(records=lambda: known), tmp_path, 100.0)
    assert numbers["finished"] and json.loads((tmp_path / "metrics.json").read_text()) == numbers
    assert "nothing to train: the checkpoint is that of the last step, 20" in summary(numbers, tmp_path)


def test_the_study_command_writes_a_table_records_and_a_figure(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study_command([1], 1, 10, tmp_path, as_json=True, **SMALL) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "scaling.json").read_text())
    assert [(row["arm"], row["ranks"]) for row in printed] == [("ddp", 1), ("none", 1)]
    assert len(train.Study(train.load(tmp_path / "study.jsonl")).arms) == 2
    assert (tmp_path / "scaling.png").stat().st_size > 10_000
    assert study_command([9], 1, 10, tmp_path, as_json=False, gpus_per_worker=1) == 2


@pytest.mark.parametrize("wrong", [(0, 1, "tiny", None), (2, 1, "huge", None), (2, 1, "tiny", 0), (9, 1, "tiny", None)])
def test_bad_input_to_the_train_command_is_one_line_and_exit_code_2(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: tuple[int, int, str, int | None]
) -> None:
    assert train_command(*wrong, tmp_path) == 2
    said = capsys.readouterr()
    assert len(said.err.strip().splitlines()) == 1 and not said.out
