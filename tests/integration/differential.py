"""The same requests to a real `chroma run` and to this project, and what is different in the answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import re
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from evaluation.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATABASE = "/api/v2/tenants/default_tenant/databases/default_database"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
#: Rust prints these two in the order of a hash map: it differs from run to run.
LENGTH_PARAMETERS = re.compile(r"length \[\{.*\}\]")


@dataclass(frozen=True)
class Request:
    """`path` and a text `body` may name collections as `<name>`: each side has its own ids for them."""

    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        body = self.body if isinstance(self.body, (str, bytes)) else json.dumps(self.body)
        return f"{self.method} {self.path} {'' if self.body is None else body[:500]!r}"


@dataclass(frozen=True)
class Answer:
    """`status` 0: the server hung up."""

    status: int
    content_type: str | None
    body: Any
    #: Headers that `chroma run` sends besides, by name.
    headers: tuple[str | None, ...] = ()


#: What is compared of the headers, apart from the content type.
COMPARED = ("Allow", "Location", "chroma-trace-id")


class Side:
    """One server: its connection, and the ids that it gave to collections and databases."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url = url
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        self.ids: dict[str, str] = {}
        self.answer_headers: dict[str, str] = {}

    def create(self, name: str, **fields: Any) -> None:
        """A collection that paths may name as `<name>`."""
        answer = self.send(Request("POST", f"{DATABASE}/collections", {"name": name, **fields}), raw=True)
        assert answer.status == 200, answer
        self.ids[name] = answer.body["id"]

    def send(self, request: Request, *, raw: bool = False) -> Answer:
        """The answer, with this side's own ids replaced by names unless `raw`."""
        body = request.body
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        data = self._named(body).encode() if isinstance(body, str) else body
        headers = {"Content-Type": "application/json"} if data is not None else {}
        headers.update(request.headers)
        headers = {name: value for name, value in headers.items() if value}
        try:
            response, content = self._exchange(request.method, self._named(request.path), data, headers)
        except (http.client.RemoteDisconnected, ConnectionError):
            self._connection.close()
            return Answer(0, None, None)
        self.answer_headers = {name.lower(): value for name, value in response.getheaders()}
        content_type = response.getheader("Content-Type")
        others = tuple(response.getheader(name) for name in COMPARED)
        text = content.decode(errors="replace")
        if content_type == "application/json" and content:
            text = text if raw else self._anonymous(text)
            return Answer(response.status, content_type, json.loads(text), others)
        return Answer(response.status, content_type, text, others)

    def close(self) -> None:
        self._connection.close()

    def _exchange(
        self, method: str, path: str, data: bytes | None, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        for fresh in (False, True):
            try:
                self._connection.request(method, path, data, headers)
                response = self._connection.getresponse()
                return response, response.read()
            except (http.client.RemoteDisconnected, ConnectionError):
                # A server may close a connection whose last request it did not read to the end.
                self._connection.close()
                if fresh:
                    raise
        raise AssertionError("unreachable")

    def _named(self, text: str) -> str:
        for name, own in self.ids.items():
            text = text.replace(f"<{name}>", own)
        return text

    def _anonymous(self, text: str) -> str:
        for name, own in self.ids.items():
            text = text.replace(own, f"<{name}>")
        return text


class Pair:
    """Chroma and this project, side by side."""

    def __init__(self, chroma_url: str, ours_url: str) -> None:
        self.chroma = Side(chroma_url)
        self.ours = Side(ours_url)
        self.compared = 0

    def create(self, name: str, **fields: Any) -> None:
        """The same collection on both sides."""
        self.chroma.create(name, **fields)
        self.ours.create(name, **fields)

    def both(self, request: Request) -> tuple[Answer, Answer]:
        self.compared += 1
        return self.chroma.send(request), self.ours.send(request)

    def difference(self, request: Request) -> str | None:
        """What the answers differ in, or None."""
        expected, got = self.both(request)
        found = differing(expected, got)
        return None if found is None else f"{request}\n  chroma: {expected}\n  ours:   {got}\n  {found}"

    def close(self) -> None:
        self.chroma.close()
        self.ours.close()


def differing(expected: Answer, got: Answer) -> str | None:
    """The first difference between two answers, or None."""
    if expected.status != got.status:
        return f"status {expected.status} against {got.status}"
    if expected.content_type != got.content_type:
        return f"content type {expected.content_type} against {got.content_type}"
    if expected.headers != got.headers:
        return f"{COMPARED} {expected.headers} against {got.headers}"
    return _unequal(expected.body, got.body, "body")


def _unequal(expected: Any, got: Any, path: str) -> str | None:
    if isinstance(expected, dict) and isinstance(got, dict):
        if expected.keys() != got.keys():
            return f"{path}: keys {sorted(expected)} against {sorted(got)}"
        return _first(_unequal(expected[key], got[key], f"{path}.{key}") for key in expected)
    if isinstance(expected, list) and isinstance(got, list):
        if len(expected) != len(got):
            return f"{path}: {len(expected)} items against {len(got)}"
        pairs = enumerate(zip(expected, got, strict=True))
        return _first(_unequal(one, two, f"{path}[{at}]") for at, (one, two) in pairs)
    if path.endswith(".id") and all(isinstance(one, str) and UUID.fullmatch(one) for one in (expected, got)):
        return None  # ids of collections and databases are each server's own
    if isinstance(expected, float) and isinstance(got, float):
        as_float32 = "metadata" not in path
        return None if _same_float(expected, got, as_float32) else f"{path}: {expected!r} against {got!r}"
    if isinstance(expected, str) and isinstance(got, str):
        expected, got = (_ordered(one) for one in (expected, got))
    if type(expected) is not type(got) or expected != got:
        return f"{path}: {expected!r} against {got!r}"
    return None


def _ordered(text: str) -> str:
    """A message without the order in which a hash map gave its parts."""
    prefix = "Validation error: "
    if text.startswith(prefix):
        text = prefix + "\n".join(sorted(text.removeprefix(prefix).split("\n")))
    return LENGTH_PARAMETERS.sub("length [...]", text)


def _first(found: Iterator[str | None]) -> str | None:
    return next((one for one in found if one is not None), None)


def _same_float(expected: float, got: float, as_float32: bool) -> bool:
    if as_float32:
        return struct.pack("<f", expected) == struct.pack("<f", got)
    # Chroma's JSON reader may miss the nearest double by one unit in the last place.
    return math.isclose(expected, got, rel_tol=4e-16)


@contextlib.contextmanager
def chroma_run(directory: Path) -> Iterator[str]:
    """A real `chroma run` that allows reset; its URL."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    configuration = directory / "chroma.yaml"
    configuration.write_text(f'persist_path: "{directory / "data"}"\nport: {port}\nallow_reset: true\n')
    command = "import sys, chromadb_rust_bindings as rust; rust.cli(['chroma', 'run', sys.argv[1]])"
    with (directory / "output.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", command, str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 60
        while not _beats(port):
            assert process.poll() is None, (directory / "output.log").read_text()
            assert time.monotonic() < end, "chroma run does not start"
            time.sleep(0.05)
        yield url
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _beats(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/api/v2/heartbeat")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
