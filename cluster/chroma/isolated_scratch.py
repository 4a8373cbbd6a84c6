"""The Chroma that judges requests, in a process of its own: some words end the process that reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cluster.chroma.keeper import Keeper, Kept
from cluster.chroma.watchdog import Limits
from cluster.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster.state.commands import Metadata

#: Judging takes milliseconds.
_LIMITS: Final = Limits(read_limit_s=10.0)
#: It judges one request at a time; more connections would only move the line.
_READERS: Final = 1


class IsolatedScratch:
    """`cluster.chroma.interface.Judge` in a child process, which is started in the background."""

    def __init__(self) -> None:
        self._keeper = Keeper(Kept("scratch", _READERS, lambda: ("open", ())), _LIMITS)
        self._keeper.start(wait=False)

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return self._keeper.pid

    def close(self) -> None:
        """End the child; nothing can be judged afterwards."""
        self._keeper.close()

    def judge_create_collection(
        self, name: str, metadata: Metadata | None, configuration: str | None, schema: str | None
    ) -> Refusal | None:
        return self._ask("judge_create_collection", name, metadata, configuration, schema)

    def judge_update_collection(
        self,
        current: Mapping[str, Any],
        new_name: str | None,
        new_metadata: Metadata | None,
        new_configuration: str | None,
    ) -> Refusal | None:
        return self._ask("judge_update_collection", dict(current), new_name, new_metadata, new_configuration)

    def judge_create_tenant(self, name: str) -> Refusal | None:
        return self._ask("judge_create_tenant", name)

    def judge_where(self, where: str | None, where_document: str | None) -> Refusal | None:
        return self._ask("judge_where", where, where_document)

    def trial(
        self,
        configuration: str | None,
        schema: str | None,
        metadata: Metadata | None,
        change: str | None = None,
    ) -> Refusal | None:
        return self._ask("trial", configuration, schema, metadata, change)

    def _ask(self, method: str, *arguments: Any) -> Refusal | None:
        try:
            refused = self._keeper.read(method, *arguments)
        except (ValueError, OverflowError) as error:
            # What msgpack cannot carry (a lone surrogate, a number beyond 64 bits), Chroma does not take.
            return Refusal(400, "InvalidArgumentError", str(error))
        return None if refused is None else Refusal(*refused)
