"""A small web server that stands for nginx: files below /usr/share/nginx/html, its welcome page, its access log."""

import http.server
import json
import os
import signal
import sys
import threading

VERSION = "1.29.3"
HTML = "/usr/share/nginx/html"
WELCOME = """<!DOCTYPE html>
<html>
<head>
<title>Welcome to nginx!</title>
</head>
<body>
<h1>Welcome to nginx!</h1>
<p>If you see this page, a small program that stands for the nginx web server is running in a Pod of the
embedded cluster. It serves the files below /usr/share/nginx/html and knows no configuration.</p>
<p><em>Thank you for using nginx.</em></p>
</body>
</html>
"""


def folder() -> str:
    """Return where the documents are: a volume may be mounted there, in whichever way."""
    mounts = json.loads(os.environ.get("KIT_MOUNTS", "{}"))
    for mount, path in mounts.items():
        if HTML == mount or HTML.startswith(mount + "/"):
            return path + HTML[len(mount) :]
    return HTML


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, and the welcome page where there is none."""

    protocol_version = "HTTP/1.1"
    server_version = f"nginx/{VERSION}"
    sys_version = ""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, directory=folder(), **kwargs)

    def version_string(self):
        return self.server_version

    def send_head(self):
        if self.path in ("/", "/index.html") and not os.path.exists(os.path.join(folder(), "index.html")):
            return self.page(200, WELCOME)
        return super().send_head()

    def page(self, code, text):
        import io

        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return io.BytesIO(body)

    def list_directory(self, path):
        return self.send_error(403)

    def send_error(self, code, message=None, explain=None):
        title = f"{code} {message or self.responses[code][0]}"
        text = f"<html>\n<head><title>{title}</title></head>\n<body>\n<center><h1>{title}</h1></center>\n"
        text += f"<hr><center>nginx/{VERSION}</center>\n</body>\n</html>\n"
        self.wfile.write(self.page(code, text).read()) if self.command != "HEAD" else self.page(code, text)

    def log_request(self, code="-", size="-"):
        code = getattr(code, "value", code)
        line = f'{self.client_address[0]} - - [{self.log_date_time_string()} +0000] "{self.requestline}" {code} - "-"'
        print(f'{line} "{self.headers.get("User-Agent", "-") if hasattr(self, "headers") else "-"}" "-"', flush=True)

    def log_error(self, *args):
        pass


def main():
    if any(word in ("-v", "-V") for word in sys.argv[1:]):
        sys.exit(f"nginx version: nginx/{VERSION}")
    address = (os.environ.get("POD_IP", "127.0.0.1"), int(os.environ.get("KIT_PORT_80", 80)))
    try:
        server = http.server.ThreadingHTTPServer(address, Handler)
    except OSError as error:
        sys.exit(f"nginx: [emerg] bind() to {address[0]}:{address[1]} failed ({error.errno}: {error.strerror})")
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    signal.signal(signal.SIGQUIT, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"nginx/{VERSION} (stand-in): start worker processes", file=sys.stderr, flush=True)
    server.serve_forever()


main()
