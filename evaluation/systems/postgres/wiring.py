"""What each process is told: where it listens, and whom it reaches at which address; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from evaluation.systems.postgres.profiles import MEMBERS
from evaluation.systems.postgres.settings import ApiSettings, SupervisorSettings
from evaluation.systems.postgres.topology import number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluation.systems.postgres.profiles import Profile

_LEASE_S: Final = 1.0


def balancer(port: int, at: Mapping[str, str]) -> dict[str, Any]:
    """Options of `round_robin`. `at` here and below: link -> host:port at which it is dialled."""
    backends = [f"http://{at[f'lb.api-{number(member)}']}" for member in MEMBERS]
    # Longer than the API servers' own deadline: their answer says more than a timeout here.
    return {"port": port, "backends": backends, "read_timeout_s": 8.0}


def supervisor(profile: Profile, listen: str, state: str, at: Mapping[str, str]) -> SupervisorSettings:
    return SupervisorSettings(
        profile=profile.name,
        listen=listen,
        primary=MEMBERS[0],
        state=state,
        servers={member: at[f"sql.supervisor.{member}"] for member in MEMBERS},
        sources={
            f"{one} {other}": at[f"repl.{one}.{other}"]
            for one in MEMBERS
            for other in MEMBERS
            if one != other
        },
        lease_s=_LEASE_S,
    )


def api(
    profile: Profile, name: str, listen: str, pgbouncer: str, at: Mapping[str, str], reads: str
) -> ApiSettings:
    return ApiSettings(
        name=name,
        listen=listen,
        local=f"pg-{name.removeprefix('api-')}",
        members=MEMBERS,
        pgbouncer=pgbouncer,
        supervisor=f"http://{at[f'control.{name}.supervisor']}" if profile.fenced else None,
        lease_s=_LEASE_S,
        reads=reads,
    )
