"""An HTTP proxy before a storage server that fails on demand, and counts what it is asked."""

from __future__ import annotations

import contextlib
import http.client
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Iterator, List, Tuple
from urllib.parse import urlsplit

HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "server", "date", "expect"}


@dataclass
class Fault:
    """What happens to the next `times` requests of a method.

    Attributes:
        method: GET, PUT and so on; empty for any.
        status: answered instead of the server's answer, with `code` as S3 spells errors.
        after: the server gets the request all the same, so only its answer is lost.
        keep_bytes: the true answer breaks off after so many bytes of its body; -1 is off.
    """

    times: int = 1
    method: str = ""
    status: int = 0
    code: str = "InternalError"
    after: bool = False
    keep_bytes: int = -1


@dataclass
class FaultProxy:
    """A running proxy: append to `faults`, read `requests` (method and target of each)."""

    url: str
    faults: List[Fault] = field(default_factory=list)
    requests: List[Tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_fault(self, method: str, target: str) -> Fault:
        with self.lock:
            self.requests.append((method, target))
            for fault in self.faults:
                if fault.times and fault.method in ("", method):
                    fault.times -= 1
                    return fault
        return Fault(0)


@contextlib.contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """A proxy on a free loopback port; without faults it changes nothing."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.proxy = FaultProxy(f"http://127.0.0.1:{server.server_port}")
    server.upstream = urlsplit(upstream).netloc
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.proxy.next_fault(self.command, self.path)
        if fault.status and not fault.after:
            self._answer(fault.status, {}, _error(fault.code))
            return
        status, headers, answer = self._forward(body)
        if fault.after:
            self.close_connection = True  # without a word: the answer is lost
            return
        self._answer(status, headers, answer, fault.keep_bytes)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _forward(self, body: bytes) -> Tuple[int, dict, bytes]:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            kept = {k: v for k, v in answer.getheaders() if k.lower() not in HOP_BY_HOP}
            return answer.status, kept, answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict, body: bytes, keep_bytes: int = -1) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "content-length" not in {name.lower() for name in headers}:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if keep_bytes < 0 else body[:keep_bytes])
        self.close_connection = self.close_connection or keep_bytes >= 0

    def log_message(self, format: str, *args: object) -> None:
        """Requests are in `FaultProxy.requests`, not on the screen."""


def _error(code: str) -> bytes:
    """An error as S3 spells it; GCS's clients see a text that is no JSON."""
    return f"<Error><Code>{code}</Code><Message>said so</Message></Error>".encode()
