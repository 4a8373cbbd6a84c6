"""What the API server says of itself, as a single Chroma does; and that it does not have everything."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from cluster.api.encode import encode
from cluster.errors import Refusal
from cluster.state.work import MAX_BATCH_SIZE
from evaluation.systems.postgres.api.exchange import Reply

if TYPE_CHECKING:
    from evaluation.systems.postgres.api.exchange import Request

#: What a single Chroma 1.5.9 says of itself.
VERSION: Final = "1.0.0"
_IDENTITY: Final = {"user_id": "", "tenant": "default_tenant", "databases": ["default_database"]}
NOT_HERE: Final = "This server keeps records in Postgres and does not have this. Nothing was changed."


async def heartbeat(request: Request) -> Reply:
    del request
    return Reply(encode({"nanosecond heartbeat": time.time_ns()}))


async def healthcheck(request: Request) -> Reply:
    del request
    return Reply(encode({"is_executor_ready": True, "is_log_client_ready": True}))


async def version(request: Request) -> Reply:
    del request
    return Reply(encode(VERSION))


async def pre_flight_checks(request: Request) -> Reply:
    del request
    return Reply(encode({"max_batch_size": MAX_BATCH_SIZE, "supports_base64_encoding": True}))


async def identity(request: Request) -> Reply:
    del request
    return Reply(encode(_IDENTITY))


async def missing(request: Request) -> Reply:
    del request
    raise Refusal(501, "ChromaError", NOT_HERE)
