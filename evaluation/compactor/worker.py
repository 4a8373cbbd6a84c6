"""One compactor: `python -m evaluation.compactor.worker`; reports each step as a line of JSON on stdout.

A file `pause` or `kill` in the shared folder, with the name of a point in it, arms that point: the first
worker to reach it takes the file away and then stops or kills itself there, by the signal that it names.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from evaluation.compactor import snapshot
from evaluation.compactor.lease import Lock
from evaluation.compactor.model import POINTER, QUEUE, Change, Point, Pointer, Variant
from evaluation.compactor.storage import Bucket, Conflict

SIGNALS = {"pause": signal.SIGSTOP, "kill": signal.SIGKILL}


class Worker:
    """Takes the lock and runs cycles, until it is terminated."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._name: str = options.name
        self._variant = Variant(options.variant)
        self._batch: int = options.batch
        self._shared: Path = options.shared
        self._own = self._shared / f"{self._name}.chroma"
        self._bucket = Bucket(options.endpoint, options.bucket_folder)
        self._lock = Lock(self._bucket, self._name, options.lease_ms)

    def run(self) -> None:
        self._report("ready")
        while True:
            if not self._bucket.names(QUEUE) or not self.cycle():
                # Polling, as such workers do: object storage tells nobody that something has arrived.
                time.sleep(0.02)

    def cycle(self) -> bool:
        """One download, change and upload under the lock; false if there was nothing to do or no lock."""
        lease = self._lock.take()
        if lease is None:
            return False
        self._report("locked", token=lease.token, expires_in_ms=lease.expires_ms - time.time() * 1000)
        begun = time.monotonic()
        down, up = self._bucket.bytes_down, self._bucket.bytes_up
        stored = self._bucket.get(POINTER)
        old = None if stored is None else Pointer.decode(stored.body)
        taken = self._changes()
        if not taken:
            self._lock.release(lease)
            self._report("idle", token=lease.token)
            return False
        before = None if old is None else self._bucket.get(old.snapshot)
        snapshot.unpack(None if before is None else before.body, self._own)
        self._reach(Point.DOWNLOADED, token=lease.token, generation=0 if old is None else old.generation)
        snapshot.apply(self._own, list(taken.values()))
        self._reach(Point.APPLIED, changes=len(taken))
        body = snapshot.pack(self._own)
        self._reach(Point.PACKED, bytes=len(body))
        new = Pointer.after(old, lease.token, self._name)
        self._bucket.put(new.snapshot, body)
        self._reach(Point.UPLOADED, snapshot=new.snapshot)
        if self._variant is Variant.CHECKED and not self._lock.is_still(lease):
            self._give_up(new, "the lock is another's")
            return False
        self._reach(Point.CHECKED)
        try:
            self._move(new, None if stored is None else stored.etag)
        except Conflict:
            self._give_up(new, "the pointer is another's")
            return False
        self._reach(Point.MOVED, token=lease.token, generation=new.generation)
        self._bucket.delete(list(taken))
        if old is not None and old.previous:
            self._bucket.delete([old.previous])
        released = self._lock.release(lease)
        self._report(
            "done",
            token=lease.token,
            released=released,
            changes=len(taken),
            seconds=time.monotonic() - begun,
            bytes_down=self._bucket.bytes_down - down,
            bytes_up=self._bucket.bytes_up - up,
        )
        return True

    def _changes(self) -> dict[str, Change]:
        found = self._bucket.get_all(self._bucket.names(QUEUE)[: self._batch])
        return {key: Change.decode(stored.body) for key, stored in found.items()}

    def _move(self, new: Pointer, etag: str | None) -> None:
        if self._variant is not Variant.FENCED:
            self._bucket.put(POINTER, new.encode())
        elif etag is None:
            self._bucket.create(POINTER, new.encode())
        else:
            self._bucket.swap(POINTER, new.encode(), etag)

    def _give_up(self, new: Pointer, why: str) -> None:
        """The changes stay in the queue, or another has applied them: nothing is lost by it."""
        self._bucket.delete([new.snapshot])
        self._report("refused", token=new.token, generation=new.generation, why=why)

    def _reach(self, point: Point, **facts: Any) -> None:
        self._report(point.value, **facts)
        for name, signum in SIGNALS.items():
            armed = self._shared / name
            try:
                hit = armed.read_text() == point.value
                if hit:
                    armed.rename(self._shared / f"{name}.struck")
            except FileNotFoundError:
                continue
            if hit:
                self._report(name, point=point.value)
                os.kill(os.getpid(), signum)
                self._report("awake", point=point.value)

    def _report(self, step: str, **facts: Any) -> None:
        line = {"at_ns": time.monotonic_ns(), "worker": self._name, "step": step, **facts}
        sys.stdout.buffer.write(orjson.dumps(line) + b"\n")
        sys.stdout.buffer.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description="One compactor process.")
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--bucket-folder", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--variant", choices=list(Variant), required=True)
    parser.add_argument("--lease-ms", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True, help="changes a cycle at most")
    parser.add_argument("--shared", type=Path, required=True)
    Worker(parser.parse_args()).run()


if __name__ == "__main__":
    main()
