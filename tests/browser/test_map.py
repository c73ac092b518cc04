"""In JupyterLab the map shows a Deployment's Pods, and its button kills one that the ReplicaSet then replaces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import EmbeddedCluster

from browser.chrome import Chrome, Page
from browser.lab import PANEL, Lab, run_all, wait_until_run, write_notebook

RUNNING = (
    "Array.from(document.querySelectorAll('.kit-tile[data-status=Running][data-letter=R]'),"
    " (tile) => tile.dataset.name)"
)

CROSSED = """
    Array.from(document.querySelectorAll(".kit-link")).flatMap((line) => {
        const from = document.querySelector(".kit-links").getBoundingClientRect();
        const way = Array.from({ length: 200 }, (_, step) => line.getPointAtLength(step * line.getTotalLength() / 200));
        return Array.from(document.querySelectorAll(".kit-tile .kit-name, .kit-bar > *"), (words) => {
            const box = words.getBoundingClientRect();
            const within = (point) => point.x + from.x > box.left && point.x + from.x < box.right
                && point.y + from.y > box.top && point.y + from.y < box.bottom;
            return way.some(within) ? words.textContent : "";
        }).filter(Boolean);
    })
"""


MAPS = """
import threading, time
time.sleep(0.5)
print(sum(thread.name == "cluster-map" for thread in threading.enumerate()), "map is followed")
"""


def deployment(replicas: int) -> dict:
    container = {"name": "kubernetes-bootcamp", "image": "gcr.io/google-samples/kubernetes-bootcamp:v1"}
    labels = {"app": "kubernetes-bootcamp"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kubernetes-bootcamp"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def running(page: Page, number: int) -> set[str]:
    page.wait_for(f"{RUNNING}.length === {number}", f"{number} tiles of running Pods")
    return set(page.evaluate(RUNNING))


@pytest.mark.timeout(600)
def test_a_pod_deleted_on_the_map_is_replaced(
    cluster: EmbeddedCluster, namespace: str, browser: Chrome, screenshots: Path, tmp_path: Path
) -> None:
    cluster.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(deployment(2)))
    cluster.kubectl("expose", "-n", namespace, "deployment/kubernetes-bootcamp", "--port=8080")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    show = f"views.cluster_map({namespace!r}, services=True)"
    write_notebook(folder / "map.ipynb", "from kitlib import views", show, MAPS)
    with Lab(folder, tmp_path, cluster.env) as lab:
        page = lab.open(browser, "map.ipynb")
        for _ in range(2):  # the map of the first time is followed no longer
            run_all(page)
            wait_until_run(page, 180)
        page.wait_for(f"{PANEL}.node.innerText.includes('1 map is followed')", "one map")
        before = running(page, 2)
        assert page.evaluate("document.querySelectorAll('.kit-node').length") == 3
        page.wait_for("document.querySelectorAll('.kit-link').length === 2", "links from the Service to its Pods")
        assert page.evaluate(CROSSED) == []
        page.screenshot(screenshots / "map-before.png")

        victim = sorted(before)[0]
        page.evaluate(f"document.querySelector('.kit-tile[data-name=\"{victim}\"]').focus()")
        page.press("Enter", "\r")  # the keyboard reaches tiles and buttons
        page.evaluate("document.querySelector('.kit-delete').focus()")
        page.press("Enter", "\r")
        page.wait_for(f"!document.querySelector('.kit-tile[data-name=\"{victim}\"]')", "the deleted Pod's tile to go")
        after = running(page, 2)
        assert victim not in after
        assert len(after - before) == 1
        page.wait_for("document.querySelector('.kit-log').innerText.includes('Killing')", "the event in the log")
        page.screenshot(screenshots / "map-after.png")

        page.evaluate("jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'}).then(() => 1)")
        page.wait_for("document.body.dataset.jpThemeLight === 'false'", "the dark theme")
        page.screenshot(screenshots / "map-dark.png")

        page.evaluate(f"{PANEL}.sessionContext.restartKernel().then(() => 1)")
        page.wait_for("document.querySelector('.kit-problems').innerText.includes('has ended')", "the map to say so")
    assert browser.complaints == []
    cluster.kubectl("delete", "-n", namespace, "deployment/kubernetes-bootcamp", "service/kubernetes-bootcamp")
