"""The chapters of the demo, each of which does one thing, shows it, and notes what it found."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from cluster.cli.demo import corpus
from cluster.cli.demo.compare import digest, records_of
from cluster.cli.demo.killing import write_through_a_kill
from cluster.cli.demo.ledger import Record, differences
from cluster.cli.demo.local import wait_for
from cluster.cli.demo.questions import best_answers, read_back
from cluster.cli.demo.writing import write_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.cli.demo.corpus import Text
    from cluster.cli.demo.findings import Findings
    from cluster.cli.demo.ledger import Ledger
    from cluster.cli.demo.local import LocalCluster
    from cluster.cli.demo.show import Show
    from cluster.client import TextCollection

PEACEFUL_BATCH, PEACEFUL_WRITERS = 50, 2
CATCH_UP_S: Final = 120.0


def start(show: Show, cluster: LocalCluster, port: int | None) -> str:
    """Start the cluster; its URL."""
    show.step("Start three nodes and a balancer")
    started = time.monotonic()
    with show.waiting("starting"):
        cluster.up(port)
        status = cluster.status()
    url = str(status["balancer"]["url"])
    show.done(f"up in {time.monotonic() - started:.1f} s, one address for any Chroma client: {url}")
    show.nodes(status)
    return url


def read_texts(show: Show, count: int) -> list[Text]:
    """At most `count` texts of this machine."""
    show.step("Read what Python's standard library says about itself")
    with show.waiting("parsing docstrings and the language reference"):
        found = list(corpus.unique([*corpus.topics(), *corpus.library()]))
        texts = corpus.sample(found, count)
    show.corpus(texts, len(found))
    return texts


def index(show: Show, collection: TextCollection, texts: Sequence[Text], ledger: Ledger) -> None:
    """Write texts in peace."""
    show.step("Index them: the leader embeds each text once, all nodes store its vector")
    started = time.monotonic()
    with show.progress(len(texts)) as bar:
        write_all(
            collection,
            texts,
            ledger,
            batch_size=PEACEFUL_BATCH,
            writers=PEACEFUL_WRITERS,
            progress=bar,
        )
        took_s = time.monotonic() - started
    show.done(f"{len(texts):,} texts in {took_s:.1f} s ({len(texts) / took_s:,.0f} a second)")


def survive(
    show: Show,
    cluster: LocalCluster,
    collection: TextCollection,
    texts: Sequence[Text],
    ledger: Ledger,
    findings: Findings,
) -> None:
    """Write texts while the leader is killed."""
    show.step("Kill the leader with -9 while four writers are busy")
    killed = write_through_a_kill(show, cluster, collection, texts, ledger)
    findings.killed = killed.node.id
    findings.acknowledged = len(ledger.words)
    pause = ledger.longest_pause(killed.at)
    findings.pause_s = pause.seconds if pause else None
    leader = cluster.leader()
    show.survived(killed.node.id, leader.id if leader else None, ledger, pause)


def look_for_losses(show: Show, collection: TextCollection, ledger: Ledger, findings: Findings) -> None:
    """Read back all that was acknowledged."""
    show.step("Is everything there that was acknowledged?")
    with show.waiting("reading back every acknowledged id"):
        findings.lost = ledger.lost(read_back(collection, list(ledger.words)))
    show.read_back(findings)


def ask(show: Show, collection: TextCollection, findings: Findings) -> None:
    """Ask the questions of a cluster that lacks a node."""
    show.step(f"Ask in plain language, while {findings.killed} is still dead")
    show.answers(best_answers(collection))


def bring_back(show: Show, cluster: LocalCluster, findings: Findings) -> None:
    """Start the killed node again, and wait until it has what it missed."""
    show.step(f"Bring {findings.killed} back")
    with show.waiting(f"starting {findings.killed}, which missed a part of the log"):
        started = time.monotonic()
        cluster.up()
        up_s = time.monotonic() - started
        wait_for(cluster.caught_up, CATCH_UP_S, f"{findings.killed} to catch up")
        findings.caught_up_s = time.monotonic() - started
    show.done(f"running again in {up_s:.1f} s, and after {findings.caught_up_s:.1f} s it had all it missed")
    show.nodes(cluster.status())


def compare(
    show: Show, cluster: LocalCluster, collection: TextCollection, ledger: Ledger, findings: Findings
) -> None:
    """Hold the nodes against each other and against what was acknowledged."""
    show.step("Compare all nodes record by record: ids, texts, metadata, vectors bit for bit")
    held: dict[str, dict[str, Record]] = {}
    with show.waiting("reading all records from each node's own HTTP port, past the balancer"):
        for node in cluster.nodes():
            held[node.id] = dict(records_of(cluster, node.url, str(collection.id)))
    findings.digests = {name: digest(records) for name, records in held.items()}
    findings.differing = differences(held)
    for name, records in held.items():
        stored = {key: record.document for key, record in records.items()}
        findings.lost.extend(f"{key} (on {name})" for key in ledger.lost(stored))
    show.comparison(findings)
