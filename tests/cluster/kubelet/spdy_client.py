"""A small SPDY/3.1 client, written from the other end's point of view, for the tests of the server."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections import defaultdict

from kitlib.cluster.kubelet.streaming.spdy import DICTIONARY

FIN = 1


def control(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">II", 0x8003_0000 | kind, flags << 24 | len(payload)) + payload


def data_frame(stream: int, data: bytes, flags: int = 0) -> bytes:
    return struct.pack(">II", stream, flags << 24 | len(data)) + data


class SPDYClient:
    """Opens streams on a connection that is already upgraded and collects what comes back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.deflate = zlib.compressobj(zdict=DICTIONARY)
        self.received: dict[int, bytes] = defaultdict(bytes)
        self.ended: set[int] = set()
        self.frames: list[tuple[int, bytes]] = []
        self.next = 1

    def headers(self, pairs: dict[str, str]) -> bytes:
        def counted(text: str) -> bytes:
            return struct.pack(">I", len(text)) + text.encode()

        block = struct.pack(">I", len(pairs)) + b"".join(counted(k) + counted(v) for k, v in pairs.items())
        return self.deflate.compress(block) + self.deflate.flush(zlib.Z_SYNC_FLUSH)

    def open(self, **pairs: str) -> int:
        number, self.next = self.next, self.next + 2
        self.writer.write(control(1, struct.pack(">IIH", number, 0, 0) + self.headers(pairs)))
        return number

    def send(self, stream: int, data: bytes, flags: int = 0) -> None:
        self.writer.write(data_frame(stream, data, flags))

    async def read_frame(self) -> bool:
        try:
            word, rest = struct.unpack(">II", await self.reader.readexactly(8))
            payload = await self.reader.readexactly(rest & 0xFF_FFFF)
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        if word >> 31:
            self.frames.append((word & 0xFFFF, payload))
        else:
            self.received[word] += payload
            if rest >> 24 & FIN:
                self.ended.add(word)
        return True

    async def read_until(self, *streams: int) -> None:
        """Read until these streams have ended, or the connection has."""
        while not set(streams) <= self.ended and await self.read_frame():
            pass

    async def read_to_end(self) -> None:
        while await self.read_frame():
            pass
