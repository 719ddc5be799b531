"""A server on the loopback address that misbehaves as told, one behaviour a request."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """What the server sends, and what it was asked."""

    body: bytes
    script: list = field(default_factory=list)
    """One entry a request, `fine` when it is used up: `(status, headers)`, "ignore ranges", ("drop", bytes), …"""
    tag: str | None = '"v1"'
    asked: list = field(default_factory=list)
    """The Range header of each request, None without one."""
    url: str = ""


def _handler(served):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def answer(self, status, headers, body=b"", length=None):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if served.tag:
                self.send_header("ETag", served.tag)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            served.asked.append(self.headers.get("Range"))
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
            self.answer(status, headers, body, length)

    return Handler


@contextmanager
def serving(body: bytes, name: str = "facts.json"):
    """Serve `body` at `url`, as the script of what is yielded says."""
    served = Served(body)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(served))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/{name}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
