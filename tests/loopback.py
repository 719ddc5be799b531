"""A server on the loopback address that misbehaves as told, one behaviour a request."""

import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """What the server sends, and what it was asked."""

    body: bytes
    script: list = field(default_factory=list)
    """What happens to one request after the other, and "fine" after the last.

    `(status, headers)`; `("drop", n)`: the connection closes after n bytes; `("length", n)`: the body is announced
    with n bytes; `("stall", n, event)`: n bytes, then nothing until the event; "ignore ranges"; "no length"; or a
    callable that returns one of these.
    """
    tag: str | None = '"v1"'
    codings: set = field(default_factory=set)
    """The content codings that the requests accepted."""
    asked: list = field(default_factory=list)
    """The Range header of each request, None without one."""
    url: str = ""
    headers: dict = field(default_factory=dict)
    """Sent with every answer."""


def _handler(served):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def answer(self, status, headers, body=b"", length=None):
            self.send_response(status)
            for name, value in (served.headers | headers).items():
                self.send_header(name, value)
            if served.tag:
                self.send_header("ETag", served.tag)
            if length != "":
                self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self):
            act = served.script.pop(0) if served.script else "fine"
            status, headers = act if isinstance(act, tuple) else (200, {})
            self.answer(status, headers, length=len(served.body) if status == 200 else 0)

        def do_GET(self):
            served.asked.append(self.headers.get("Range"))
            served.codings.add(self.headers.get("Accept-Encoding"))
            act = served.script.pop(0) if served.script else "fine"
            if callable(act):
                act = act()
            if isinstance(act, tuple) and isinstance(act[0], int):
                self.answer(*act)
                return
            body, status, headers = served.body, 200, {}
            asked = self.headers.get("Range")
            unless = self.headers.get("If-Range")
            if asked and act != "ignore ranges" and unless in (None, served.tag):
                first = int(asked.removeprefix("bytes=").rstrip("-"))
                if first >= len(body):
                    self.answer(416, {"Content-Range": f"bytes */{len(body)}"})
                    return
                status, headers = 206, {"Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"}
                body = body[first:]
            length = len(body)
            if isinstance(act, tuple) and act[0] == "drop":
                body = body[: act[1]]
                self.close_connection = True
            elif isinstance(act, tuple) and act[0] == "length":
                length = act[1]
                self.close_connection = True
            if isinstance(act, tuple) and act[0] == "stall":
                self.answer(status, headers, body[: act[1]], length)
                act[2].wait(60)
                self.close_connection = True
            elif act == "no length":
                self.close_connection = True
                self.answer(status, headers, body, "")
            else:
                self.answer(status, headers, body, length)

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Say nothing where a client has gone: the tests make it go."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(body: bytes, name: str = "facts.json"):
    """Serve `body` at `url`, as the script of what is yielded says."""
    served = Served(body)
    server = _Server(("127.0.0.1", 0), _handler(served))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/{name}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
