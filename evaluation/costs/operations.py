"""What a person types for a failover and for a backup of each system, what it costs, and what it needs.

By hand, from how each system is built; the drills (`evaluation.costs.drills`) do both once and show whether
it is so. Placeholders in capitals.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that operators do."""

    commands: tuple[str, ...]
    outage: str
    loses: str
    needs: str


_SUPERVISOR = (
    "a supervisor with fencing (here the project's own; else Patroni with a consensus store), PgBouncer; "
    "the old primary comes back by two commands: pg_rewind and a start"
)

#: system, or the first word of its name -> what its failover takes.
FAILOVER: dict[str, Operation] = {
    "single": Operation(
        ("chroma run --path DATA --port PORT",),
        "until somebody or something starts it again",
        "nothing if the disk survives; else all since the last backup",
        "an init system, or a person who watches",
    ),
    "shared-dir": Operation(
        (),
        "none: the other workers go on, and the arbiter starts a new one",
        "nothing acknowledged by the kill itself; all since the last backup with the disk, which all share",
        "an arbiter (gunicorn); one machine",
    ),
    "naive": Operation(
        (),
        "none: the balancer goes on with the others",
        "with the disk of the killed one, what it acknowledged since the last sync round; even without a "
        "fault, what conflict resolution discards",
        "a balancer and the sync agent, home-made",
    ),
    "cluster": Operation(
        (),
        "until the others have elected a leader, about one election timeout",
        "nothing that was acknowledged, as long as a majority of the disks survives",
        "nothing else; the killed node comes back by one command, `chroma-cluster up`; a node whose disk "
        "is gone is filled from a copy of another's, by hand",
    ),
    "postgres-async": Operation(
        (),
        "until the supervisor has promoted a replica",
        "what was acknowledged and not yet shipped to a replica",
        _SUPERVISOR,
    ),
    "postgres-quorum": Operation(
        (),
        "until the supervisor has promoted the most advanced replica",
        "nothing that was acknowledged, if only a replica that confirmed is promoted",
        _SUPERVISOR,
    ),
    "postgres-all": Operation(
        (),
        "until the supervisor has promoted a replica; writes also stop while any replica is away",
        "nothing that was acknowledged",
        _SUPERVISOR,
    ),
    "postgres-patroni": Operation(
        (),
        "until the leader's key has run out (20 s is the least that can be set) and a replica is promoted",
        "what was acknowledged and not yet shipped to a replica; without a watchdog also what a primary "
        "takes while its Patroni hangs",
        "a Patroni beside each server and a consensus store (here Patroni's own Raft), PgBouncer; the old "
        "primary comes back by itself once its Patroni runs",
    ),
}

_STOP_COPY_START = (
    "kill -TERM PID",
    "cp -a DATA BACKUP",
    "chroma run --path DATA --port PORT",
)
_BASE_BACKUP = Operation(
    ("pg_basebackup -D BACKUP -h HOST -p PORT -U postgres",),
    "none: it is read while everything goes on",
    "nothing; with archived WAL any moment can be restored",
    "nothing else",
)

BACKUP: dict[str, Operation] = {
    "single": Operation(
        _STOP_COPY_START,
        "as long as the copy takes, and a start",
        "nothing",
        "a time at which nobody needs it: an online copy of its files is no consistent one",
    ),
    "shared-dir": Operation(
        ("kill -TERM PID_OF_ARBITER", "cp -a DATA BACKUP", "start the workers"),
        "as long as the copy takes, and a start of all workers",
        "nothing",
        "a time at which nobody needs it",
    ),
    "naive": Operation(
        _STOP_COPY_START,
        "none: the balancer goes on with the others",
        "what the others acknowledged since the last sync round is not in the copy",
        "nothing else",
    ),
    "cluster": Operation(
        ("kill -TERM PID_OF_A_FOLLOWER", "cp -a DATA/node-3/chroma BACKUP", "chroma-cluster up --data DATA"),
        "none: a majority goes on",
        "what the follower had not yet applied when it stopped, and all later, is not in the copy",
        "nothing else; the copy is a plain Chroma directory",
    ),
    "postgres": _BASE_BACKUP,
}


def operations_of(system: str) -> dict[str, dict[str, object]]:
    """`failover` and `backup` of a system; empty for one that nothing is known about."""
    found: dict[str, dict[str, object]] = {}
    for kind, table in (("failover", FAILOVER), ("backup", BACKUP)):
        known = [name for name in table if system == name or system.startswith(f"{name}-")]
        if known:
            operation = asdict(table[max(known, key=len)])
            found[kind] = {**operation, "commands": list(operation["commands"])}
    return found
