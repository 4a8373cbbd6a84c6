"""From where a server copies or follows another one, and by which slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.systems.postgres.connection import Connection


def slot(member: str) -> str:
    """The name of a member's replication slot."""
    return member.replace("-", "_")


@dataclass(frozen=True, slots=True)
class Source:
    """From where a server copies: host and port, and the name of who copies."""

    address: str
    member: str

    def is_in(self, conninfo: str) -> bool:
        """Whether these connection parameters lead there, however they are written."""
        host, _, port = self.address.rpartition(":")
        words = conninfo.replace("'", "").split()
        return f"host={host}" in words and f"port={port}" in words

    def conninfo(self) -> str:
        host, _, port = self.address.rpartition(":")
        return f"host={host} port={port} user=postgres dbname=postgres application_name={self.member}"


async def make_slot(connection: Connection, member: str) -> None:
    """The member's slot on this primary, if there is none yet."""
    await connection.execute(
        "SELECT pg_create_physical_replication_slot($1::text) "
        "WHERE NOT EXISTS (SELECT 1 FROM pg_replication_slots WHERE slot_name = $1::text)",
        slot(member),
    )
