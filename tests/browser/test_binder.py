"""What Binder starts: the lab opens with the first chapter and the live map side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import EmbeddedCluster

from browser.chrome import Chrome
from browser.lab import PANEL, TOKEN, Lab

ROOT = Path(__file__).parents[2]
SHOWN = "Array.from(document.querySelectorAll('.jp-NotebookPanel:not(.lm-mod-hidden)')).length"


@pytest.mark.timeout(600)
def test_the_lab_opens_with_the_map_beside(
    cluster: EmbeddedCluster, browser: Chrome, screenshots: Path, tmp_path: Path
) -> None:
    with Lab(ROOT, tmp_path, cluster.env, through=str(ROOT / "binder" / "start")) as lab:
        page = browser.open(f"{lab.url}lab?token={TOKEN}")
        page.wait_for("window.jupyterapp && true", "JupyterLab", 180)
        page.wait_for(f"{SHOWN} === 2", "two notebooks beside each other", 180)
        page.evaluate(
            "jupyterapp.commands.execute('docmanager:open', {path: 'binder/cluster-map.ipynb'}).then(() => 1)"
        )
        page.wait_for(f"{PANEL}.context && {PANEL}.context.path === 'binder/cluster-map.ipynb'", "the map's notebook")
        page.wait_for(f"{PANEL}.sessionContext.session?.kernel?.status === 'idle'", "its kernel", 180)
        page.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")
        page.wait_for("document.querySelectorAll('.kit-node').length === 3", "the map", 180)
        page.screenshot(screenshots / "binder.png")
    assert browser.complaints == []
