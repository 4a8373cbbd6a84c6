"""Composes one node from its parts, serves until it is told to stop, and hands over politely."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from aiohttp import web

from cluster.api.app import DRAIN, SERVER_OPTIONS, create_app
from cluster.api.cluster_routes import StatusFeed, cluster_routes
from cluster.apply.agreement import encode_agreement
from cluster.apply.applier import Applier
from cluster.apply.store import Store
from cluster.chroma.isolated import IsolatedEngine
from cluster.chroma.isolated_scratch import IsolatedScratch
from cluster.chroma.local_ids import LOCAL_PREFIX
from cluster.chroma.oracle import Oracle
from cluster.chroma.watchdog import Limits
from cluster.descriptors import backlog, clients, open_files
from cluster.disk import DiskFull, explained, machine_fault, space_at
from cluster.embedding.embedder import Embedder
from cluster.errors import ClusterError, Fault
from cluster.failpoint import arm
from cluster.levels import claimed
from cluster.lock import DirectoryLock
from cluster.peers import Peers
from cluster.propose.grouping import GroupLimits
from cluster.propose.log_clock import LogClock
from cluster.propose.proposer import Proposer
from cluster.raft.journal import Journal
from cluster.raft.meta import damaged_advice
from cluster.raft.raft import RaftNode
from cluster.raft.settings import RaftSettings
from cluster.raft.tls import Tls
from cluster.service.membership import OtherMembers
from cluster.service.node import NodeService
from cluster.service.parts import Parts
from cluster.service.verification import Verifying
from cluster.service.versions import own_versions
from cluster.snapshot.donating import Donor
from cluster.snapshot.filling import Filling, Here
from cluster.snapshot.installing import ahead, finish
from cluster.snapshot.taking import Source, Taker
from cluster.state.commands import NEWEST_LEVEL, encode_raise
from cluster.state.machine import Machine
from cluster.verify.alarms import FILE as ALARMS
from cluster.verify.alarms import Alarms
from cluster.verify.scanner import Scanner
from cluster.verify.sealing import Seal, forget
from wire.addresses import split_address
from wire.connections import bounded
from wire.door import Door
from wire.malformed import shorten_complaints
from wire.prover import Prover

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cluster.config import NodeSettings
    from cluster.levels import Levels
    from cluster.snapshot.installing import Installed
    from cluster.snapshot.manifest import Manifest

log = logging.getLogger(__name__)

#: How often a node whose disk was full looks for room.
_ROOM_S: Final = 2.0
_HANGUP: Final = "SIGHUP: settings are read at the start only, nothing to reload; the node goes on"
_RELOADED: Final = (
    "SIGHUP: the certificates of the raft links were read again, for links made from now on; all other "
    "settings are read at the start only"
)

#: Requests under way may finish within this time when the node stops.
_DRAIN_S: Final = 5.0
#: And then connections close.
_CLOSE_S: Final = 0.5


def run_node(settings: NodeSettings) -> int:
    """Serve one node until SIGTERM or SIGINT; 0 after a clean stop, 1 with the reason on stderr."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    shorten_complaints()
    try:
        arm(os.environ)
        goes_on = True
        while goes_on:
            with ExitStack() as stack:
                goes_on = asyncio.run(_run(settings, stack))
        return 0
    except (ClusterError, ValueError, OSError) as error:
        print(f"chroma-cluster node {settings.node_id} cannot run: {error}", file=sys.stderr)
        return 1


async def _run(settings: NodeSettings, stack: ExitStack) -> bool:
    """Whether the node is to be made anew: all its parts, from what is on the disk."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    loop.add_signal_handler(signal.SIGHUP, log.info, _HANGUP)
    node = _compose(settings, stack, loop)
    loop.add_signal_handler(signal.SIGHUP, hang_up, node.tls)
    return await _serve(node, stop)


def hang_up(tls: Tls | None) -> None:
    """What SIGHUP does: reads again what can be read again, and says what that was."""
    if tls is None:
        log.info(_HANGUP)
        return
    try:
        tls.reload()
    except Fault as fault:
        log.error("SIGHUP: the node goes on with the certificates that it has: %s", fault.message)
    else:
        log.info(_RELOADED)


@dataclass(frozen=True, slots=True)
class _Node:
    """The parts of a node that are started and stopped."""

    settings: NodeSettings
    tls: Tls | None
    raft: RaftNode
    applier: Applier
    peers: Peers
    service: NodeService
    feed: StatusFeed
    faults: _FaultLine
    filling: Filling


class _FaultLine:
    """Where a part that fails says so; parts are made before the service that is to be told."""

    def __init__(self, feed: StatusFeed, data_dir: Path) -> None:
        self._feed = feed
        self._data_dir = data_dir
        self._waits_for_room = False
        self.service: NodeService | None = None

    async def room_again(self) -> None:
        """Return when the disk was full, that was the fault, and there is room again."""
        while True:
            await asyncio.sleep(_ROOM_S)
            space = space_at(self._data_dir) if self._waits_for_room else None
            if space is not None and space.is_enough:
                return

    def report(self, fault: Fault) -> None:
        """May be called from any thread."""
        fault = explained(fault, space_at(self._data_dir))
        first = self.service is not None and not self.service.failed
        self._waits_for_room = isinstance(fault, DiskFull) if first else self._waits_for_room
        if self.service is not None:
            self.service.fail(fault)
        self._feed.changed()


def _compose(settings: NodeSettings, stack: ExitStack, loop: asyncio.AbstractEventLoop) -> _Node:
    """Parts are entered in the order in which they need each other, and left in reverse."""
    stack.enter_context(DirectoryLock(settings.data_dir))
    installed = finish(settings.data_dir, lambda manifest: _reset_log(settings, manifest))
    alarms, seal = _trust(settings.data_dir, installed)
    secret = settings.secret_bytes
    tls = None if settings.raft_tls_files is None else Tls.load(*settings.raft_tls_files)
    store = Store(settings.data_dir / "state.sqlite")
    stack.callback(store.close)
    journal = settings.data_dir / "raft.sqlite"
    _require_journal(store, journal)
    machine = Machine.load(store.items(but=LOCAL_PREFIX))
    feed = StatusFeed(loop)
    faults = _FaultLine(feed, settings.data_dir)
    stack.callback(seal.apply)
    engine = IsolatedEngine(
        settings.data_dir / "chroma",
        store.items(LOCAL_PREFIX),
        on_change=feed.changed,
        readers=settings.read_threads,
        limits=Limits(settings.engine_hang_ms / 1000, read_limit_s=settings.engine_read_limit_ms / 1000),
    )
    stack.callback(engine.close)
    scratch = IsolatedScratch()
    stack.callback(scratch.close)
    levels = partial(_levels, settings, machine)
    raft = _raft(settings, journal, secret, tls, feed, faults, levels)
    scanner = Scanner(engine, settings.verify_records_per_s)
    stack.callback(scanner.close)
    applier = Applier(
        raft,
        machine,
        engine,
        store,
        faults.report,
        engine.hide,
        machine_fault=lambda failure: machine_fault(failure, settings.data_dir / "chroma"),
        witness=scanner,
        ahead=ahead(settings.data_dir),
    )
    applier.add_listener(lambda _: feed.changed())
    prover = Prover(secret)
    peers = Peers(timeout_ms=settings.read_timeout_ms, prover=prover)
    limits = GroupLimits(queue_bytes=settings.queue_bytes)
    clock = LogClock(lambda: machine.time_ms, time.monotonic_ns)
    filling = _filling(settings, raft, peers, feed)
    parts = Parts(
        raft=raft,
        applier=applier,
        engine=engine,
        scratch=scratch,
        tending=engine,
        oracle=Oracle(),
        embedder=Embedder(settings.embedding_functions, settings.embedding_module),
        door=Door(secret, lambda: os.urandom(16).hex()),
        prover=prover,
        peers=peers,
        proposer=Proposer(raft, limits, clock.now_ms, loop),
        # Past the waiting line, which is full of writes that wait for this one.
        propose_agreement=lambda agreement: raft.propose(
            encode_agreement(clock.now_ms(), agreement), past_limits=True
        ),
        levels=levels,
        propose_level=lambda level: raft.propose(encode_raise(clock.now_ms(), level), past_limits=True),
        donor=_donor(settings, raft, applier, store, alarms, seal),
        filling=filling,
        hold_log=raft.hold_log,
        verifying=Verifying(scanner, alarms, clock.now_ms, feed.changed, seal),
    )
    service = NodeService(settings, parts)
    faults.service = service
    stack.callback(service.close)
    return _Node(settings, tls, raft, applier, peers, service, feed, faults, filling)


def _levels(settings: NodeSettings, machine: Machine) -> Levels:
    """What this node says of command levels; from any thread."""
    return claimed(NEWEST_LEVEL, machine.level, settings.command_level_limit)


def _trust(data_dir: Path, installed: Installed | None) -> tuple[Alarms, Seal]:
    """What is known to be wrong with this node's copy, and whether it is in doubt."""
    if installed is not None:
        forget(data_dir)
    alarms, seal = Alarms(data_dir / ALARMS), Seal(data_dir, own_versions()["chromadb"])
    if installed is not None and alarms.raised:
        seal.doubt(
            f"It was filled with a copy of {installed.manifest.node_id}, for its own differed: it is being "
            "compared with the others."
        )
        alarms.clear()
    return alarms, seal


def _reset_log(settings: NodeSettings, manifest: Manifest) -> bool | None:
    """As `cluster.snapshot.installing.finish` needs it.

    Raises:
        Fault: the journal is damaged or gone.
    """
    path = settings.data_dir / "raft.sqlite"
    if not path.exists():
        raise Fault(
            f"A snapshot is to be installed in {settings.data_dir}, but its journal {path.name} is gone. "
            f"Nothing was changed. {damaged_advice()}"
        )
    journal = Journal.open(path, settings.cluster_id, settings.node_id)
    try:
        if manifest.index < journal.base_index:
            return None
        was_reset = journal.reset_to(manifest.index, manifest.term, manifest.configuration)
        journal.flush()
        return was_reset
    finally:
        journal.close()


def _donor(
    settings: NodeSettings, raft: RaftNode, applier: Applier, store: Store, alarms: Alarms, seal: Seal
) -> Donor:
    taker = Taker(
        Source(
            settings.data_dir,
            settings.cluster_id,
            settings.node_id,
            partial(applier.visits.ask, exact=False),
            store.copy_to,
            raft.term_at,
            raft.configuration_at,
            ahead=lambda: applier.ahead,
            on_taken=raft.note_snapshot,
        )
    )

    def may_give() -> str | None:
        if applier.fault is not None:
            return applier.fault.message
        if raft.status().lacks is not None:
            return "it lacks log entries itself."
        return alarms.reason or seal.doubts

    return Donor(taker, may_give, bytes_per_s=settings.snapshot_bytes_per_s)


def _filling(settings: NodeSettings, raft: RaftNode, peers: Peers, feed: StatusFeed) -> Filling:
    def lacks() -> int | None:
        found = raft.status().lacks
        return None if found is None else found.compacted

    others = OtherMembers(settings, raft)
    here = Here(
        settings.data_dir,
        settings.node_id,
        settings.cluster_id,
        own_versions()["chromadb"],
        lambda: dict(others),
        lacks,
        lambda: raft.status().first_index - 1,
        raft.hold_log,
    )
    return Filling(here, peers, on_change=feed.changed)


def _require_journal(store: Store, journal: Path) -> None:
    """A node that forgot what it voted and acknowledged could help to elect a leader that lacks
    committed entries.

    Raises:
        Fault: the log was applied here, and its journal is gone.
    """
    if store.marker().index > 0 and not journal.exists():
        raise Fault(
            f"{journal.parent} has applied the log up to {store.marker().index}, but its journal "
            f"{journal.name} is gone. Nothing was changed. {damaged_advice()}"
        )


def _raft(
    settings: NodeSettings,
    journal: Path,
    secret: bytes,
    tls: Tls | None,
    feed: StatusFeed,
    faults: _FaultLine,
    levels: Callable[[], Levels],
) -> RaftNode:
    bind = split_address(settings.raft)
    others = {name: split_address(peer.raft) for name, peer in settings.peers.items()}
    return RaftNode(
        settings.node_id,
        {settings.node_id: bind, **others},
        bind,
        journal,
        settings.cluster_id,
        secret,
        RaftSettings(
            election_timeout_ms=(settings.election_timeout_min_ms, settings.election_timeout_max_ms),
            heartbeat_ms=settings.heartbeat_ms,
            journal_budget_bytes=settings.journal_budget_bytes,
            log_retention_bytes=settings.log_retention_bytes,
            auto_replace=settings.auto_replace,
        ),
        on_change=feed.changed,
        on_fault=lambda reason: faults.report(Fault(reason)),
        tls=tls,
        joins=settings.join is not None,
        in_settings={
            settings.node_id: (
                settings.advertised_raft,
                settings.advertise_http or f"http://{settings.http}",
            ),
            **{name: (peer.raft, peer.http) for name, peer in settings.peers.items()},
        },
        levels=levels,
    )


async def _serve(node: _Node, stop: asyncio.Event) -> bool:
    """Until `stop` is set, and then for as long as it takes to hand over; or until a disk that was full has
    room again, or a snapshot is to be installed: then True, and the node is to be made anew.
    """
    settings, raft, applier = node.settings, node.raft, node.applier
    app = create_app(node.service, cluster_routes(node.service, node.feed))
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=_CLOSE_S, handler_cancellation=True, **SERVER_OPTIONS
    )
    await node.peers.open()
    try:
        raft.start()
        try:
            applier.start()
            await runner.setup()
            host, port = split_address(settings.http)
            loop = asyncio.get_running_loop()
            assert runner.server is not None
            files = open_files()
            door = bounded(runner.server, clients(files))
            site = await loop.create_server(door, host, port, reuse_address=True, backlog=backlog(files))
            log.info("node %s serves on http://%s", settings.node_id, settings.http)
            beside = [
                loop.create_task(work)
                for work in (
                    node.service.keep_warm(),
                    node.service.lead_only_when_well(),
                    node.service.keep_watch(),
                    node.service.keep_line(),
                    node.service.keep_room(),
                    node.service.compare_versions(node.feed.changed),
                    node.service.keep_containing(),
                    node.service.keep_level(),
                    node.service.keep_verifying(),
                    node.service.keep_filled(),
                    node.service.keep_tidy(),
                )
            ]
            causes = {
                loop.create_task(stop.wait()): "is stopping",
                loop.create_task(node.faults.room_again()): "begins anew: the disk has room again",
                loop.create_task(node.filling.wanted.wait()): "begins anew, from a snapshot",
            }
            done, _ = await asyncio.wait(causes, return_when=asyncio.FIRST_COMPLETED)
            for task in (*beside, *causes):
                task.cancel()
            log.info("node %s %s", settings.node_id, next(causes[task] for task in causes if task in done))
            # First hand leadership over, so that the others take writes while this one drains.
            await asyncio.to_thread(raft.transfer_leadership)
            node.service.stop_serving()
            node.feed.close()
            site.close()
            # Before aiohttp hears of it: from then on it throws away what arrives, be it half of a body.
            await app[DRAIN].finish(_DRAIN_S)
            await runner.cleanup()
        finally:
            await asyncio.to_thread(applier.stop)
            await asyncio.to_thread(raft.stop)
    finally:
        await runner.cleanup()
        await node.peers.close()
    return not stop.is_set()
