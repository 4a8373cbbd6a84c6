"""What a new Postgres server gets before it serves as a vector database."""

from __future__ import annotations

from typing import Final

from evaluation.systems.postgres import catalogue
from evaluation.systems.postgres.connection import connect

EF_SEARCH: Final = 100
"""As Chroma's."""


async def prepare(address: str, ef_search: int = EF_SEARCH) -> None:
    """Give a new Postgres server the tables and settings of a vector database."""
    connection = await connect(address, vectors=False)
    for statement in catalogue.SCHEMA.split(";\n"):
        if statement.strip():
            await connection.execute(statement)
    # The settings of an extension are known only where it is loaded.
    await connection.execute("LOAD 'vector'")
    for setting, value in (("hnsw.ef_search", ef_search), ("hnsw.iterative_scan", "strict_order")):
        await connection.execute(f"ALTER DATABASE postgres SET {setting} = '{value}'")
    await connection.close()
