"""Composes one node from its parts, serves until it is told to stop, and hands over politely."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from aiohttp import web

from cluster.api.app import create_app
from cluster.api.cluster_routes import StatusFeed, add_cluster_routes
from cluster.apply.applier import Applier
from cluster.apply.store import Store
from cluster.chroma.embedded import LOCAL_PREFIX
from cluster.chroma.isolated import IsolatedEngine
from cluster.chroma.oracle import Oracle
from cluster.chroma.scratch import Scratch
from cluster.config import split_address
from cluster.embedding.embedder import Embedder
from cluster.errors import ClusterError, Fault
from cluster.failpoint import arm
from cluster.lock import DirectoryLock
from cluster.peers import Peers
from cluster.propose.grouping import GroupLimits
from cluster.propose.log_clock import LogClock
from cluster.propose.proposer import Proposer
from cluster.raft.raft import RaftNode
from cluster.raft.settings import RaftSettings
from cluster.raft.tls import Tls
from cluster.service.node import NodeService
from cluster.state.machine import Machine

if TYPE_CHECKING:
    from cluster.config import NodeSettings

log = logging.getLogger(__name__)

#: Requests under way may finish within this time when the node stops.
_DRAIN_S: Final = 5.0


def run_node(settings: NodeSettings) -> int:
    """Serve one node until SIGTERM or SIGINT; 0 after a clean stop, 1 with the reason on stderr."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    try:
        arm(os.environ)
        with ExitStack() as stack:
            return asyncio.run(_serve(settings, stack))
    except (ClusterError, ValueError, OSError) as error:
        print(f"chroma-cluster node {settings.node_id} cannot run: {error}", file=sys.stderr)
        return 1


async def _serve(settings: NodeSettings, stack: ExitStack) -> int:
    """Parts are entered in the order in which they need each other, and left in reverse."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)

    stack.enter_context(DirectoryLock(settings.data_dir))
    secret = settings.secret_bytes
    files = settings.raft_tls_files
    tls = None if files is None else Tls.load(*files)
    store = Store(settings.data_dir / "state.sqlite")
    stack.callback(store.close)
    journal = settings.data_dir / "raft.sqlite"
    if store.marker().index > 0 and not journal.exists():
        # A node that forgot what it voted and acknowledged could help to elect a leader that
        # lacks committed entries.
        raise Fault(
            f"{settings.data_dir} has applied the log up to {store.marker().index}, but its journal "
            f"{journal.name} is gone. Nothing was changed. Restore the journal, or remove the whole "
            "directory and add the node as a new one."
        )
    machine = Machine.load(store.items(but=LOCAL_PREFIX))
    feed = StatusFeed(loop)
    services: list[NodeService] = []

    def on_fault(fault: Fault) -> None:
        for service in services:
            service.fail(fault)
        feed.changed()

    engine = IsolatedEngine(
        settings.data_dir / "chroma",
        store.items(LOCAL_PREFIX),
        on_death=on_fault,
        readers=settings.read_threads,
    )
    stack.callback(engine.close)
    bind = split_address(settings.raft)
    others = {name: split_address(peer.raft) for name, peer in settings.peers.items()}
    raft = RaftNode(
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
        ),
        on_change=feed.changed,
        on_fault=lambda reason: on_fault(Fault(reason)),
        tls=tls,
    )
    applier = Applier(raft, machine, engine, store, on_fault)
    applier.add_listener(lambda _: feed.changed())
    scratch = Scratch()
    oracle = Oracle()
    peers = Peers(timeout_ms=settings.read_timeout_ms)
    limits = GroupLimits(queue_bytes=settings.queue_bytes)
    service = NodeService(
        settings,
        raft=raft,
        applier=applier,
        engine=engine,
        scratch=scratch,
        oracle=oracle,
        embedder=Embedder(settings.embedding_functions, settings.embedding_module),
        peers=peers,
        proposer=Proposer(raft, limits, LogClock(lambda: machine.time_ms, time.monotonic_ns).now_ms, loop),
    )
    services.append(service)
    stack.callback(service.close)
    app = create_app(service)
    add_cluster_routes(app, service, feed)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_DRAIN_S)
    await peers.open()
    try:
        raft.start()
        try:
            applier.start()
            await runner.setup()
            host, port = split_address(settings.http)
            await web.TCPSite(runner, host, port, reuse_address=True).start()
            log.info("node %s serves on http://%s", settings.node_id, settings.http)
            warming = loop.create_task(service.keep_warm())
            await stop.wait()
            warming.cancel()
            log.info("node %s is stopping", settings.node_id)
            # First hand leadership over, so that the others take writes while this one drains.
            await asyncio.to_thread(raft.transfer_leadership)
            service.stop_serving()
            feed.close()
            await runner.cleanup()
        finally:
            await asyncio.to_thread(applier.stop)
            await asyncio.to_thread(raft.stop)
    finally:
        await runner.cleanup()
        await peers.close()
    return 0
