"""Courses of what is applied and read."""

from __future__ import annotations

from cluster.reads import Level
from cluster.state.commands import DeleteDatabase, Proposal, encode_proposal
from tests.simulation.clients import DATABASE, TENANT
from tests.simulation.courses.staging import begin, leader_of, propose, quiet_cluster, until, write
from tests.simulation.invariants import Violation


def gone_database(mutation: str | None = None) -> Violation | None:
    """A database is deleted, and a read of a collection that it had finds nothing: that answer must carry a
    token that no node without the deletion satisfies.
    """
    simulation = quiet_cluster(mutation, nodes=3)
    judge = simulation.judge
    try:
        leader = leader_of(simulation)
        begin(simulation, leader, write("r", "d"))
        gone = DeleteDatabase(TENANT, DATABASE)
        propose(simulation.processes[leader], [encode_proposal(Proposal("gone", b"", gone))])
        for node_id, process in simulation.processes.items():
            until(simulation, lambda process=process: "c" not in process.engine.digests, "it is gone")
            last = len(judge.committed)
            until(simulation, lambda process=process, last=last: process.applier.applied_index == last, "so")
            reads = judge.reads
            simulation.helper._read("c", Level.SESSION, node_id)
            until(simulation, lambda reads=reads: judge.reads > reads, "the read is answered")
    except Violation as violation:
        return violation
    return None
