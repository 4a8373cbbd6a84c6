"""How a server is made to follow a primary, whatever it wrote of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from evaluation.failure import SystemFailure
from evaluation.systems.postgres.connection import FAILURES, Connection, connect
from evaluation.systems.postgres.servers import Killed
from evaluation.systems.postgres.source import make_slot

if TYPE_CHECKING:
    from evaluation.systems.postgres.servers import Server
    from evaluation.systems.postgres.source import Source

_PREPARE_S: Final = 20.0


async def prepare_source(source: Source, primary: str) -> None:
    """Make the primary ready to be followed; nothing changes on the follower's machine.

    Raises:
        SystemFailure: the primary does not answer through the follower's link to it.
    """
    connection: Connection | None = None
    try:
        async with asyncio.timeout(_PREPARE_S):
            connection = await connect(source.address, vectors=False)
            # Until its next checkpoint a new primary's control file names the old timeline.
            await connection.execute("CHECKPOINT")
            await make_slot(connection, source.member)
    except FAILURES as error:
        raise SystemFailure(f"{source.member} does not reach {primary} to follow it: {error!r}") from None
    finally:
        if connection is not None:
            connection.terminate()


async def fill(server: Server, source: Source) -> None:
    """Make the stopped server one that follows the prepared source, and start it.

    Raises:
        SystemFailure: a program failed; `Killed`: it was killed.
    """
    if server.has_data:
        try:
            await server.rewind(source)
        except Killed:
            raise
        except SystemFailure:
            # What it had in common with the primary is not in its log any more; or it was cut short.
            await server.clone(source, create_slot=False)
    else:
        await server.clone(source, create_slot=False)
    await server.start()
