"""The web server of the Kubernetes Basics tutorial, in the words of the original. Imports little: it starts at once.

Listens on $POD_IP, port 8080 (or where $KIT_PORT_8080 says). On SIGTERM it answers what it has begun and then lets the
signal end it, for the original does not handle it.
"""

import os
import selectors
import signal
import socket
import sys
import time

HOST = os.environ.get("HOSTNAME", "localhost")
BODY = f"Hello Kubernetes bootcamp! | Running on: {HOST} | v={os.environ.get('APP_VERSION', '1')}\n".encode()
HEADERS = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {}\r\n\r\n"
LIMIT = 65536
PATIENCE = 0.2


def log(text: str) -> None:
    """Print a line at once."""
    os.write(1, (text + "\n").encode())


def now() -> str:
    """Return the time as the original prints it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{int(time.time() * 1000) % 1000:03d}Z"


class Client:
    """One connection: what came in, what is to go out."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.inbox, self.outbox, self.closing, self.served = sock, b"", b"", False, False

    def requests(self) -> "list[bytes]":
        """Take every whole request received so far; return their first lines."""
        found = []
        while b"\r\n\r\n" in self.inbox and not self.closing:
            head, rest = self.inbox.split(b"\r\n\r\n", 1)
            lines = head.lower().split(b"\r\n")
            lengths = [line[15:].strip() for line in lines if line.startswith(b"content-length:")]
            length = int(lengths[0]) if lengths and lengths[0].isdigit() else 0
            if len(rest) < length:
                break
            self.inbox = rest[length:]
            self.closing = b"connection: close" in lines or lines[0].endswith(b"http/1.0")
            found.append(lines[0])
        self.served = self.served or bool(found)
        self.closing = self.closing or len(self.inbox) > LIMIT
        return found


class Server:
    """Answers every request with the same line.

    Args:
        listener: Listening socket.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.listener, self.total, self.started, self.ending = listener, 0, time.time(), False
        self.clients: set[Client] = set()
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)
        self.wake, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self.selector.register(self.wake, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until SIGTERM, then until the last answer is out."""
        while self.clients or not self.ending:
            for key, mask in self.selector.select(PATIENCE if self.ending else None) or self.give_up():
                if key.fileobj is self.listener:
                    self.accept()
                elif key.fileobj == self.wake:
                    self.end()
                elif key.data in self.clients:
                    self.exchange(key.data, mask)

    def end(self) -> None:
        """Accept what waits and then no more; answer what has been asked; wait a moment for a new client's request."""
        if not self.ending:
            self.accept()
            self.ending = True
            self.selector.unregister(self.listener)
            self.listener.close()
            self.selector.unregister(self.wake)
            for client in list(self.clients):
                self.exchange(client, selectors.EVENT_READ)

    def give_up(self) -> "list[tuple[selectors.SelectorKey, int]]":
        """Drop new connections on which no request has come."""
        for client in [client for client in self.clients if not client.outbox]:
            self.close(client)
        return []

    def accept(self) -> None:
        """Take every connection that waits."""
        while not self.ending:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.setblocking(False)
            client = Client(sock)
            self.clients.add(client)
            self.selector.register(sock, selectors.EVENT_READ, client)

    def exchange(self, client: Client, mask: int) -> None:
        """Read and write what is possible now."""
        try:
            if mask & selectors.EVENT_READ and not self.receive(client):
                return self.close(client)
            if client.outbox:
                client.outbox = client.outbox[client.sock.send(client.outbox) :]
        except BlockingIOError:
            pass
        except OSError:
            return self.close(client)
        if not client.outbox and (client.closing or (self.ending and client.served)):
            return self.close(client)
        self.selector.modify(client.sock, selectors.EVENT_WRITE if client.outbox else selectors.EVENT_READ, client)

    def receive(self, client: Client) -> bool:
        """Read and answer; False at the end of the connection."""
        data = client.sock.recv(LIMIT)
        client.inbox += data
        for request in client.requests():
            self.total += 1
            headers = HEADERS.format(len(BODY), "close" if client.closing else "keep-alive").encode()
            client.outbox += headers if request.startswith(b"head ") else headers + BODY
            uptime = f"App Uptime: {time.time() - self.started:.3f} seconds"
            log(f"Running On: {HOST} | Total Requests: {self.total} | {uptime} | Log Time: {now()}")
        return bool(data)

    def close(self, client: Client) -> None:
        """Forget a connection."""
        self.clients.discard(client)
        self.selector.unregister(client.sock)
        client.sock.close()


def main() -> None:
    """Listen and serve."""
    host, port = os.environ.get("POD_IP", "127.0.0.1"), int(os.environ.get("KIT_PORT_8080", 8080))
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        sys.exit(f"Error: listen {error.strerror}: {host}:{port}")
    listener.listen(1024)
    listener.setblocking(False)
    log(f"Kubernetes Bootcamp App Started At: {now()} | Running On:  {HOST}\n")
    Server(listener).run()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


main()
