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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cluster.cli.demo import corpus
from cluster.cli.demo.compare import digest, records_of
from cluster.cli.demo.findings import Findings
from cluster.cli.demo.ledger import Ledger, Record, differences
from cluster.cli.demo.local import DemoError, LocalCluster, Node, kill, role_of, wait_for
from cluster.cli.demo.show import Show
from cluster.cli.demo.writing import write_all
from cluster.cli.ports import choose_ports, port_is_free, shuffled_ports
from cluster.client import TextClient, TextCollection, text_client

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from types import FrameType

    from cluster.cli.demo.corpus import Text

DEFAULT_TEXTS: Final = 5000
COLLECTION: Final = "python-documentation"
#: The first share is indexed in peace, the rest while the leader is killed.
PEACEFUL_SHARE: Final = 0.7
KILL_AFTER_SHARE: Final = 0.3
PEACEFUL_BATCH, PEACEFUL_WRITERS = 50, 2
#: Small writes and several writers, so that a pause is seen to a few milliseconds.
BUSY_BATCH, BUSY_WRITERS = 4, 4
CATCH_UP_S: Final = 120.0
READ_BACK_PAGE: Final = 200

QUESTIONS: Final = (
    "What is the difference between break and continue in a loop?",
    "How do I compress a file with gzip?",
    "compute the mean and the median of some numbers",
    "open a web page in the browser",
    "turn a Python object into JSON text",
    "How do I send an email over SMTP?",
)


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
            was_running = _is_running(cluster)
            if port is None and not cluster.exists():
                port = choose_ports(1, shuffled_ports(random.Random()), port_is_free)[0]
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
    show.step("Start three nodes and a balancer")
    started = time.monotonic()
    with show.waiting("starting"):
        cluster.up(port)
        status = cluster.status()
    url = str(status["balancer"]["url"])
    show.done(f"up in {time.monotonic() - started:.1f} s, one address for any Chroma client: {url}")
    show.nodes(status)

    show.step("Read what Python's standard library says about itself")
    with show.waiting("parsing docstrings and the language reference"):
        found = list(corpus.unique([*corpus.topics(), *corpus.library()]))
        texts = corpus.sample(found, count)
    show.corpus(texts, len(found))

    client = _client(url)
    try:
        _index_and_survive(show, cluster, client, findings, texts)
    finally:
        client.close()


def _index_and_survive(
    show: Show, cluster: LocalCluster, client: TextClient, findings: Findings, texts: Sequence[Text]
) -> None:
    ledger = Ledger(time.monotonic)
    if COLLECTION in [collection.name for collection in client.list_collections()]:
        client.delete_collection(COLLECTION)  # of an earlier demo in the same data directory
    collection = client.create_collection(COLLECTION)
    peaceful = max(1, int(len(texts) * PEACEFUL_SHARE))

    show.step("Index them: the leader embeds each text once, all nodes store its vector")
    with show.progress(peaceful) as bar:
        took_s = _timed(
            lambda: write_all(
                collection,
                texts[:peaceful],
                ledger,
                batch_size=PEACEFUL_BATCH,
                writers=PEACEFUL_WRITERS,
                progress=bar,
            )
        )
    show.done(f"{peaceful:,} texts in {took_s:.1f} s ({peaceful / took_s:,.0f} a second)")

    show.step("Kill the leader with -9 while four writers are busy")
    killed = _write_through_a_kill(show, cluster, collection, texts[peaceful:], ledger)
    findings.killed = killed.node.id
    findings.acknowledged = len(ledger.words)
    pause = ledger.longest_pause(killed.at)
    findings.pause_s = pause.seconds if pause else None
    show.survived(killed.node.id, _leader_id(cluster), ledger, pause)

    show.step("Is everything there that was acknowledged?")
    with show.waiting("reading back every acknowledged id"):
        findings.lost = ledger.lost(_read_back(collection, list(ledger.words)))
    show.read_back(findings)

    show.step(f"Ask in plain language, while {killed.node.id} is still dead")
    show.answers(_ask(collection))

    show.step(f"Bring {killed.node.id} back")
    with show.waiting(f"starting {killed.node.id}, which missed a part of the log"):
        started = time.monotonic()
        cluster.up()
        up_s = time.monotonic() - started
        wait_for(lambda: _all_caught_up(cluster), CATCH_UP_S, f"{killed.node.id} to catch up")
        findings.caught_up_s = time.monotonic() - started
    show.done(f"running again in {up_s:.1f} s, and after {findings.caught_up_s:.1f} s it had all it missed")
    show.nodes(cluster.status())

    show.step("Compare all nodes record by record: ids, texts, metadata, vectors bit for bit")
    held: dict[str, dict[str, Record]] = {}
    with show.waiting("reading all records from each node's own HTTP port, past the balancer"):
        for node in cluster.nodes():
            held[node.id] = dict(records_of(node.url, str(collection.id)))
    findings.digests = {name: digest(records) for name, records in held.items()}
    findings.differing = differences(held)
    for name, records in held.items():
        stored = {key: record.document for key, record in records.items()}
        findings.lost.extend(f"{key} (on {name})" for key in ledger.lost(stored))
    show.comparison(findings)


@dataclass(frozen=True, slots=True)
class _Killed:
    node: Node
    at: float


def _write_through_a_kill(
    show: Show, cluster: LocalCluster, collection: TextCollection, texts: Sequence[Text], ledger: Ledger
) -> _Killed:
    """Write `texts`, and kill whoever leads once a part of them is acknowledged."""
    nodes = cluster.nodes()
    kill_after = max(1, int(len(texts) * KILL_AFTER_SHARE))
    killed: list[_Killed] = []
    written = 0
    with show.progress(len(texts)) as bar:

        def progress(count: int) -> None:
            nonlocal written
            written += count
            bar(count)
            if written >= kill_after and not killed:
                # The pids are known; who of them leads is asked at the last moment.
                leader = next((node for node in nodes if role_of(node.url) == "leader"), None)
                if leader is None or leader.pid is None:
                    return
                killed.append(_Killed(leader, time.monotonic()))
                kill(leader.pid)
                bar.say(f"kill -9 {leader.pid}: {leader.id}, the leader, is gone")

        write_all(collection, texts, ledger, batch_size=BUSY_BATCH, writers=BUSY_WRITERS, progress=progress)
    if not killed:
        raise DemoError("No node said that it leads, so none was killed. Use more --texts.")
    return killed[0]


def _ask(collection: TextCollection) -> list[tuple[str, list[tuple[str, str, float]]]]:
    """Each question with its best answers: id, first words, cosine similarity."""
    answer = collection.query(query_texts=list(QUESTIONS), n_results=3, include=["documents", "distances"])
    found: list[tuple[str, list[tuple[str, str, float]]]] = []
    documents: Any = answer["documents"]
    distances: Any = answer["distances"]
    for at, question in enumerate(QUESTIONS):
        hits = zip(answer["ids"][at], documents[at], distances[at], strict=True)
        # Unit vectors in l2 space, Chroma's default: the squared distance is 2 - 2 cos.
        found.append((question, [(key, words, 1 - distance / 2) for key, words, distance in hits]))
    return found


def _read_back(collection: TextCollection, ids: list[str]) -> dict[str, str | None]:
    """What the cluster returns for the ids, through the balancer."""
    stored: dict[str, str | None] = {}
    for start in range(0, len(ids), READ_BACK_PAGE):
        answer = collection.get(ids=ids[start : start + READ_BACK_PAGE], include=["documents"])
        documents: Any = answer["documents"] or []
        stored.update(zip(answer["ids"], documents, strict=True))
    return stored


def _all_caught_up(cluster: LocalCluster) -> bool:
    nodes = cluster.nodes()
    target = max(node.commit_index for node in nodes)
    return all(node.healthy and node.applied_index >= target for node in nodes)


def _leader_id(cluster: LocalCluster) -> str | None:
    leader = cluster.leader()
    return leader.id if leader else None


def _client(url: str) -> TextClient:
    host, _, port = url.removeprefix("http://").rstrip("/").rpartition(":")
    try:
        return text_client(host, int(port))
    except Exception as error:
        raise DemoError(f"The stock chromadb client cannot reach {url}: {error}") from error


def _timed(work: Any) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _is_running(cluster: LocalCluster) -> bool:
    return cluster.exists() and any(node.pid is not None for node in cluster.nodes())


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
