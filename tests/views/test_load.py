"""A request loop sees what a client of the application sees."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from kitlib import views
from kitlib.errors import KitError
from views.waiting import until


class App(BaseHTTPRequestHandler):
    status, version, count = 200, 1, 0
    body = "Hello Kubernetes bootcamp! | Running on: web-{count} | v={version}\n"

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:  # noqa: N802
        App.count += 1
        body = App.body.format(count=App.count % 2, version=App.version).encode()
        self.send_response(App.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def url() -> Iterator[str]:
    App.status, App.version = 200, 1
    text = App.body
    server = ThreadingHTTPServer(("127.0.0.1", 0), App)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    App.body = text


def test_the_loop_tells_versions_failures_and_pods_apart(url: str) -> None:
    with views.RequestLoop(url, interval=0.005) as loop:
        until(lambda: len(loop.answers) > 5)
        App.version = 2
        loop.mark("set image")
        until(lambda: "2" in loop.counts("version"))
        App.status = 503
        until(lambda: loop.failed)
    assert set(loop.counts("version")) == {"1", "2"}
    assert set(loop.counts()) == {"web-0", "web-1"}
    assert loop.failed[0].status == 503
    assert loop.marks[0][1] == "set image"


def test_nothing_is_asked_after_the_block(url: str) -> None:
    with views.RequestLoop(url, interval=0.005) as loop:
        until(lambda: loop.answers)
    assert not any(thread.is_alive() for thread in loop._threads)


def test_a_refused_connection_is_an_answer_with_status_0() -> None:
    with views.RequestLoop("http://127.0.0.1:9/", interval=0.005) as loop:
        until(lambda: loop.answers)
    assert {answer.status for answer in loop.answers} == {0}
    assert loop.counts() == {}


@pytest.mark.parametrize("bad", ["", "localhost:8080", "ftp://x/", "http:///path"])
def test_an_address_that_cannot_be_asked_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        views.RequestLoop(bad)


def test_load_spread_counts_pods(url: str) -> None:
    picture = views.load_spread(url, requests=10)
    assert picture.alt == "Who answered 10 requests: web-0 5, web-1 5."


def test_load_spread_of_a_service_without_pods_is_one_clear_line() -> None:
    with pytest.raises(KitError, match="No request was answered well"):
        views.load_spread("http://127.0.0.1:9/", requests=2)


@pytest.mark.parametrize("requests", [0, -1, 2.5, "many"])
def test_load_spread_wants_a_whole_number_of_requests(requests: Any) -> None:
    with pytest.raises(KitError, match="requests is .*: it must be a whole number of at least 1"):
        views.load_spread("http://127.0.0.1:9/", requests=requests)


def test_load_spread_names_the_status_of_an_answer_without_words(url: str) -> None:
    App.status, App.body = 502, ""
    with pytest.raises(KitError, match="status 502"):
        views.load_spread(url, requests=1)
