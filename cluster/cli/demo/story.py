"""The demo from beginning to end: what happens, in which order, and what it proves.

Exit code 0: nothing acknowledged was lost and all nodes are equal. 1: something was lost or differs,
or the demo could not go on. 130: interrupted. Processes are stopped in every case, unless `keep`.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cluster.cli.demo import chapters
from cluster.cli.demo.findings import Findings
from cluster.cli.demo.ledger import Ledger
from cluster.cli.demo.local import DemoError, LocalCluster
from cluster.cli.demo.show import Show
from cluster.cli.ports import choose_ports, shuffled_ports, take_port
from cluster.client import TextClient, TextCollection, text_client

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

DEFAULT_TEXTS: Final = 5000
COLLECTION: Final = "python-documentation"
#: The first share is indexed in peace, the rest while the leader is killed.
PEACEFUL_SHARE: Final = 0.7


def run(
    *,
    data: Path | None = None,
    keep: bool = False,
    texts: int = DEFAULT_TEXTS,
    port: int | None = None,
    show: Show | None = None,
) -> int:
    """Play the demo; the exit code.

    Without `data` the cluster lives in a temporary directory that is removed in the end; a cluster
    that ran in `data` before is used and left running. `keep` leaves everything running.
    """
    show = show or Show()
    directory = (
        data.expanduser().absolute() if data else Path(tempfile.mkdtemp(prefix="chroma-cluster-demo-"))
    )
    cluster = LocalCluster(directory)
    was_running = False
    findings = Findings()
    try:
        with _terminated_as_interrupted():
            was_running = cluster.running()
            if port is None and not cluster.exists():
                port = choose_ports(1, shuffled_ports(random.Random()), take_port)[0]
            _play(show, cluster, findings, texts, port)
            show.summary(findings)
    except DemoError as error:
        show.failed(str(error))
        return 1
    except subprocess.TimeoutExpired as error:
        show.failed(f"`{' '.join(error.cmd[-4:])}` did not end within {error.timeout:.0f} s.")
        return 1
    except KeyboardInterrupt:
        show.failed("Interrupted.")
        return 130
    finally:
        _clean_up(show, cluster, temporary=data is None, keep=keep, was_running=was_running)
    return 0 if findings.good else 1


def _play(show: Show, cluster: LocalCluster, findings: Findings, count: int, port: int | None) -> None:
    show.title()
    url = chapters.start(show, cluster, port)
    texts = chapters.read_texts(show, count)
    client = _client(url)
    try:
        collection = _new_collection(client)
        ledger = Ledger(time.monotonic)
        peaceful = max(1, int(len(texts) * PEACEFUL_SHARE))
        chapters.index(show, collection, texts[:peaceful], ledger)
        chapters.survive(show, cluster, collection, texts[peaceful:], ledger, findings)
        chapters.look_for_losses(show, collection, ledger, findings)
        chapters.ask(show, collection, findings)
        chapters.bring_back(show, cluster, findings)
        chapters.compare(show, cluster, collection, ledger, findings)
    finally:
        client.close()


def _client(url: str) -> TextClient:
    host, _, port = url.removeprefix("http://").rstrip("/").rpartition(":")
    try:
        return text_client(host, int(port))
    except Exception as error:
        raise DemoError(f"The stock chromadb client cannot reach {url}: {error}") from error


def _new_collection(client: TextClient) -> TextCollection:
    if COLLECTION in [collection.name for collection in client.list_collections()]:
        client.delete_collection(COLLECTION)  # of an earlier demo in the same data directory
    return client.create_collection(COLLECTION)


def _clean_up(show: Show, cluster: LocalCluster, *, temporary: bool, keep: bool, was_running: bool) -> None:
    if keep or was_running:
        if cluster.exists():
            show.kept(str(cluster.data))
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave processes
    try:
        with show.waiting("stopping all processes"):
            if cluster.exists():
                cluster.stop_for_sure()
            if temporary:
                shutil.rmtree(cluster.data, ignore_errors=True)
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _terminated_as_interrupted() -> Generator[None]:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does, with the same cleaning up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
