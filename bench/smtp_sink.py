"""An SMTP server that takes every mail and keeps none: `python -m bench.smtp_sink PORT`. Fast, so that it is not measured."""

import asyncio
import sys

_REPLIES = {b"EHLO": b"250-sink\r\n250 8BITMIME\r\n", b"DATA": b"354 Go on\r\n", b"QUIT": b"221 Bye\r\n"}


class _Session(asyncio.Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport, self._buffer, self._is_in_mail = transport, b"", False
        transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = b"\r\n.\r\n" if self._is_in_mail else b"\r\n"
        while end in self._buffer:
            line, _, self._buffer = self._buffer.partition(end)
            command = b"" if self._is_in_mail else line[:4].upper()
            self._is_in_mail = command == b"DATA"
            self._transport.write(_REPLIES.get(command, b"250 OK\r\n"))
            end = b"\r\n.\r\n" if self._is_in_mail else b"\r\n"


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Session, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
