"""Asking nodes with proof of their cluster's secret: `requests.get(url, auth=Member(secret))`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import requests

from wire.proof import HEADER, digest_of
from wire.prover import Prover


class Member(requests.auth.AuthBase):
    """Proves each request, and repeats one that the node refuses because its challenge was not known."""

    def __init__(self, secret: str) -> None:
        self.prover = Prover(secret.encode())

    def __call__(self, request: Any) -> Any:
        self._prove(request)
        request.register_hook("response", self._learn)
        return request

    def _prove(self, request: Any) -> None:
        body = request.body or b""
        digest = digest_of(body.encode() if isinstance(body, str) else body)
        request.headers.pop(HEADER, None)
        request.headers.update(
            self.prover.headers(_node(request.url), request.method, request.path_url, digest)
        )

    def _learn(self, answer: Any, **options: Any) -> Any:
        request = answer.request
        if not self.prover.learn(_node(request.url), answer.status_code, answer.headers):
            return answer
        if hasattr(request, "proven_again"):
            return answer
        answer.close()
        again = request.copy()
        again.proven_again = True
        self._prove(again)
        found = answer.connection.send(again, **options)
        found.history.append(answer)
        found.request = again
        return found


def _node(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
