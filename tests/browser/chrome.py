"""A headless Chromium driven over a pipe with the DevTools protocol; no driver, no port, no network."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--no-default-browser-check",
    "--no-proxy-server", "--remote-debugging-pipe", "--window-size=1400,1200", "--hide-scrollbars",
)  # fmt: skip


def find_browser() -> str | None:
    """Return the path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Chrome:
    """A browser with an empty profile; ends with all its processes when the `with` block ends."""

    def __init__(self, profile: Path) -> None:
        program = find_browser()
        assert program, f"no browser found: looked for {', '.join(NAMES)}"
        to_child, self._write = _pipe()
        self._read, from_child = _pipe()
        log = os.open(profile / "chrome.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        home = {"HOME": str(profile), "XDG_CONFIG_HOME": str(profile), "XDG_CACHE_HOME": str(profile)}
        self.pid = os.posix_spawn(
            program,
            [program, *FLAGS, f"--user-data-dir={profile / 'data'}", "about:blank"],
            {**os.environ, **home},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2),  # first: the log may be descriptor 3 or 4
                (os.POSIX_SPAWN_DUP2, to_child, 3), (os.POSIX_SPAWN_DUP2, from_child, 4),
            ],
            setpgroup=0,
        )  # fmt: skip
        for descriptor in (to_child, from_child, log):
            os.close(descriptor)
        self._numbers, self._buffer = itertools.count(1), b""
        self.complaints: list[str] = []

    def __enter__(self) -> Chrome:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        processes = psutil.Process(self.pid).children(recursive=True)
        os.close(self._write)
        os.close(self._read)
        for process in processes:
            if process.is_running():
                process.kill()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        psutil.wait_procs(processes, timeout=30)

    def call(self, method: str, session: str = "", timeout: float = 60.0, **params: Any) -> dict[str, Any]:
        """Send one command of the DevTools protocol and return its result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + timeout
        while True:
            reply = self._next(deadline)
            if reply.get("id") == number:
                assert "error" not in reply, f"{method}: {reply['error']}"
                return dict(reply["result"])
            self._note(reply)

    def open(self, url: str) -> Page:
        """Open a page and return it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        page.call("Page.navigate", url=url)
        return page

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            readable, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, "the browser does not answer"
            chunk = os.read(self._read, 1 << 20)
            assert chunk, "the browser ended"
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(line))


class Page:
    """One tab."""

    def __init__(self, browser: Chrome, session: str) -> None:
        self.browser, self.session = browser, session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command to this tab."""
        return self.browser.call(method, self.session, **params)

    def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression; promises are awaited."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, script: str, what: str, timeout: float = 120.0) -> Any:
        """Wait until an expression is true, and return its value."""
        deadline = time.monotonic() + timeout
        while not (value := self.evaluate(script)):
            assert time.monotonic() < deadline, f"waited {timeout:g} s in vain for {what}"
            time.sleep(0.2)
        return value

    def press(self, key: str, text: str = "") -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text if kind == "keyDown" else "")

    def screenshot(self, path: Path) -> Path:
        """Write what the tab shows as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return path


def _pipe() -> tuple[int, int]:
    """Return a pipe whose ends lie above the descriptors that the browser expects its own at."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]
