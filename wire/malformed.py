"""Requests that are no HTTP, or half of one: worth a line in the log, and no traceback."""

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
            _shorten(record, "a request that is no HTTP was refused: %s", error)
        elif isinstance(error, ConnectionError):
            _shorten(record, "a client hung up in the middle of its request: %s", error)
        return True


def _shorten(record: logging.LogRecord, words: str, error: BaseException) -> None:
    record.levelno, record.levelname = logging.INFO, "INFO"
    record.msg, record.args = words, (" ".join(str(error).split())[:200],)
    record.exc_info = record.exc_text = None


def shorten_complaints() -> None:
    """Once for this process."""
    logger = logging.getLogger("aiohttp.server")
    if not any(isinstance(one, Malformed) for one in logger.filters):
        logger.addFilter(Malformed())
