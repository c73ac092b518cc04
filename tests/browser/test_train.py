"""Chapter 10's run in JupyterLab: the map's tiles change, the progress bar fills, the throughput figure is drawn."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from harness import EmbeddedCluster

from browser.chrome import Chrome
from browser.lab import Lab, assert_no_cell_failed, run_all, wait_until_run

CHAPTER = Path(__file__).parents[2] / "notebooks" / "10-train-on-the-cluster.ipynb"
WATCH_TILES = """
    window.seen = new Set();
    window.fullest = 0;
    window.look = setInterval(() => {
        for (const tile of document.querySelectorAll('.kit-tile')) {
            window.seen.add(`${tile.dataset.name} ${tile.dataset.letter}`);
        }
        for (const bar of document.querySelectorAll('.widget-progress .progress-bar, .jupyter-widgets .progress-bar')) {
            window.fullest = Math.max(window.fullest, parseFloat(bar.style.width) || 0);
        }
    }, 50);
"""
SEEN = "Array.from(window.seen).join('\\n')"
FIGURE = (
    "Array.from(document.querySelectorAll('.jp-CodeCell'))"
    """.find((cell) => cell.innerText.includes('plot("throughput")'))?.querySelector('.jp-OutputArea-output img')"""
)


def fast_copy(folder: Path) -> Path:
    """Copy the notebook up to its throughput figure, and its end, with its own quick settings switched on."""
    notebook = nbformat.read(CHAPTER, 4)
    figure, end = (
        next(i for i, cell in enumerate(notebook.cells) if cell.source == source)
        for source in ('run.plot("throughput")', "cluster.clean_up()")
    )
    notebook.cells = [*notebook.cells[: figure + 1], notebook.cells[end]]
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert "fast = False" in parameters.source
    parameters.source = parameters.source.replace("fast = False", "fast = True")
    folder.mkdir()
    nbformat.write(notebook, folder / CHAPTER.name)
    return folder / CHAPTER.name


@pytest.mark.timeout(900)
def test_a_training_run_shows_itself_in_a_browser(
    cluster: EmbeddedCluster, browser: Chrome, screenshots: Path, tmp_path: Path
) -> None:
    copy = fast_copy(tmp_path / "notebooks")
    with Lab(copy.parent, tmp_path, {**cluster.env, "KIT_CLUSTER": "embedded"}) as lab:
        page = lab.open(browser, copy.name)
        page.evaluate(f"(() => {{{WATCH_TILES}}})()")
        run_all(page)
        page.wait_for(f"window.ranAll || / R$/m.test({SEEN})", "a tile of a running worker", 300)
        assert_no_cell_failed(page)
        page.evaluate("document.querySelector('.kit-map').scrollIntoView({block: 'center'})")
        page.screenshot(screenshots / "train-running.png")
        wait_until_run(page, 800)
        page.wait_for("window.fullest >= 100", "a full progress bar")
        page.wait_for(f"{FIGURE}?.naturalWidth > 0", "the throughput figure")
        seen = page.evaluate(SEEN).splitlines()
        letters: dict[str, set[str]] = {}
        for name, letter in (line.rsplit(" ", 1) for line in seen):
            letters.setdefault(name, set()).add(letter)
        assert any(len(each) > 1 for each in letters.values()), letters
        page.evaluate(f"{FIGURE}.scrollIntoView({{block: 'center'}})")
        page.screenshot(screenshots / "train-done.png")
    assert browser.complaints == []
