"""Submit a run, follow it, collect its records, delete it: the verbs of the Kubeflow SDK, on a plain Job.

A `Run` holds nothing that the cluster does not know: `get_run(name)` finds it again after a kernel restart.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from kubernetes.client import ApiException

from kitlib.errors import KitError
from kitlib.home import kit_home
from kitlib.train import elastic, explain
from kitlib.train import job as jobs
from kitlib.train import records as rec
from kitlib.train.api import Api, Away
from kitlib.train.explain import Explanation
from kitlib.train.fit import places, preflight
from kitlib.train.job import TrainJob
from kitlib.train.logs import PodLog, rank_of
from kitlib.train.mends import mend
from kitlib.train.progress import Progress, eta, progress
from kitlib.train.records import Record
from kitlib.train.state import State
from kitlib.transport import message_of

LOOK_EVERY = 5.0
"""Seconds after which a following client asks about Job and Pods although all ranks train and their records come."""


class TrainingFailed(KitError):  # noqa: N818
    """A run ended without reaching its last step; the message names the rank and its last lines."""


def submit(job: TrainJob, api: Api | None = None) -> Run:
    """Create a run's objects and let it start.

    The Job is made first, suspended: whatever interrupts the rest leaves nothing that runs, and what was made is
    deleted again.

    Raises:
        KitError: The description cannot work, or the cluster refuses it.
    """
    job = jobs.prepare(job)
    api = api or Api()
    job = jobs.place_checkpoints(_shrink_to_fit(job, api), api.embedded, api.namespace)
    run = Run(job.name, api)
    main, *owned = jobs.manifests(job)
    try:
        made = api.make(api.batch.create_namespaced_job, api.batch.read_namespaced_job, main)
    except ApiException as error:
        said = message_of(error)
        advice = f"Delete it first: train.get_run({job.name!r}).delete()." if error.status == 409 else mend(said)
        raise KitError(f"{said}. {advice}".strip()) from error
    try:
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job.name, "uid": made["metadata"]["uid"],
                 "controller": True, "blockOwnerDeletion": False}  # fmt: skip
        calls = {"ConfigMap": (api.core.create_namespaced_config_map, api.core.read_namespaced_config_map),
                 "Service": (api.core.create_namespaced_service, api.core.read_namespaced_service)}  # fmt: skip
        for manifest in owned:
            manifest["metadata"]["ownerReferences"] = [owner]
            api.make(*calls[manifest["kind"]], manifest)
        api.patiently(api.batch.patch_namespaced_job, job.name, api.namespace, {"spec": {"suspend": False}})
    except BaseException as error:
        take_back(run)
        if isinstance(error, ApiException):
            raise KitError(f"{message_of(error)}.") from error
        raise
    return run


def take_back(run: Run, wait: bool = False) -> None:
    """Delete a run, or what a submit has made of it so far; where that fails, say what may be left."""
    try:
        run.delete(wait)
    except (KitError, ApiException):
        print(f"Not deleted: {run.whereabouts}.")


def _shrink_to_fit(job: TrainJob, api: Api) -> TrainJob:
    """Ask for fewer workers when the run allows it and the cluster holds no more."""
    if job.min_workers is None or job.min_workers == job.workers:
        return job
    fitting = preflight(job, api).start
    settings = {"min_workers": job.min_workers, "sequences": job.sequences}
    start = elastic.allowed(min(fitting, job.workers), settings)
    if start in (0, job.workers):
        return job
    print(f"{fitting} of {job.workers} workers fit now, min_workers is {job.min_workers}: starting with {start}.")
    return replace(job, start=start)


def runs(api: Api | None = None) -> list[Run]:
    """Return the runs in the namespace, oldest first."""
    api = api or Api()
    answer = api.ask(api.batch.list_namespaced_job, api.namespace, label_selector="app.kubernetes.io/name=train")
    found = answer["items"]
    found.sort(key=lambda item: item["metadata"]["creationTimestamp"])
    return [Run(item["metadata"]["name"], api) for item in found]


def clean_up(api: Api | None = None) -> None:
    """Delete all runs in the namespace, and the checkpoint folders that the kit made for them."""
    api = api or Api()
    for run in runs(api):
        run.delete()
    shutil.rmtree(kit_home() / "train" / api.namespace, ignore_errors=True)


def get_run(name: str, api: Api | None = None) -> Run:
    """Find a run by its name, also after a kernel restart.

    Raises:
        KitError: There is no such run in the namespace.
    """
    api = api or Api()
    try:
        found = api.ask(api.batch.read_namespaced_job, name, api.namespace)
    except ApiException as error:
        known = ", ".join(run.name for run in runs(api)) or "none"
        raise KitError(f"There is no run {name!r} in namespace {api.namespace}; there is: {known}.") from error
    if found["metadata"].get("labels", {}).get("app.kubernetes.io/name") != "train":
        raise KitError(f"Job {name!r} was not made by train.submit.")
    return Run(name, api)


class Run:
    """A training run on the cluster.

    Attributes:
        name: Name of its Job, ConfigMap and Service.
        namespace: Where they are.
    """

    def __init__(self, name: str, api: Api) -> None:
        """Point at a run; nothing is asked yet."""
        self.name, self.namespace = name, api.namespace
        self._api = api
        self._logs: dict[str, PodLog] = {}
        self._settings: dict[str, Any] = {}
        self._steps = 0

    def __repr__(self) -> str:
        """Say how far the run is."""
        state = self.state()
        step, steps = self._progress(self.records() if state.phase != "Deleted" else [])
        return f"<Run {self.name}: {state.phase}, step {step}{f' of {steps}' if steps else ''}>"

    @property
    def whereabouts(self) -> str:
        """What the run consists of, where, and how to remove it by hand."""
        remove = f"kubectl delete job {self.name} --namespace {self.namespace}"
        return (
            f"Job, ConfigMap and Service {self.name} in namespace {self.namespace}, and its Pods; "
            f"`{remove}` removes them all"
        )

    # --- what the cluster says

    def state(self) -> State:
        """Return what the cluster says about the run now."""
        try:
            job = self._api.patiently(self._api.batch.read_namespaced_job, self.name, self.namespace)
        except ApiException:
            return State("Deleted")
        self._settings = json.loads(job["metadata"].get("annotations", {}).get("kit/train", "{}"))
        pods = self._pods()
        conditions = job.get("status", {}).get("conditions", [])
        conditions = {one["type"]: one for one in conditions if one["status"] == "True"}
        for kind in ("Complete", "Failed"):
            if kind in conditions:
                return State(kind, job["spec"]["completions"], pods, conditions[kind].get("message", ""))
        active = [pod for pod in pods if pod["status"].get("phase") == "Running"]
        phase = "Running" if active else "Pending"
        return State(phase, job["spec"]["completions"], pods, template=job["spec"]["template"])

    def _pods(self) -> list[dict[str, Any]]:
        selector = f"{jobs.JOB_NAME}={self.name}"
        answer = self._api.patiently(self._api.core.list_namespaced_pod, self.namespace, label_selector=selector)
        found: list[dict[str, Any]] = answer["items"]
        for pod in found:
            log = self._logs.setdefault(pod["metadata"]["uid"], PodLog(self._api, pod))
            log.over = pod["status"].get("phase") in ("Succeeded", "Failed")
        for uid in self._logs.keys() - {pod["metadata"]["uid"] for pod in found}:
            self._logs[uid].gone = True
        return sorted(found, key=lambda pod: (rank_of(pod), pod["metadata"]["creationTimestamp"]))

    def events(self) -> list[dict[str, Any]]:
        """Return the Events of the run's Job and Pods, oldest first, as the API has them."""
        names = {self.name} | {pod["metadata"]["name"] for pod in self._pods()}
        found = self._api.ask(self._api.core.list_namespaced_event, self.namespace)["items"]
        mine = [one for one in found if one["involvedObject"].get("name") in names]
        return sorted(mine, key=lambda one: one.get("lastTimestamp") or one["metadata"]["creationTimestamp"])

    def explain(self) -> Explanation:
        """Say in words how the run is: why it waits, or who failed and what it printed last."""
        state = self.state()
        if state.phase == "Deleted":
            return Explanation(f"Run {self.name} does not exist any more.")
        lines = [f"Run {self.name} is {state.phase}, {state.workers} worker{'s' if state.workers > 1 else ''}."]
        lines += explain.not_made(self.name, state.workers, state.pods, self._api)
        lines += explain.waiting(state.pods, self._api) + self._failures(state)
        if state.message:
            lines.append(f"The Job controller: {state.message}")
        return Explanation("\n".join(lines))

    def _failures(self, state: State) -> list[str]:
        """Describe the Pods that failed by themselves, each rank's newest; if there is none, those that failed."""
        failed = [pod for pod in state.pods if pod["status"].get("phase") == "Failed"]
        logs = {pod["metadata"]["uid"]: self._logs[pod["metadata"]["uid"]] for pod in failed}
        for log in logs.values():
            log.read()
        causes = [pod for pod in failed if explain.is_root_cause(pod, logs[pod["metadata"]["uid"]].lines)]
        newest = {rank_of(pod): pod for pod in causes or failed}  # they come in order of rank and time
        return [explain.failure(pod, logs[pod["metadata"]["uid"]].lines) for pod in list(newest.values())[:3]]

    # --- what the ranks say

    def logs(self, rank: int | None = None, follow: bool = False, records: bool = False) -> Iterator[str]:
        """Yield log lines of one rank or of all, with earlier Pods of the same rank first.

        Args:
            rank: Only this rank; default: all, each line marked with its rank.
            follow: Go on until the run is over.
            records: Also the JSON records.
        """
        printed: dict[str, int] = {}
        while True:
            over = not follow or self.state().over
            self._read_logs()
            for log in self._ordered_logs():
                if rank is not None and log.rank != rank:
                    continue
                lines = [*log.lines, *(json.dumps(one) for one in log.records)] if records else log.lines
                start, printed[log.pod] = printed.get(log.pod, 0), len(lines)
                yield from (line if rank is not None else f"[rank {log.rank}] {line}" for line in lines[start:])
            if over:
                return
            time.sleep(0.5)

    def _ordered_logs(self) -> list[PodLog]:
        return sorted(self._logs.values(), key=lambda log: (log.created, log.rank))

    def _read_logs(self) -> None:
        with contextlib.suppress(KitError, ApiException):
            self._pods()
        for log in self._ordered_logs():
            log.read()

    def records(self) -> list[Record]:
        """Return all records so far: every rank, every step, also of Pods that have failed."""
        self._read_logs()
        return self._known()

    def _known(self) -> list[Record]:
        return [one for log in self._ordered_logs() for one in log.records]

    def _progress(self, known: list[Record]) -> tuple[int, int]:
        """Return how many steps are done, since the last start and what it resumed from, and their number in all."""
        if not rec.of_kind(known, "header"):
            return 0, self._settings.get("settings", {}).get("steps", 0)
        head = rec.header(known)
        steps = [one["step"] for one in rec.of_kind(known, "step") if one["attempt"] == head["attempt"]]
        return max(steps, default=head["resumed_from"]), head["steps"]

    def metrics(self) -> dict[str, Any]:
        """Return the numbers of the run, ready for JSON (see `kitlib.train.records`).

        Raises:
            KitError: No rank has come to its first step yet.
        """
        return rec.metrics(self.records())

    def save(self, path: str | Path) -> Path:
        """Write the records to a file; every figure can be made from it again."""
        return rec.dump(self.records(), path)

    def plot(self, figure: str = "throughput", **options: Any) -> Any:
        """Draw a figure of the run; see `train.plot`, which takes the same names and options."""
        from kitlib.train.report import plot

        return plot(self.records(), figure, **options)

    # --- what one does with it

    def wait(
        self,
        timeout: float | None = None,
        until: Callable[[list[Record]], bool] | None = None,
        file: TextIO | None = None,
    ) -> Run:
        """Follow the run with a progress bar until it is over.

        Survives Pods that come and go and an API server that restarts. Interrupting it stops the following; the run
        goes on, and `wait()` takes it up again.

        Args:
            timeout: Seconds to wait at most.
            until: Also end when this says True of the records so far, such as "step 30 is done".
            file: Where to show it instead of the notebook, the terminal or standard output.

        Returns:
            The run itself.

        Raises:
            TrainingFailed: The run failed; the message has the rank and its last lines.
            KitError: The time is up, or the run was deleted meanwhile.
        """
        deadline = time.monotonic() + timeout if timeout is not None else None
        with progress(f"{self.name}", file) as bar:
            try:
                state = self._follow(bar, deadline, until)
            except Away as error:
                again = "When it is back, wait() takes the run up again"
                raise KitError(f"{error} {again}; still there: {self.whereabouts}.") from error
            finally:
                for log in self._logs.values():
                    log.stop()
        if state.phase == "Failed":
            raise TrainingFailed("\n".join([*self._failures(state), f"The Job has given up: {state.message}"]))
        if state.phase == "Deleted":
            raise KitError(f"Run {self.name} was deleted; `train.submit(...)` starts a new one.")
        return self

    def _follow(self, bar: Progress, deadline: float | None, until: Callable[[list[Record]], bool] | None) -> State:
        said: set[str] = set()
        known: list[Record] = []
        changes, state, looked, training = elastic.Elastic(), State("Pending"), 0.0, False
        while True:
            before, known = len(known), self._known()
            if not training or len(known) == before or time.monotonic() > looked + LOOK_EVERY:
                looked, state = time.monotonic(), self._look()
                known = self._known()
            training = self._show(bar, state, known, said)
            if state.over or (until and until(known)):
                return state
            if deadline and time.monotonic() > deadline:
                raise KitError(f"The time is up. {self.explain()}")
            if self._settings.get("min_workers") and self._adapt(bar, changes, state, known):
                training = False
            time.sleep(1.0 if known and not until else 0.25)

    def _look(self) -> State:
        """Ask what the cluster says, and follow the logs of Pods that are new."""
        state = self.state()
        for log in self._logs.values():
            log.follow()
        for log in self._logs.values() if state.over else ():
            log.join(5)
        return state

    def _show(self, bar: Progress, state: State, known: list[Record], said: set[str]) -> bool:
        """Show how far the run is; return whether all ranks are up and not at the last step yet."""
        step, steps = self._progress(known)
        for line in self._news(state, known):
            if line not in said:
                said.add(line)
                bar.say(line)
        up = sum(pod["status"].get("phase") == "Running" for pod in state.pods)
        words = [state.phase.lower() if not known or state.over else ""]
        recent = rec.rates(rec.measured(known)[-20:]) if known else []
        if known and not state.over and up < state.workers and step < steps:
            words.append(f"{up} of {state.workers} ranks are up")
        elif recent:
            ranks = f"{state.workers} rank{'s' if state.workers > 1 else ''}"
            words.append(f"{sorted(recent)[len(recent) // 2]:,.0f} tokens/s ({ranks}, {rec.hardware(known)})")
            loss = rec.loss_curve(known)
            words.append(f"loss {loss[max(loss)]:.3f}")
        elif known and not state.over:
            words.append("warming up")
        words.append(eta(step, steps, known) if not state.over and up == state.workers else "")
        bar.show(step, steps, "  ".join(word for word in words if word))
        bar.draw(known)
        return up == state.workers and step < steps

    def _news(self, state: State, known: list[Record]) -> list[str]:
        """Return what is worth a line of its own: who waits and why, who failed, where it went on."""
        lines = []
        if state.phase in ("Pending", "Running"):
            lines = explain.not_made(self.name, state.workers, state.pods, self._api)
            lines += explain.waiting(state.pods, self._api)
        for pod in state.pods:
            found = explain.ended(pod)
            if found and found.get("exitCode") and state.phase != "Failed":
                log = self._logs[pod["metadata"]["uid"]]
                log.join(1)
                if explain.is_root_cause(pod, log.lines):
                    lines.append(explain.failure(pod, log.lines[-6:]))
        printed = {uid: log.lines for uid, log in self._logs.items()}
        lines += explain.hung(state.pods, printed) + explain.late(state.pods, known, printed)
        lines += [f"Rank {one['rank']}: {one['text']}" for one in rec.of_kind(known, "warning")]
        for part in rec.attempts(known)[1:] if known else []:
            lines.append(f"All ranks are back: resumed from step {part['resumed_from']}, {part['world']} in all.")
        return lines

    def _adapt(self, bar: Progress, changes: elastic.Elastic, state: State, known: list[Record]) -> bool:
        """Go on with fewer workers when slots are lost, and with more when slots are free again; return if it did."""
        missing, step = len(state.refused) + len(state.lost), self._progress(known)[0]
        pod = state.template["spec"]
        room = lambda: places(pod, self._api)  # noqa: E731
        number = changes.change(state.pods, missing, state.workers, self._settings, step, room)
        if number:
            why = f"{missing} of {state.workers} workers have no node" if missing else "A slot is free"
            bar.say(f"{why}: going on with {number}. The global batch stays.")
            self._resize(number, self._settings)
        return number > 0

    def resize(self, workers: int) -> None:
        """Go on with another number of workers, from the last checkpoint and with the same global batch.

        The Job's `completions` and `parallelism` change together (an elastic Indexed Job), and the Pods that run are
        told to stop: they save, and new ones come up that know the new number.

        Args:
            workers: The new number of workers; it must divide the global batch.

        Raises:
            KitError: The number is impossible, or the cluster refuses.
        """
        if workers < 1:
            raise KitError(f"workers is {workers}: it must be at least 1.")
        if not self._settings:
            self.state()
        if self._settings.get("sequences", 0) % workers:
            raise KitError(f"workers is {workers}: {self._settings['sequences']} sequences cannot be shared equally.")
        smallest = self._settings.get("min_workers")
        fewest = {"min_workers": min(smallest, workers)} if smallest else {}
        self._resize(workers, {**self._settings, "workers": workers, **fewest})

    def _resize(self, workers: int, settings: dict[str, Any]) -> None:
        api, scripts = self._api, {"data": {"workers": str(workers)}}
        note = {"annotations": {"kit/train": json.dumps(settings)}}
        counts = {"metadata": note, "spec": {"completions": workers, "parallelism": workers}}
        change_job = (api.batch.patch_namespaced_job, self.name, self.namespace, counts)
        change_number = (api.core.patch_namespaced_config_map, self.name, self.namespace, scripts)
        # No Pod may come up that finds a number in the file at which its own index is too large.
        if workers > self.state().workers:
            api.ask(*change_number)
            api.ask(*change_job)
        else:
            api.ask(*change_job)
            self._end_pods(lambda pod: rank_of(pod) >= workers)
            api.ask(*change_number)
        self._end_pods(lambda pod: True)

    def _end_pods(self, which: Callable[[dict[str, Any]], bool]) -> None:
        """Tell Pods to save and end; those whose node does not answer are forgotten, as nobody else will do it."""
        for pod in filter(which, self._pods()):
            name, api = pod["metadata"]["name"], self._api
            if elastic.lost(pod):
                self._forget(name)
            elif pod["status"].get("phase") in ("Pending", "Running") and "deletionTimestamp" not in pod["metadata"]:
                api.gone(api.core.delete_namespaced_pod, name, self.namespace)

    def _forget(self, pod: str) -> None:
        """Remove a Pod whose node does not answer.

        The Job controller waits for it to fail (`podReplacementPolicy` is `Failed` with a podFailurePolicy), which
        only its kubelet could say; without its finalizer it takes the Pod for gone.
        """
        api = self._api
        api.gone(api.core.delete_namespaced_pod, pod, self.namespace, grace_period_seconds=0)
        api.gone(api.core.patch_namespaced_pod, pod, self.namespace, {"metadata": {"finalizers": None}})

    def delete(self, wait: bool = True) -> None:
        """Delete the run and all that belongs to it: Pods, ConfigMap, Service, and its own checkpoint folder.

        Args:
            wait: Return only when its Pods are gone.
        """
        api = self._api
        for log in self._logs.values():
            log.stop()
        if not self._settings:
            self.state()
        api.gone(api.batch.delete_namespaced_job, self.name, self.namespace, propagation_policy="Background")
        selector = f"{jobs.JOB_NAME}={self.name}"
        deadline = time.monotonic() + (jobs.GRACE_SECONDS + 15 if wait else 0)
        while time.monotonic() < deadline:
            left = api.patiently(api.core.list_namespaced_pod, self.namespace, label_selector=selector)["items"]
            if not left:
                break
            for pod in filter(elastic.lost, left):
                self._forget(pod["metadata"]["name"])
            time.sleep(0.2)
        for log in self._logs.values() if wait else ():
            log.join(10)  # a thread that still asks a dead node for a log aborts a Python that ends
        folder = TrainJob(checkpoints=self._settings.get("checkpoints", "none")).checkpoint_folder
        if folder and folder.parent == kit_home() / "train" / self.namespace:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # other runs have theirs there
                folder.parent.rmdir()
                folder.parent.parent.rmdir()
