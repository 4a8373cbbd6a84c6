"""Writers that keep adding documents while a test breaks things, and remember what was acknowledged."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field

import requests


@dataclass
class Writers:
    """`count` threads, each upserting documents of its own, one at a time, until `stop`.

    `acknowledged` maps an id to the value whose write was answered 2xx; `unknown` holds ids whose
    write got no answer or a 5xx (they may or may not be there). A 4xx fails the test at `stop`.
    """

    url: str
    collection_id: str
    count: int = 8
    dimension: int = 8
    acknowledged: dict[str, int] = field(default_factory=dict[str, int])
    unknown: set[str] = field(default_factory=set[str])
    refused: list[str] = field(default_factory=list[str])
    ack_times: list[float] = field(default_factory=list[float])
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list[threading.Thread])

    def start(self) -> Writers:
        for number in range(self.count):
            thread = threading.Thread(target=self._write, args=(number,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def stop(self) -> Writers:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive(), "a writer hangs"
        assert not self.refused, self.refused[:3]
        return self

    def wait_acknowledged(self, at_least: int, deadline_s: float = 60) -> None:
        end = time.monotonic() + deadline_s
        while len(self.acknowledged) < at_least:
            assert time.monotonic() < end, f"{len(self.acknowledged)} of {at_least} writes in {deadline_s} s"
            time.sleep(0.01)

    def longest_pause_s(self, start: float, end: float) -> float:
        """The longest time without an acknowledgement that touches [start, end] (monotonic)."""
        times = sorted(self.ack_times)
        gaps = [b - a for a, b in itertools.pairwise(times) if b >= start and a <= end]
        return max(gaps, default=0.0)

    def _write(self, number: int) -> None:
        base = f"{self.url}/api/v2/tenants/default_tenant/databases/default_database/collections"
        session = requests.Session()
        turn = 0
        while not self._stop.is_set():
            record, turn = f"w{number}-{turn}", turn + 1
            body = {
                "ids": [record],
                "embeddings": [[float(turn % 97)] * self.dimension],
                "documents": [f"document {turn} of writer {number}"],
                "metadatas": [{"turn": turn}],
            }
            try:
                answer = session.post(f"{base}/{self.collection_id}/upsert", json=body, timeout=30)
            except requests.RequestException:
                self.unknown.add(record)
                continue
            if answer.status_code == 200:
                self.acknowledged[record] = turn
                self.ack_times.append(time.monotonic())
            elif answer.status_code in (429, 503, 504):
                self.unknown.add(record)
            else:
                self.refused.append(f"{answer.status_code} {answer.text}")
                return
