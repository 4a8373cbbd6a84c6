"""Odd HTTP: lines, lengths, chunks, headers, as raw bytes; pure.

Where two servers may read one request differently, a proxy in front of a node could be made to pass on what
it did not see. `closed` stands for: answered or hung up, and never more.
"""

from __future__ import annotations

from typing import Final

from lb.paths import is_reserved
from tests.hostile.case import API, COLLECTIONS, Body, C, Call, Case, Door, Required, lazily

KIND: Final = "wire"

_POST: Final = f"POST {C}/add HTTP/1.1\r\nHost: {{host}}\r\nContent-Type: application/json\r\n"
_GOOD: Final = '{"ids":["n0"],"embeddings":[[1,1,1]]}'
_GET: Final = f"GET {API}/version HTTP/1.1\r\nHost: {{host}}\r\n"
_SMUGGLED: Final = f"DELETE {COLLECTIONS}/canary HTTP/1.1\r\nHost: x\r\n\r\n"
_CHUNKED: Final = _POST + "Transfer-Encoding: chunked\r\n\r\n"
_CHUNKS: Final = f"{len(_GOOD):x}\r\n{_GOOD}\r\n0\r\n\r\n"

#: Whole requests. What a node or the balancer does with them must leave everybody well.
RAW: Final[dict[str, str | bytes]] = {
    "bare-lf": _GET.replace("\r\n", "\n") + "\n",
    "bare-lf-mixed": _GET + "X-A: b\nX-C: d\r\n\r\n",
    "bare-lf-at-end": _GET + "\n",
    "bare-cr": _GET + "X-A: b\rX-C: d\r\n\r\n",
    "no-host": f"GET {API}/version HTTP/1.1\r\n\r\n",
    "two-hosts": _GET + "Host: other\r\n\r\n",
    "odd-host": f"GET {API}/version HTTP/1.1\r\nHost: a b/c?d#e@[::\r\n\r\n",
    "http-1.0": f"GET {API}/version HTTP/1.0\r\n\r\n",
    "http-0.9": f"GET {API}/version\r\n\r\n",
    "http-2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http-9.9": f"GET {API}/version HTTP/9.9\r\nHost: x\r\n\r\n",
    "http-1.1-lower": f"GET {API}/version http/1.1\r\nHost: x\r\n\r\n",
    "tls-hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    "garbage": b"\x00\xff" * 2_000,
    "blank-lines": "\r\n" * 100 + _GET + "\r\n",
    "only-blank-lines": "\r\n\r\n\r\n",
    "space-before-colon": _GET + "X-A : b\r\n\r\n",
    "space-first": _GET + " X-A: b\r\n\r\n",
    "folded": _GET + "X-A: b\r\n c\r\n\r\n",
    "no-colon": _GET + "nothing\r\n\r\n",
    "empty-name": _GET + ": b\r\n\r\n",
    "nul-in-name": _GET + "X-\x00A: b\r\n\r\n",
    "nul-in-value": _GET + "X-A: \x00\r\n\r\n",
    "high-bytes": _GET.encode() + b"X-A: \xff\xfe\xed\xa0\x80\r\n\r\n",
    "many-headers": _GET + "".join(f"X-{at}: b\r\n" for at in range(20_000)) + "\r\n",
    "long-header": _GET + f"X-A: {'b' * 2**20}\r\n\r\n",
    "header-8191": _GET + f"X-A: {'b' * 8_191}\r\n\r\n",
    "header-65000": _GET + f"X-A: {'b' * 65_000}\r\n\r\n",
    "long-name": _GET + f"{'X' * 70_000}: b\r\n\r\n",
    "long-method": f"{'A' * 70_000} {API}/version HTTP/1.1\r\nHost: x\r\n\r\n",
    "odd-method": f"G\x01T {API}/version HTTP/1.1\r\nHost: x\r\n\r\n",
    "lower-method": f"get {API}/version HTTP/1.1\r\nHost: x\r\n\r\n",
    "tab-in-line": f"GET\t{API}/version\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "two-spaces": f"GET  {API}/version  HTTP/1.1\r\nHost: x\r\n\r\n",
    "connect": "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n",
    "trace": f"TRACE {API}/version HTTP/1.1\r\nHost: x\r\n\r\n",
    "options-star": "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "absolute": f"GET http://elsewhere{API}/version HTTP/1.1\r\nHost: x\r\n\r\n",
    "absolute-write": f"DELETE http://elsewhere{COLLECTIONS}/canary-not HTTP/1.1\r\nHost: x\r\n\r\n",
    "absolute-https": f"GET https://a:b@elsewhere:99999{API}/version HTTP/1.1\r\nHost: x\r\n\r\n",
    "no-slash": "GET api/v2/version HTTP/1.1\r\nHost: x\r\n\r\n",
    "fragment": f"GET {API}/version#x HTTP/1.1\r\nHost: x\r\n\r\n",
    "only-question": "GET ? HTTP/1.1\r\nHost: x\r\n\r\n",
    "backslashes": f"GET {API}\\version HTTP/1.1\r\nHost: x\r\n\r\n",
    "brackets": "GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "double-slash-host": "GET //elsewhere:xyz/api/v2/version HTTP/1.1\r\nHost: x\r\n\r\n",
    "high-bytes-in-target": f"GET {API}/tenants/".encode() + b"\xff\xfe\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
    "length-negative": _POST + "Content-Length: -1\r\n\r\n" + _GOOD,
    "length-plus": _POST + f"Content-Length: +{len(_GOOD)}\r\n\r\n" + _GOOD,
    "length-huge": _POST + f"Content-Length: {'9' * 30}\r\n\r\n" + _GOOD,
    "length-5000-digits": _POST + f"Content-Length: {'9' * 5_000}\r\n\r\n" + _GOOD,
    "length-text": _POST + "Content-Length: x\r\n\r\n" + _GOOD,
    "length-empty": _POST + "Content-Length:\r\n\r\n" + _GOOD,
    "length-list": _POST + f"Content-Length: {len(_GOOD)}, {len(_GOOD)}\r\n\r\n" + _GOOD,
    "length-twice": _POST + f"Content-Length: {len(_GOOD)}\r\n" * 2 + "\r\n" + _GOOD,
    "length-two-values": _POST + f"Content-Length: {len(_GOOD)}\r\nContent-Length: 1\r\n\r\n" + _GOOD,
    "length-zeros": _POST + f"Content-Length: {len(_GOOD):020}\r\n\r\n" + _GOOD,
    "length-digits-of-another-script": (_POST + "Content-Length: \u0663\u0667\r\n\r\n" + _GOOD).encode(),
    "length-underscore": _POST + "Content-Length: 3_7\r\n\r\n" + _GOOD,
    "length-too-short": _POST + "Content-Length: 2\r\n\r\n" + _GOOD + _SMUGGLED,
    "length-none": _POST + "\r\n" + _GOOD,
    "length-and-chunks": _POST + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + _CHUNKS,
    "chunks-and-length": _POST
    + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
    + _CHUNKS
    + _SMUGGLED,
    "chunks-1.0": _POST.replace("1.1", "1.0") + "Transfer-Encoding: chunked\r\n\r\n" + _CHUNKS,
    "chunks-upper": _POST + "Transfer-Encoding: CHUNKED\r\n\r\n" + _CHUNKS,
    "chunks-quoted": _POST + 'Transfer-Encoding: "chunked"\r\n\r\n' + _CHUNKS,
    "chunks-tab": _POST + "Transfer-Encoding:\tchunked\r\n\r\n" + _CHUNKS,
    "chunks-x": _POST + "Transfer-Encoding: xchunked\r\n\r\n" + _CHUNKS,
    "chunks-twice": _POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + _CHUNKS,
    "chunks-list-twice": _POST + "Transfer-Encoding: chunked, chunked\r\n\r\n" + _CHUNKS,
    "chunks-not-last": _POST + "Transfer-Encoding: chunked, identity\r\n\r\n" + _CHUNKS,
    "chunks-gzip": _POST + "Transfer-Encoding: gzip, chunked\r\n\r\n" + _CHUNKS,
    "chunks-identity": _POST + f"Transfer-Encoding: identity\r\nContent-Length: {len(_GOOD)}\r\n\r\n" + _GOOD,
    "chunks-vertical-tab": _POST + "Transfer-Encoding: \x0bchunked\r\n\r\n" + _CHUNKS,
    "chunk-size-huge": _CHUNKED + "f" * 16 + "\r\n" + _GOOD,
    "chunk-size-long": _CHUNKED + "0" * 100_000 + "1\r\nx\r\n0\r\n\r\n",
    "chunk-size-negative": _POST + "Transfer-Encoding: chunked\r\n\r\n-5\r\n" + _GOOD + "\r\n0\r\n\r\n",
    "chunk-size-0x": _CHUNKED + f"0x{len(_GOOD):x}\r\n{_GOOD}\r\n0\r\n\r\n",
    "chunk-size-text": _POST + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + _GOOD,
    "chunk-size-empty": _POST + "Transfer-Encoding: chunked\r\n\r\n\r\n" + _GOOD,
    "chunk-extension": _CHUNKED + f"{len(_GOOD):x};{'x' * 100_000}\r\n{_GOOD}\r\n0\r\n\r\n",
    "chunk-bare-lf": _CHUNKED + f"{len(_GOOD):x}\n{_GOOD}\n0\n\n",
    "chunk-no-crlf": _CHUNKED + f"{len(_GOOD):x}\r\n{_GOOD}XX0\r\n\r\n",
    "trailers": _CHUNKED + f"{len(_GOOD):x}\r\n{_GOOD}\r\n0\r\nX-A: b\r\n\r\n",
    "trailers-odd": _CHUNKED
    + f"{len(_GOOD):x}\r\n{_GOOD}\r\n0\r\nX-Chroma-Forwarded: 1\r\nContent-Length: 5\r\n\r\n",
    "trailers-many": _POST + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + "X-A: b\r\n" * 20_000 + "\r\n",
    "expect": _POST + f"Expect: 100-continue\r\nContent-Length: {len(_GOOD)}\r\n\r\n" + _GOOD,
    "expect-unknown": _POST + f"Expect: 200-ok\r\nContent-Length: {len(_GOOD)}\r\n\r\n" + _GOOD,
    "upgrade-websocket": _GET
    + "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    + "Sec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "upgrade-h2c": _GET
    + "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    "upgrade-write": _POST
    + f"Upgrade: x\r\nConnection: upgrade\r\nContent-Length: {len(_GOOD)}\r\n\r\n"
    + _GOOD,
    "connection-names-length": _POST
    + f"Connection: Content-Length, Host\r\nContent-Length: {len(_GOOD)}\r\n\r\n"
    + _GOOD,
    "connection-names-key": _POST
    + f"Connection: Idempotency-Key, X-Chroma-Consistency\r\nContent-Length: {len(_GOOD)}\r\n\r\n"
    + _GOOD,
    "connection-long": _GET + f"Connection: {'close, ' * 1_000}x\r\n\r\n",
    "pipelined": (_GET + "\r\n") * 200,
    "pipelined-writes": (_POST + f"Content-Length: {len(_GOOD)}\r\n\r\n" + _GOOD) * 20,
}
#: Bodies that stay away: the connection waits, is dropped by the client after a while, and nobody may mind.
UNFINISHED: Final[dict[str, str]] = {
    "body-cut": _POST + "Content-Length: 1000\r\n\r\n" + _GOOD,
    "chunks-cut": _POST + "Transfer-Encoding: chunked\r\n\r\nffff\r\n" + _GOOD,
    "headers-cut": _GET + "X-A: ",
    "line-cut": "GET /api",
    "nothing": "",
}

#: Paths that are another when they are read once more, at the balancer.
TARGETS: Final[dict[str, str]] = {
    "status-encoded": "/%63luster/status",
    "embed-encoded": "/%63luster/embed",
    "read-index-encoded": "/cluste%72/read-index",
    "double-encoded": "/%2563luster/status",
    "double-slash": "//cluster/status",
    "dots": "/api/../cluster/status",
    "encoded-dots": "/api/%2e%2e/cluster/status",
    "encoded-slash": "/cluster%2fstatus",
    "upper": "/CLUSTER/status",
    "semicolon": "/cluster;x=1/status",
    "backslash": "/cluster\\status",
    "trailing-slash": "/cluster/status/",
    "prefix": "/clusterstatus",
    "watch-encoded": "/%63luster/status?watch=1",
    "api-encoded": "/%61pi/v2/version",
    "api-dots": "/api/v2/x/../version",
}

_IN_LINE: Final[dict[str, str]] = {
    "question-marks": f"{API}/version???x",
    "long-query": f"{API}/version?{'x' * 7_000}",
    "too-long-query": f"{API}/version?{'x' * 70_000}",
    "many-slashes": "/" * 5_000,
    "many-parts": f"{API}" + "/x" * 3_000,
    "nothing": "/nothing",
    "root": "/",
    "docs-dots": "/docs/../../etc/passwd",
    "docs-encoded-dots": "/docs/%2e%2e/%2e%2e/etc/passwd",
}


def _raw(name: str, request: Body, door: Door = "balancer", required: Required = "closed") -> Case:
    return Case(f"{KIND}/{door}.{name}", KIND, (Call("GET", "", raw=request),), required, door)


def _required(target: str) -> Required:
    """What anybody could read as the nodes' own, the balancer refuses in words of its own."""
    return "refused" if is_reserved(target.partition("?")[0]) else "as chroma"


def cases() -> list[Case]:
    """All of them."""
    found: list[Case] = []
    for name, text in (RAW | UNFINISHED).items():
        content = text if isinstance(text, bytes) else text.encode("latin-1")
        for door in ("balancer", "follower"):
            found.append(_raw(name, content, door))
    found += [
        Case(
            f"{KIND}/target.{name}",
            KIND,
            # One line: were it the status, watched, it would never end.
            (Call("GET", target, stream=name == "watch-encoded"),),
            _required(target),
            setup="none",
        )
        for name, target in (TARGETS | _IN_LINE).items()
    ]
    found += [
        Case(
            f"{KIND}/posted.{name}",
            KIND,
            (Call("POST", target, b'{"texts":[]}'),),
            _required(target),
            setup="none",
        )
        for name, target in TARGETS.items()
        if name.endswith("encoded")
    ]
    slow = lazily(lambda: _GOOD.encode() + b" " * 3_000_000)
    found.append(Case(f"{KIND}/chunks-tiny", KIND, (Call("POST", f"{C}/add", slow, chunked=True),)))
    return found
