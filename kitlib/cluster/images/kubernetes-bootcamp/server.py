"""The web server of the Kubernetes Basics tutorial, in the words of the original. Imports little: it starts at once.

Listens on $POD_IP, port 8080 (or where $KIT_PORT_8080 says). Ends politely on SIGTERM: answers what it has begun.
"""

import os
import selectors
import signal
import socket
import sys
import time

HOST = os.environ.get("HOSTNAME", "localhost")
BODY = f"Hello Kubernetes bootcamp! | Running on: {HOST} | v={os.environ.get('APP_VERSION', '1')}\n".encode()
LIMIT = 65536


def log(text):
    os.write(1, (text + "\n").encode())


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())


class Client:
    def __init__(self, sock):
        self.sock, self.inbox, self.outbox, self.closing = sock, b"", b"", False

    def take(self):
        """Answer every whole request received so far."""
        while b"\r\n\r\n" in self.inbox and not self.closing:
            head, rest = self.inbox.split(b"\r\n\r\n", 1)
            lines = head.lower().split(b"\r\n")
            length = next((int(x[15:]) for x in lines if x.startswith(b"content-length:") and x[15:].strip().isdigit()), 0)
            if len(rest) < length:
                return
            self.inbox = rest[length:]
            self.closing = b"connection: close" in lines or lines[0].endswith(b"http/1.0")
            self.answer(head.split(b" ", 1)[0] == b"HEAD")
        self.closing = self.closing or len(self.inbox) > LIMIT

    def answer(self, head_only):
        state = "close" if self.closing else "keep-alive"
        headers = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(BODY)}\r\nConnection: {state}\r\n\r\n"
        self.outbox += headers.encode() + (b"" if head_only else BODY)
        log(f"Running On: {HOST} | Total Requests: {count()} | App Uptime: {time.time() - START:.3f} seconds | Log Time: {now()}")


TOTAL = 0
START = time.time()


def count():
    global TOTAL
    TOTAL += 1
    return TOTAL


def serve(listener):
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    selector.register(wake_read, selectors.EVENT_READ)
    clients, ending = set(), False
    while clients or not ending:
        for key, mask in selector.select():
            if key.fileobj is listener:
                accept(selector, listener, clients)
            elif key.fileobj == wake_read:
                os.read(wake_read, 64)
                if not ending:
                    ending = True
                    selector.unregister(listener)
                    listener.close()
                    for client in [c for c in clients if not c.outbox and not c.inbox]:
                        close(selector, client, clients)
            elif key.data in clients:
                exchange(selector, key.data, mask, clients, ending)


def accept(selector, listener, clients):
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        client = Client(sock)
        clients.add(client)
        selector.register(sock, selectors.EVENT_READ, client)


def exchange(selector, client, mask, clients, ending):
    try:
        if mask & selectors.EVENT_READ:
            data = client.sock.recv(LIMIT)
            if not data:
                return close(selector, client, clients)
            client.inbox += data
            client.take()
        if client.outbox:
            client.outbox = client.outbox[client.sock.send(client.outbox) :]
    except BlockingIOError:
        pass
    except OSError:
        return close(selector, client, clients)
    if not client.outbox and (client.closing or ending):
        return close(selector, client, clients)
    selector.modify(client.sock, selectors.EVENT_WRITE if client.outbox else selectors.EVENT_READ, client)


def close(selector, client, clients):
    clients.discard(client)
    selector.unregister(client.sock)
    client.sock.close()


def main():
    address = (os.environ.get("POD_IP", "127.0.0.1"), int(os.environ.get("KIT_PORT_8080", 8080)))
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        sys.exit(f"Error: listen {error.strerror}: {address[0]}:{address[1]}")
    listener.listen(1024)
    listener.setblocking(False)
    log(f"Kubernetes Bootcamp App Started At: {now()} | Running On:  {HOST}\n")
    serve(listener)


main()
