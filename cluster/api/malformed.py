"""Requests that are no HTTP: answered with 400 by aiohttp, and worth a line in the log, not a traceback."""

from __future__ import annotations

import logging
from typing import Final

from aiohttp import ClientPayloadError, http_exceptions, web

#: What reading a body raises if it is not sent as its headers say.
UNREADABLE: Final = (web.RequestPayloadError, http_exceptions.HttpProcessingError, ClientPayloadError)


class Malformed(logging.Filter):
    """For aiohttp's own logger, which takes a client's malformed request for a failure of the server."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten such records; all pass."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, http_exceptions.HttpProcessingError):
            record.levelno, record.levelname = logging.INFO, "INFO"
            record.msg = "a request that is no HTTP was refused: %s"
            record.args = (" ".join(str(error).split())[:200],)
            record.exc_info = record.exc_text = None
        return True


def shorten_complaints() -> None:
    """Once for this process."""
    logger = logging.getLogger("aiohttp.server")
    if not any(isinstance(one, Malformed) for one in logger.filters):
        logger.addFilter(Malformed())
