"""Who takes part in the Postgres system, where, and over which links; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from evaluation.systems.interface import Link
from evaluation.systems.postgres.profiles import MEMBERS

if TYPE_CHECKING:
    from collections.abc import Iterator

BALANCER: Final = "balancer"
SUPERVISOR: Final = "supervisor"


def number(member: str) -> str:
    """What its API server and its PgBouncer have in common with it."""
    return member.removeprefix("pg-")


def links() -> Iterator[Link]:
    yield Link("client.lb", "client", BALANCER, "client")
    for member in MEMBERS:
        own = number(member)
        yield Link(f"client.{member}", f"client@{member}", f"api-{own}", "client")
        yield Link(f"lb.api-{own}", BALANCER, f"api-{own}", "balancer")
        yield Link(f"control.api-{own}.supervisor", f"api-{own}", SUPERVISOR, "control")
        yield Link(f"sql.supervisor.{member}", SUPERVISOR, member, "sql")
        for other in MEMBERS:
            if other != member:
                yield Link(f"sql.pgbouncer-{own}.{other}", f"pgbouncer-{own}", other, "sql")
                yield Link(f"repl.{member}.{other}", member, other, "replication")


def beside() -> dict[str, str]:
    """Participant -> the member on whose machine it is."""
    found = {f"client@{member}": member for member in MEMBERS}
    for member in MEMBERS:
        own = number(member)
        found |= {f"api-{own}": member, f"pgbouncer-{own}": member}
    return found
