"""The server's side of SPDY/3.1, as far as kubectl uses it: many two-way streams over one connection.

Stands for moby/spdystream. Older releases of kubectl speak it after an HTTP upgrade, newer ones carry its frames
in websocket messages. Left out: flow-control windows, which no Kubernetes client uses (a slow receiver
stops the whole connection from being read instead), priorities and pushed streams.
Frame layout and header dictionary: the SPDY protocol drafts 3 and 3.1.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

MAX_CONTROL_FRAME = 64 << 10
MAX_HEADERS = 64 << 10
MAX_STREAMS = 1000

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FIN = 0x01
PROTOCOL_ERROR, REFUSED_STREAM, CANCEL = 1, 3, 5
_CONTROL = 0x8000_0000

_WORDS = (
    "options,head,post,put,delete,trace,accept,accept-charset,accept-encoding,accept-language,accept-ranges,age,allow,"
    "authorization,cache-control,connection,content-base,content-encoding,content-language,content-length,"
    "content-location,content-md5,content-range,content-type,date,etag,expect,expires,from,host,if-match,"
    "if-modified-since,if-none-match,if-range,if-unmodified-since,last-modified,location,max-forwards,pragma,"
    "proxy-authenticate,proxy-authorization,range,referer,retry-after,server,te,trailer,transfer-encoding,upgrade,"
    "user-agent,vary,via,warning,www-authenticate,method,get,status,200 OK,version,HTTP/1.1,url,public,set-cookie,"
    "keep-alive,origin"
)
_PHRASES = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _counted(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


DICTIONARY = b"".join(_counted(word.encode()) for word in _WORDS.split(",")) + _PHRASES.encode()
"""What both ends prime the compression of headers with: 1423 bytes, Adler-32 e3c6a7c2."""

Headers = dict[str, str]
Send = Callable[[bytes], Awaitable[None]]
Receive = Callable[[bytes], Awaitable[None]]


class ProtocolError(Exception):
    """The client sent something that is no SPDY/3.1."""


async def _drop(data: bytes) -> None:
    pass


class Stream:
    """One two-way stream that the client opened.

    Attributes:
        id: Its odd number.
        headers: What the client opened it with; names in lower case.
        receive: Called with what arrives, and with `b""` at its end. While it waits, the connection is not read.
        on_reset: Called when the client resets the stream: it neither sends nor reads any more.
        ended: Whether the client has said that it sends no more.
    """

    def __init__(self, connection: Connection, number: int, headers: Headers) -> None:
        """See the class; `Connection` makes streams."""
        self.id = number
        self.headers = headers
        self.receive: Receive = _drop
        self.on_reset: Callable[[], object] = lambda: None
        self.ended = False
        self._connection = connection
        self._finished = False

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the client is slow.

        Raises:
            ConnectionResetError: The client has closed or reset the stream.
        """
        if self._finished or self.id not in self._connection.streams:
            raise ConnectionResetError("stream is closed")
        await self._connection.send_data(self.id, data, 0)

    async def close(self) -> None:
        """Say that nothing more comes from this side."""
        if not self._finished and self.id in self._connection.streams:
            self._finished = True
            if self.ended:
                del self._connection.streams[self.id]
            await self._connection.send_data(self.id, b"", FIN)

    @property
    def finished(self) -> bool:
        """Whether this side has said that it sends no more."""
        return self._finished

    async def reset(self) -> None:
        """End both directions and forget the stream."""
        if self._connection.streams.pop(self.id, None) is not None:
            self._finished = True
            await self._connection.send_control(RST_STREAM, struct.pack(">II", self.id, CANCEL))


class Connection:
    """A SPDY connection, whatever carries its bytes.

    Args:
        send: Writes bytes to the client, whole and in the order of calls; waits while the client is slow.
        accept: Called with each new stream before anything of it is received; False refuses the stream.

    Attributes:
        streams: The open streams by number.
    """

    def __init__(self, send: Send, accept: Callable[[Stream], bool]) -> None:
        """Start a connection; `run` reads it."""
        self.streams: dict[int, Stream] = {}
        self._send = send
        self._accept = accept
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._last_stream = 0

    async def run(self, chunks: AsyncIterator[bytes]) -> None:
        """Serve the connection until the client ends it, breaks the protocol or says goodbye.

        Args:
            chunks: What the client sends, in pieces of any size.
        """
        buffer = bytearray()
        try:
            async for chunk in chunks:
                buffer += chunk
                for frame in _frames(buffer):
                    await self._handle(*frame)
        except (ProtocolError, zlib.error, struct.error):
            await self.goaway(PROTOCOL_ERROR)
        except ConnectionError:
            pass
        finally:
            self.streams.clear()

    async def goaway(self, code: int = 0) -> None:
        """Tell the client that this side ends the connection."""
        try:
            await self.send_control(GOAWAY, struct.pack(">II", self._last_stream, code))
        except ConnectionError:
            pass

    async def send_control(self, kind: int, payload: bytes, flags: int = 0) -> None:
        """Send a control frame."""
        await self._send(struct.pack(">II", _CONTROL | 3 << 16 | kind, flags << 24 | len(payload)) + payload)

    async def send_data(self, stream: int, data: bytes, flags: int) -> None:
        """Send a data frame."""
        await self._send(struct.pack(">II", stream, flags << 24 | len(data)) + data)

    async def _handle(self, word: int, flags: int, payload: bytes) -> None:
        if not word & _CONTROL:
            await self._data(word, flags, payload)
            return
        if word >> 16 & 0x7FFF != 3:
            raise ProtocolError("not version 3")
        kind = word & 0xFFFF
        if kind == SYN_STREAM:
            await self._syn_stream(flags, payload)
        elif kind == RST_STREAM:
            await self._finish(struct.unpack(">II", payload)[0] & 0x7FFF_FFFF, forget=True)
        elif kind == PING:
            (number,) = struct.unpack(">I", payload)
            if number & 1:
                await self.send_control(PING, payload)
        elif kind == HEADERS:
            self._headers(payload[4:])
        elif kind == GOAWAY:
            pass  # the client opens no more streams; it closes when the open ones are done
        elif kind not in (SYN_REPLY, SETTINGS, WINDOW_UPDATE):
            raise ProtocolError(f"unknown frame {kind}")

    async def _syn_stream(self, flags: int, payload: bytes) -> None:
        number = struct.unpack_from(">I", payload)[0] & 0x7FFF_FFFF
        headers = self._headers(payload[10:])
        if number % 2 == 0 or number <= self._last_stream:
            raise ProtocolError("stream numbers must be odd and grow")
        self._last_stream = number
        stream = Stream(self, number, headers)
        if len(self.streams) >= MAX_STREAMS or not self._accept(stream):
            await self.send_control(RST_STREAM, struct.pack(">II", number, REFUSED_STREAM))
            return
        self.streams[number] = stream
        await self.send_control(SYN_REPLY, struct.pack(">I", number) + self._compress({}))
        if flags & FIN:
            await self._finish(number)

    async def _data(self, number: int, flags: int, payload: bytes) -> None:
        stream = self.streams.get(number)
        if stream is None:
            if number == 0 or number > self._last_stream:
                raise ProtocolError("data for a stream that was never opened")
            return  # it crossed our reset
        if payload and not stream.ended:
            await stream.receive(payload)
        if flags & FIN:
            await self._finish(number)

    async def _finish(self, number: int, forget: bool = False) -> None:
        stream = self.streams.get(number)
        if stream is None:
            return
        if forget or stream.finished:
            del self.streams[number]
        if forget:
            stream.on_reset()
        if not stream.ended:
            stream.ended = True
            await stream.receive(b"")

    def _headers(self, block: bytes) -> Headers:
        data = self._inflate.decompress(block, MAX_HEADERS)
        if self._inflate.unconsumed_tail:
            raise ProtocolError("headers too long")
        (count,) = struct.unpack_from(">I", data)
        texts = []
        offset = 4
        for _ in range(2 * count):
            (length,) = struct.unpack_from(">I", data, offset)
            offset += 4 + length
            if offset > len(data):
                raise ProtocolError("header beyond its block")
            texts.append(data[offset - length : offset].decode(errors="replace"))
        return {name.lower(): value for name, value in zip(texts[::2], texts[1::2])}  # noqa: B905

    def _compress(self, headers: Headers) -> bytes:
        pairs = b"".join(_counted(name.encode()) + _counted(value.encode()) for name, value in headers.items())
        return self._deflate.compress(struct.pack(">I", len(headers)) + pairs) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def _frames(buffer: bytearray) -> Iterator[tuple[int, int, bytes]]:
    """Take whole frames off the front of the buffer: first word, flags, payload."""
    while len(buffer) >= 8:
        word, rest = struct.unpack_from(">II", buffer)
        length = rest & 0xFF_FFFF
        if word & _CONTROL and length > MAX_CONTROL_FRAME:
            raise ProtocolError("control frame too long")
        if len(buffer) < 8 + length:
            return
        payload = bytes(buffer[8 : 8 + length])
        del buffer[: 8 + length]
        yield word, rest >> 24, payload


async def chunks_of(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield what a stream reader receives until its end."""
    while data := await reader.read(64 << 10):
        yield data
