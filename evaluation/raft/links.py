"""The links between raft nodes, each through a real Toxiproxy, that can swallow what is sent."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Self

from evaluation.processes import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from evaluation.raft.cluster import RaftCluster


class Links:
    """A context: one Toxiproxy with a proxy for each pair of `cluster`, made before its nodes start."""

    def __init__(self, server: Path, cluster: RaftCluster, log: Path) -> None:
        self._server = server
        self._cluster = cluster
        self._log = log
        self._url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                [self._server, "-host", "127.0.0.1", "-port", str(port)], stdout=out, stderr=out
            )
        try:
            self._wait()
            for low, high in itertools.combinations(sorted(self._cluster.ids), 2):
                # Of a pair, the node with the greater id dials.
                listen = free_port()
                self._ask(
                    "POST",
                    "/proxies",
                    {
                        "name": f"{high}-{low}",
                        "listen": f"127.0.0.1:{listen}",
                        "upstream": f"127.0.0.1:{self._cluster.ports[low]}",
                        "enabled": True,
                    },
                )
                self._cluster.dialled[high, low] = listen
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def cut(self, node_id: str) -> None:
        """From now on nothing that is sent to or by `node_id` arrives, and nothing fails."""
        for proxy in self._of(node_id):
            for stream in ("upstream", "downstream"):
                self._ask(
                    "POST",
                    f"/proxies/{proxy}/toxics",
                    {
                        "name": stream,
                        "type": "timeout",
                        "stream": stream,
                        "toxicity": 1.0,
                        "attributes": {"timeout": 0},
                    },
                )

    def heal(self, node_id: str) -> None:
        """Toxiproxy closes the connections that it had cut, since bytes of them are lost."""
        for proxy in self._of(node_id):
            for stream in ("upstream", "downstream"):
                self._ask("DELETE", f"/proxies/{proxy}/toxics/{stream}")

    def _of(self, node_id: str) -> list[str]:
        pairs = itertools.combinations(sorted(self._cluster.ids), 2)
        return [f"{high}-{low}" for low, high in pairs if node_id in (low, high)]

    def _wait(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                self._ask("GET", "/version")
                return
            except (urllib.error.URLError, ConnectionError) as error:
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        f"Toxiproxy did not start within 10 s: {self._log.read_text()}"
                    ) from error
                time.sleep(0.02)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"User-Agent": "raft-bench"}, method=method)
        # Loopback: no proxy of the environment has a say.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as response:
            response.read()
