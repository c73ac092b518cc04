"""A JupyterLab server of the tests' own, and what a person does with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import nbformat
import psutil

from browser.chrome import Chrome, Page

TOKEN = "browser-test"
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
}


class Lab:
    """Serves a folder of notebooks on a free local port; ends with its kernels when the `with` block ends."""

    def __init__(self, root: Path, scratch: Path, environment: Mapping[str, str], through: str = "") -> None:
        self.scratch, self.runtime = scratch, scratch / "runtime"
        settings = scratch / "settings" / "@jupyterlab"
        for name, values in SETTINGS.items():
            path = settings / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        own = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
            "JUPYTER_RUNTIME_DIR": str(self.runtime),
            "JUPYTER_CONFIG_DIR": str(scratch / "config"),
            "JUPYTER_DATA_DIR": str(scratch / "data"),
            "IPYTHONDIR": str(scratch / "ipython"),
            "JUPYTERLAB_SETTINGS_DIR": str(scratch / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(scratch / "workspaces"),
        }
        arguments = [
            "--no-browser", "--allow-root", "--expose-app-in-browser", "--ip=127.0.0.1", "--port=0",
            f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={root}",
        ]  # fmt: skip
        self._log = (scratch / "lab.log").open("wb")
        self._server = subprocess.Popen(
            [*filter(None, [through]), sys.executable, "-m", "jupyterlab", *arguments],
            cwd=root,
            env={**environment, **own}, stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        family = psutil.Process(self._server.pid).children(recursive=True)
        self._server.terminate()
        try:
            self._server.wait(30)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait(30)
        for process in family:
            if process.is_running():
                process.kill()
        self._log.close()

    @property
    def url(self) -> str:
        """Address of the server, once it listens."""
        deadline = time.monotonic() + 120
        while True:
            for path in self.runtime.glob("jpserver-*.json"):
                if text := path.read_text():
                    return str(json.loads(text)["url"])
            assert self._server.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.2)

    def log(self) -> str:
        """Return the end of what the server said."""
        return (self.scratch / "lab.log").read_text(errors="replace")[-3000:]

    def open(self, browser: Chrome, notebook: str) -> Page:
        """Open a notebook and wait until its kernel is idle."""
        page = browser.open(f"{self.url}lab/tree/{notebook}?token={TOKEN}&reset")
        page.wait_for("window.jupyterapp && jupyterapp.shell.currentWidget && true", "JupyterLab", 180)
        page.wait_for(f"{PANEL} && {PANEL}.sessionContext && {PANEL}.sessionContext.isReady", "the notebook", 180)
        page.wait_for(f"{PANEL}.sessionContext.session.kernel.status === 'idle'", "the kernel", 180)
        return page


PANEL = "jupyterapp.shell.currentWidget"
ERRORS = f"""
    {PANEL}.content.model.toJSON().cells.flatMap((cell) => (cell.outputs || [])
        .filter((output) => output.output_type === "error")
        .map((output) => `${{[].concat(cell.source).join("")}}\\n${{output.ename}}: ${{output.evalue}}`))
"""


def run_all(page: Page) -> None:
    """Start Run > Run All Cells; returns at once."""
    page.evaluate(
        "window.ranAll = null;"
        " void jupyterapp.commands.execute('notebook:run-all-cells').then(() => window.ranAll = true)"
    )


def wait_until_run(page: Page, timeout: float) -> None:
    """Wait until every cell has run, and assert that none failed."""
    page.wait_for("window.ranAll", "the last cell", timeout)
    page.wait_for(f"{PANEL}.sessionContext.session.kernel.status === 'idle'", "an idle kernel", timeout)
    assert_no_cell_failed(page)


def assert_no_cell_failed(page: Page) -> None:
    """Assert that no cell has ended with an error so far."""
    assert not (errors := page.evaluate(ERRORS)), "\n\n".join(errors)


def write_notebook(path: Path, *cells: str) -> Path:
    """Write a notebook with the given code cells."""
    notebook: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, path)
    return path


def output_folder(fallback: Path) -> Path:
    """Return where screenshots are kept: `$KIT_TEST_OUT`, else a folder that pytest clears."""
    folder = Path(os.environ.get("KIT_TEST_OUT") or fallback)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
