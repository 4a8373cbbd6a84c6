"""Chroma's routes, and who handles each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from evaluation.systems.postgres.api import about

if TYPE_CHECKING:
    from evaluation.systems.postgres.api.catalogue_handlers import CatalogueHandlers
    from evaluation.systems.postgres.api.exchange import Handler
    from evaluation.systems.postgres.api.record_handlers import RecordHandlers

_TENANTS: Final = "/api/v2/tenants"
_DATABASES: Final = f"{_TENANTS}/{{tenant}}/databases"
_DATABASE: Final = f"{_DATABASES}/{{database}}"
_COLLECTIONS: Final = f"{_DATABASE}/collections"
_COLLECTION: Final = f"{_COLLECTIONS}/{{collection_id}}"


def routes(catalogue: CatalogueHandlers, records: RecordHandlers) -> list[tuple[str, str, Handler]]:
    """Method, path and handler of each."""
    return [
        ("GET", "/api/v2", about.heartbeat),
        ("GET", "/api/v2/heartbeat", about.heartbeat),
        ("GET", "/api/v2/healthcheck", about.healthcheck),
        ("GET", "/api/v2/version", about.version),
        ("GET", "/api/v2/pre-flight-checks", about.pre_flight_checks),
        ("GET", "/api/v2/auth/identity", about.identity),
        ("POST", "/api/v2/reset", about.missing),
        ("POST", _TENANTS, catalogue.create_tenant),
        ("GET", f"{_TENANTS}/{{tenant_name}}", catalogue.get_tenant),
        ("GET", _DATABASES, catalogue.list_databases),
        ("POST", _DATABASES, catalogue.create_database),
        ("GET", _DATABASE, catalogue.get_database),
        ("DELETE", _DATABASE, catalogue.delete_database),
        ("POST", _COLLECTIONS, catalogue.create_collection),
        ("GET", _COLLECTIONS, catalogue.list_collections),
        ("GET", f"{_DATABASE}/collections_count", catalogue.count_collections),
        ("GET", f"{_COLLECTIONS}/by-id/{{collection_id}}", catalogue.get_collection_by_id),
        ("GET", _COLLECTION, catalogue.get_collection),
        ("PUT", _COLLECTION, catalogue.update_collection),
        ("DELETE", _COLLECTION, catalogue.delete_collection),
        ("POST", f"{_COLLECTION}/add", records.add),
        ("POST", f"{_COLLECTION}/upsert", records.upsert),
        ("POST", f"{_COLLECTION}/update", records.update),
        ("POST", f"{_COLLECTION}/delete", records.delete),
        ("POST", f"{_COLLECTION}/get", records.get),
        ("POST", f"{_COLLECTION}/query", records.query),
        ("GET", f"{_COLLECTION}/count", records.count),
        ("POST", f"{_COLLECTION}/search", about.missing),
        ("POST", f"{_COLLECTION}/fork", about.missing),
    ]
