"""Which paths are not for nodes, in any spelling."""

from __future__ import annotations

import time

import pytest

from lb.paths import is_reserved
from tests.spellings import spellings

OWN = ["/cluster", "/cluster/", *(f"/cluster/{name}" for name in ("status", "embed", "read-index", "x"))]
DATABASE = "/api/v2/tenants/t/databases/d"


@pytest.mark.parametrize("path", [*OWN, *(one for path in OWN[2:] for one in spellings(path))])
def test_whatever_anybody_takes_for_cluster_is_reserved(path: str) -> None:
    assert is_reserved(path)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "*",
        "/clusters/status",
        "/api/v2/heartbeat",
        "/api/v2/tenants/cluster",
        "/api/v2/tenants/cluster%2fstatus",
        "/api/v2/tenants/%63luster",
        "/api/v2/tenants/..",
        f"{DATABASE}/collections/cluster",
        f"{DATABASE}/collections/100%25",
        f"{DATABASE}/collections/%E4%B8%AD",
        f"{DATABASE}/collections/%ff%zz",
        f"{DATABASE}/collections/a%2525252525b",
        "/api/v2/tenants/a;b/databases//collections",
    ],
)
def test_what_is_chromas_is_passed_on(path: str) -> None:
    assert not is_reserved(path)


def test_what_is_encoded_over_and_over_is_not_decoded_for_ever() -> None:
    endless = "/" + "%" + "25" * 30_000 + "63luster"
    began = time.thread_time()
    assert is_reserved(endless)
    assert time.thread_time() - began < 5, "eight rounds at most, not thirty thousand"
