"""All systems under test by name; each is imported when it is made, so that none depends on another."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from evaluation.systems.interface import System


def lazily(module: str, factory: str, **arguments: Any) -> Callable[[], System]:
    """A factory that imports `evaluation.systems.MODULE` when it is called."""

    def make() -> System:
        system: System = getattr(import_module(f"evaluation.systems.{module}"), factory)(**arguments)
        return system

    return make


#: name -> factory of a fresh, unstarted system.
SYSTEMS: dict[str, Callable[[], System]] = {
    "single": lazily("single", "Single"),
    "cluster": lazily("cluster", "Cluster"),
    "cluster-5": lazily("cluster", "Cluster", nodes=5),
    "naive-lww": lazily("naive.system", "Naive", strategy="lww"),
    "naive-vector-clock": lazily("naive.system", "Naive", strategy="vector-clock"),
    "naive-crdt": lazily("naive.system", "Naive", strategy="crdt"),
    "naive-manual": lazily("naive.system", "Naive", strategy="manual"),
    "shared-dir": lazily("shared_dir", "SharedDir"),
    "postgres-async": lazily("postgres.system", "Postgres", profile="postgres-async"),
    "postgres-async-unfenced": lazily("postgres.system", "Postgres", profile="postgres-async-unfenced"),
    "postgres-quorum": lazily("postgres.system", "Postgres", profile="postgres-quorum"),
    "postgres-all": lazily("postgres.system", "Postgres", profile="postgres-all"),
    "postgres-patroni": lazily("postgres.patroni", "Patroni"),
}
