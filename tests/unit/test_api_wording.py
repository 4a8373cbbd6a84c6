"""Which target is asked of an empty Chroma in place of the client's."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from cluster.api.request import Request
from cluster.api.routes import match
from cluster.api.wording import oracle_target


def request(path: str, query: str = "", **parameters: str) -> Request:
    found = match(path)
    assert found is not None
    headers = CIMultiDictProxy(CIMultiDict({"Content-Type": "application/json"}))
    return Request("POST", path, query, found.route, {**found.raw, **parameters}, headers, b"{}")


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        (request("/api/v2/tenants"), "/api/v2/tenants"),
        (
            request("/api/v2/tenants/t/databases", "limit=x"),
            "/api/v2/tenants/default_tenant/databases?limit=x",
        ),
        (
            request("/api/v2/tenants/t/databases/mine/collections"),
            "/api/v2/tenants/default_tenant/databases/default_database/collections",
        ),
        # Too short and with a topology are refused for what they are, so they are shown as they are.
        (request("/api/v2/tenants/t/databases/d"), "/api/v2/tenants/default_tenant/databases/d"),
        (
            request("/api/v2/tenants/t/databases/x", database="eu+mine"),
            "/api/v2/tenants/default_tenant/databases/eu%2Bmine",
        ),
        (
            request("/api/v2/tenants/t/databases/mine/collections/c/add", collection_id="a/b"),
            "/api/v2/tenants/default_tenant/databases/default_database/collections/a%2Fb/add",
        ),
    ],
)
def test_what_exists_here_is_replaced_by_what_exists_there(asked: Request, target: str) -> None:
    assert oracle_target(asked) == target


def test_a_collection_of_the_oracles_own() -> None:
    asked = request("/api/v2/tenants/t/databases/mine/collections/c/add")
    there = "/api/v2/tenants/default_tenant/databases/default_database/collections"
    assert oracle_target(asked, "fresh") == f"{there}/fresh/add"


def test_a_request_gets_a_header_and_stays_what_it_was() -> None:
    asked = request("/api/v2/tenants")
    keyed = asked.with_header("Idempotency-Key", "one")
    assert (keyed.headers["idempotency-key"], keyed.headers["content-type"]) == ("one", "application/json")
    assert "Idempotency-Key" not in asked.headers
