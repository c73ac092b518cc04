"""What a run asks of Kubernetes, and what bad input is told."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kitlib import train
from kitlib.errors import KitError
from kitlib.train import job as jobs
from kitlib.train.fit import quantity


def described(**options: Any) -> jobs.TrainJob:
    return jobs.place_checkpoints(train.describe(**options), embedded=True, namespace="default")


def parts(**options: Any) -> dict[str, dict[str, Any]]:
    return {one["kind"]: one for one in jobs.manifests(described(**options))}


def pod(**options: Any) -> dict[str, Any]:
    return parts(**options)["Job"]["spec"]["template"]["spec"]


def test_a_run_is_an_indexed_job_with_one_pod_per_rank() -> None:
    spec = parts(workers=3, restarts=2)["Job"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert spec["backoffLimit"] == 6, "one lost rank ends all three, and each counts"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_evictions_do_not_count_and_a_wrong_configuration_is_not_retried() -> None:
    first, second, third = parts()["Job"]["spec"]["podFailurePolicy"]["rules"]
    assert first["action"] == "Ignore" and first["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert second["action"] == "FailJob" and second["onExitCodes"]["values"] == [64]
    assert third["action"] == "Ignore" and third["onExitCodes"]["values"] == [143]


def test_gpus_are_requested_and_limited_alike_and_only_when_asked_for() -> None:
    resources = pod(gpus_per_worker=2)["containers"][0]["resources"]
    assert resources["requests"][jobs.GPU] == resources["limits"][jobs.GPU] == "2"
    assert jobs.GPU not in json.dumps(pod(gpus_per_worker=0)["containers"][0]["resources"])


def test_the_pod_passes_the_restricted_pod_security_level() -> None:
    spec = pod(checkpoints="pvc:claim")
    container = spec["containers"][0]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim"}
    assert all(set(volume) - {"name"} <= allowed for volume in spec["volumes"])


def test_the_scripts_travel_byte_for_byte_and_their_hash_with_them() -> None:
    found = parts()
    folder = Path(train.__file__).parent
    for name in ("worker.py", *jobs.BESIDE):
        assert found["ConfigMap"]["data"][name].encode() == (folder / name).read_bytes()
    sha256 = hashlib.sha256((folder / "worker.py").read_bytes()).hexdigest()
    assert found["Job"]["metadata"]["annotations"]["kit/script-sha256"] == sha256


def test_the_service_leads_to_index_0_before_it_is_ready_and_its_two_ports_differ() -> None:
    spec = parts(name="one")["Service"]["spec"]
    assert spec["publishNotReadyAddresses"] is True
    assert spec["selector"] == {jobs.JOB_NAME: "one", jobs.INDEX: "0"}
    assert spec["ports"][0]["port"] != spec["ports"][0]["targetPort"]
    assert 1024 < spec["ports"][0]["port"] < 65536


def test_runs_of_different_names_use_different_ports() -> None:
    assert len({train.describe(name=f"run-{number}").port for number in range(50)}) > 45


def test_threads_and_buffering_are_always_explicit() -> None:
    env = {one["name"]: one.get("value") for one in pod(threads=3)["containers"][0]["env"]}
    assert env["OMP_NUM_THREADS"] == "3" and env["PYTHONUNBUFFERED"] == "1"


def test_flags_say_what_differs_from_the_preset() -> None:
    flags = jobs.arguments(described(steps=7, compile=True, name="one"))
    assert flags[flags.index("--steps") + 1] == "7" and "--compile" in flags and "--checkpoints" in flags
    assert "--no-ddp" in jobs.arguments(train.describe(ddp=False))
    assert "--checkpoints" not in jobs.arguments(described(checkpoints="none"))


def test_an_elastic_run_tells_its_pods_how_many_workers_its_batch_is_meant_for() -> None:
    env = {one["name"]: one.get("value") for one in pod(workers=4, min_workers=2)["containers"][0]["env"]}
    assert env["KIT_WORKERS"] == "4"
    assert "KIT_WORKERS" not in {one["name"] for one in pod(workers=4)["containers"][0]["env"]}


def test_checkpoints_are_a_folder_on_the_embedded_cluster_and_the_users_choice_elsewhere() -> None:
    assert described().checkpoints.startswith("hostpath:/")
    assert jobs.place_checkpoints(train.describe(), embedded=False, namespace="x").checkpoints == "none"
    claims = [volume.get("persistentVolumeClaim") for volume in pod(checkpoints="pvc:mine")["volumes"]]
    assert {"claimName": "mine"} in claims


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": 0}, "workers is 0: it must be a whole number of at least 1"),
        ({"workers": -1}, "workers is -1"),
        ({"workers": 1.5}, "workers is 1.5"),
        ({"gpus_per_worker": -1}, "gpus_per_worker is -1"),
        ({"preset": "huge"}, "choose one of tiny, small, gpt2-124m"),
        ({"steps": 0}, "steps is 0: it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 10**9}, "fits no GPU"),
        ({"batch_size": "many"}, "must be of type int"),
        ({"colour": "blue"}, "Unknown setting 'colour'"),
        ({"worker": 2}, "do you mean workers?"),
        ({"name": "Not A Name"}, "cannot name a run"),
        ({"checkpoints": "cloud"}, "write auto, none, pvc:CLAIM or hostpath:/FOLDER"),
        ({"checkpoints": "hostpath:here"}, "must be a whole path"),
        ({"checkpoints": "pvc:"}, "checkpoints has ''"),
        ({"checkpoints": "pvc:A_B"}, "checkpoints has 'A_B'"),
        ({"pull_secret": "A B"}, "pull_secret has 'A B'"),
        ({"image": "a b"}, "image is 'a b'"),
        ({"node_selector": {"a/b/c": "x"}}, "node_selector has a/b/c=x"),
        ({"cpu": "abc"}, "cpu is 'abc': it must be a quantity of at least 0, such as '500m'"),
        ({"cpu": "-1"}, "cpu is '-1'"),
        ({"cpu": "NaN"}, "cpu is 'NaN'"),
        ({"memory": "10Xi"}, "memory is '10Xi'"),
        ({"memory": "500m"}, "memory is '500m': it must be a quantity of at least 1Mi, such as '1Gi'"),
        ({"min_workers": 3}, "more than the 2 workers"),
        ({"script": "/no/such/file.py"}, "give the path of a Python file"),
        ({"restarts": -1}, "restarts is -1"),
        ({"dtype": "float16"}, "write 'float32' or 'bfloat16'"),
    ],
)
def test_bad_input_gets_one_line_that_says_what_to_write_instead(options: dict[str, Any], words: str) -> None:
    with pytest.raises(KitError) as raised:
        train.describe(**options)
    assert words in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [{"cpu": "0"}, {"cpu": "1.5"}, {"cpu": 2}, {"memory": "1e9"}, {"memory": "2Gi"},
     {"checkpoints": "pvc:my-claim.2"}, {"node_selector": {"nvidia.com/gpu.product": "NVIDIA-H100", "a": ""}}],
)  # fmt: skip
def test_what_kubernetes_takes_is_taken(options: dict[str, Any]) -> None:
    train.describe(**options)


def test_a_preview_is_the_yaml_that_is_sent_with_reasons_beside_it() -> None:
    preview = jobs.Preview(described(name="one"))
    shown = list(yaml.safe_load_all(str(preview)))
    assert shown[0] == preview.manifests[0] and shown[2] == preview.manifests[2]
    assert "sha256" in shown[1]["data"]["worker.py"]
    notes = [line for line in str(preview).splitlines() if "  # " in line]
    assert len(notes) >= 30
    assert "backoffLimit" in preview._repr_html_()


def test_the_worker_stays_readable_in_one_go() -> None:
    assert len((Path(train.__file__).parent / "worker.py").read_text().splitlines()) < 335


def test_quantities_read_as_kubernetes_reads_them() -> None:
    texts = ("250m", "1Gi", "2", "1k", "0.5", "1Pi", "2e3")
    assert [quantity(text) for text in texts] == [0.25, 2.0**30, 2.0, 1000.0, 0.5, 2.0**50, 2000.0]
