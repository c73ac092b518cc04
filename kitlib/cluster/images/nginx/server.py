"""A small web server that stands for nginx: the files below /usr/share/nginx/html, its access log."""

from __future__ import annotations

import http.server
import io
import json
import os
import signal
import sys
import threading
from http import HTTPStatus
from typing import Any

VERSION = "1.29.3"
HTML = "/usr/share/nginx/html"
ERROR = """<html>
<head><title>{title}</title></head>
<body>
<center><h1>{title}</h1></center>
<hr><center>nginx/{version}</center>
</body>
</html>
"""


def folder() -> str:
    """Return where the documents are: a volume may be mounted there, in whichever way."""
    mounts: dict[str, str] = json.loads(os.environ.get("KIT_MOUNTS", "{}"))
    for mount, path in mounts.items():
        if HTML == mount or HTML.startswith(mount + "/"):
            return path + HTML[len(mount) :]
    return HTML


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, directory=folder(), **kwargs)

    def version_string(self) -> str:
        """Return the Server header."""
        return f"nginx/{VERSION}"

    def _page(self, code: int, text: str) -> io.BytesIO:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return io.BytesIO(body)

    def list_directory(self, path: Any) -> None:
        """Folders are not listed."""
        self.send_error(HTTPStatus.FORBIDDEN)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with nginx's error page."""
        title = f"{int(code)} {HTTPStatus(code).phrase}"
        page = self._page(code, ERROR.format(title=title, version=VERSION))
        if self.command != "HEAD":
            self.wfile.write(page.read())

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write a line of the access log."""
        agent = self.headers.get("User-Agent", "-") if hasattr(self, "headers") else "-"
        who = f"{self.client_address[0]} - - [{self.log_date_time_string()} +0000]"
        print(f'{who} "{self.requestline}" {int(code)} - "-" "{agent}" "-"', flush=True)

    def log_error(self, *args: Any) -> None:
        """Errors are in the access log already."""


def main() -> None:
    """Listen and serve until SIGTERM."""
    if any(word in ("-v", "-V") for word in sys.argv[1:]):
        sys.exit(f"nginx version: nginx/{VERSION}")
    address = (os.environ.get("POD_IP", "127.0.0.1"), int(os.environ.get("KIT_PORT_80", 80)))
    try:
        server = http.server.ThreadingHTTPServer(address, Handler)
    except OSError as error:
        sys.exit(f"nginx: [emerg] bind() to {address[0]}:{address[1]} failed ({error.errno}: {error.strerror})")
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"nginx/{VERSION} (stand-in): start worker processes", file=sys.stderr, flush=True)
    server.serve_forever()


main()
