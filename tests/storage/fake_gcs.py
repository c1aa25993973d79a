"""The part of the Google Cloud Storage JSON API that `GcsStore` uses, on the loopback interface.

Written from the API's reference: preconditions answer 412, pages hold 10 entries, a range past
the end answers 416, a digest that does not agree answers 400, names arrive percent-encoded.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Dict, Iterator, Tuple
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = 10


@dataclass
class FakeGcs:
    """A running server: bucket -> name -> (generation, content)."""

    url: str
    buckets: Dict[str, Dict[str, Tuple[int, bytes]]] = field(default_factory=dict)
    generation: int = 1_700_000_000_000_000
    lock: threading.Lock = field(default_factory=threading.Lock)


class Refusal(Exception):
    """A status and message to answer with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@contextlib.contextmanager
def fake_gcs() -> Iterator[FakeGcs]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.state = FakeGcs(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
        match = re.fullmatch(r"(/upload)?/storage/v1/b/([^/]+)/o(?:/([^/]+))?", url.path)
        try:
            if not match:
                raise Refusal(404, "Not Found")
            upload, bucket, name = match.groups()
            with self.server.state.lock:
                objects = self.server.state.buckets.get(unquote(bucket))
                if objects is None:
                    raise Refusal(404, "The specified bucket does not exist.")
                if upload and self.command == "POST":
                    answer = self._upload(objects, query, body)
                elif name:
                    answer = self._object(objects, unquote(name), query)
                else:
                    answer = _list(objects, query)
            self._answer(206 if "Range" in self.headers else 200, answer)
        except Refusal as refusal:
            if query.get("alt") == "media":  # downloads say it in plain text
                self._answer(refusal.status, str(refusal).encode())
            else:
                errors = [{"message": str(refusal), "domain": "global", "reason": "fake"}]
                error = {"code": refusal.status, "message": str(refusal), "errors": errors}
                self._answer(refusal.status, {"error": error})

    do_GET = do_POST = do_DELETE = _serve

    def _upload(self, objects: Dict[str, Any], query: Dict[str, str], body: bytes) -> Any:
        if query["uploadType"] != "multipart":
            raise Refusal(400, "only multipart uploads here")
        words, content = _parts(self.headers["Content-Type"], body)
        if words["md5Hash"] != base64.b64encode(hashlib.md5(content).digest()).decode():
            raise Refusal(400, "Provided MD5 hash doesn't match calculated MD5 hash.")
        found = objects.get(words["name"], (0, b""))
        _check(found[0], query)
        self.server.state.generation += 1
        objects[words["name"]] = (self.server.state.generation, content)
        return _resource(words["name"], *objects[words["name"]])

    def _object(self, objects: Dict[str, Any], name: str, query: Dict[str, str]) -> Any:
        if name not in objects:
            raise Refusal(404, f"No such object: {name}")
        generation, content = objects[name]
        _check(generation, query)
        if self.command == "DELETE":
            del objects[name]
            return b""
        if query.get("alt") != "media":
            return _resource(name, generation, content)
        first, last = re.fullmatch(
            r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-")
        ).groups()
        if "Range" in self.headers and int(first) >= len(content):
            raise Refusal(416, "Requested range not satisfiable")
        return content[int(first) : int(last) + 1 if last else None]

    def _answer(self, status: int, answer: Any) -> None:
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the screen."""


def _list(objects: Dict[str, Any], query: Dict[str, str]) -> Any:
    names = sorted(name for name in objects if name.startswith(query["prefix"]))
    names = [name for name in names if name > query.get("pageToken", "")]
    page = {"items": [_resource(name, *objects[name]) for name in names[:PAGE]]}
    return {**page, "nextPageToken": names[PAGE - 1]} if len(names) > PAGE else page


def _check(generation: int, query: Dict[str, str]) -> None:
    if query.get("ifGenerationMatch", str(generation)) != str(generation):
        raise Refusal(412, "At least one of the pre-conditions you specified did not hold.")


def _resource(name: str, generation: int, content: bytes) -> Dict[str, str]:
    return {"name": name, "generation": str(generation), "size": str(len(content))}


def _parts(content_type: str, body: bytes) -> Tuple[Dict[str, str], bytes]:
    """The two parts of a multipart/related body."""
    boundary = b"--" + re.search("boundary=(.+)", content_type).group(1).encode()
    first, second = body.split(boundary + b"\r\n", 2)[1:]
    words = first.split(b"\r\n\r\n", 1)[1][:-2]
    content = second.split(b"\r\n\r\n", 1)[1]
    end = b"\r\n" + boundary + b"--\r\n"
    if not content.endswith(end):
        raise Refusal(400, "Malformed multipart body.")
    return json.loads(words), content[: -len(end)]
