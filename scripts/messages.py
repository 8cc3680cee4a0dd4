"""Just enough of a WebSocket client (RFC 6455) to read the messages of a ComfyUI server."""

from __future__ import annotations

import base64
import json
import os
import select
import socket
from types import TracebackType
from typing import Any

TEXT, CLOSE = 0x1, 0x8


class MessageReader:
    """Reads the JSON messages that the server on a loopback `port` sends to `client_id`."""

    def __init__(self, port: int, client_id: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            f"GET /ws?clientId={client_id} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        )
        self._socket.sendall(("\r\n".join(request) + "\r\n\r\n").encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self._read_bytes(1)
        if not answer.startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(f"The server refused a WebSocket: {answer.splitlines()[0].decode()}")

    def __enter__(self) -> MessageReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    def read(self, patience: float) -> dict[str, Any] | None:
        """The next JSON message; None when nothing arrives within `patience` seconds or it is no JSON message.

        Raises ConnectionError when the server closes the connection.
        """
        if not select.select([self._socket], [], [], patience)[0]:
            return None
        first, second = self._read_bytes(2)
        length = second & 0x7F
        if length == 126:
            length = int.from_bytes(self._read_bytes(2), "big")
        elif length == 127:
            length = int.from_bytes(self._read_bytes(8), "big")
        payload = self._read_bytes(length)
        opcode = first & 0x0F
        if opcode == CLOSE:
            raise ConnectionError("The server closed the WebSocket.")
        return json.loads(payload) if opcode == TEXT else None

    def _read_bytes(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            if not part:
                raise ConnectionError("The server closed the WebSocket.")
            data += part
        return data
