"""Object storage over HTTP: the server (moto), and one bucket of it with conditional writes.

`create` is If-None-Match: *, `swap` is If-Match: <etag>; both are refused by the server, not by the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import S3Store

from evaluation.processes import Child, free_port, wait_until

BUCKET = "compactor"
_AT_A_TIME = 8
PYTHON = Path(__file__).parents[2] / ".cache" / "s3" / "bin" / "python"
SERVER = Path(__file__).with_name("s3_server.py")


class Conflict(Exception):
    """A conditional write was refused: the object is not what the caller believed. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it was read: content and the ETag that a swap must name."""

    body: bytes
    etag: str


class Bucket:
    """One folder of the bucket; counts the bytes of all bodies that it moved."""

    def __init__(self, endpoint: str, folder: str) -> None:
        self._store = S3Store(
            BUCKET,
            prefix=folder,
            endpoint=endpoint,
            access_key_id="local",
            secret_access_key="local",
            region="us-east-1",
            virtual_hosted_style_request=False,
            client_options={"allow_http": True, "timeout": "60s"},
            # A repeated conditional write would meet its own first effect and report a conflict.
            retry_config={"max_retries": 0},
        )
        self._counting = threading.Lock()
        self.bytes_down = 0
        self.bytes_up = 0

    def get(self, key: str) -> Stored | None:
        try:
            answer = obstore.get(self._store, key)
        except FileNotFoundError:
            return None
        body = bytes(answer.bytes())
        with self._counting:
            self.bytes_down += len(body)
        return Stored(body, str(answer.meta["e_tag"]))

    def put(self, key: str, body: bytes) -> str:
        """Unconditional; the new ETag."""
        self.bytes_up += len(body)
        return str(obstore.put(self._store, key, body)["e_tag"])

    def create(self, key: str, body: bytes) -> str:
        """Raises Conflict if there is one already."""
        self.bytes_up += len(body)
        try:
            return str(obstore.put(self._store, key, body, mode="create")["e_tag"])
        except AlreadyExistsError as error:
            raise Conflict(f"{key} exists already") from error

    def swap(self, key: str, body: bytes, etag: str) -> str:
        """Raises Conflict if its ETag is another by now."""
        self.bytes_up += len(body)
        try:
            return str(obstore.put(self._store, key, body, mode={"e_tag": etag})["e_tag"])
        except (PreconditionError, FileNotFoundError) as error:
            raise Conflict(f"{key} is no longer {etag}") from error

    def names(self, prefix: str) -> list[str]:
        """All keys below the folder `prefix`, sorted."""
        found: list[str] = []
        # One overload of `list` names a type of a package that is not needed here.
        for page in self._store.list(prefix):  # pyright: ignore[reportUnknownMemberType]
            found.extend(str(meta["path"]) for meta in page)
        return sorted(found)

    def get_all(self, keys: list[str]) -> dict[str, Stored]:
        """Those that are there, a few requests at a time."""
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            found = zip(keys, pool.map(self.get, keys), strict=True)
            return {key: stored for key, stored in found if stored is not None}

    def delete(self, keys: list[str]) -> None:
        """All of them in one request (S3's DeleteObjects); those that are gone already are no error."""
        obstore.delete(self._store, keys)


class StorageServer:
    """The S3 server as a child process; its content lives and dies with it."""

    def __init__(self, folder: Path) -> None:
        """Raises FileNotFoundError if its environment was not made."""
        if not PYTHON.exists():
            raise FileNotFoundError(f"{PYTHON} is not there; no server was started. Call: make s3")
        self._port = free_port()
        self._log = folder / "s3.log"
        self._child: Child | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self, deadline_s: float = 60.0) -> None:
        child = self._child = Child([str(PYTHON), str(SERVER), str(self._port)], self._log)

        async def made() -> bool:
            if child.returncode is not None:
                raise RuntimeError(f"the S3 server ended with {child.returncode}: {child.log_tail()}")
            return await asyncio.to_thread(self._make_bucket)

        await wait_until("the S3 server", made, deadline_s, context=child.log_tail)

    def _make_bucket(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("PUT", f"/{BUCKET}")
            return connection.getresponse().status == 200
        return False

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()
