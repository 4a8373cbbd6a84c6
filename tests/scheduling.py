"""xdist's scheduler of files, with the choice made by `tests/lanes.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling

from tests.lanes import choose, lane, scope_of

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController


class LaneScheduling(LoadScopeScheduling):
    """Each worker gets the files of its lane, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        # Without a file of its own kind it is asked only when there are fewer files than workers.
        file = self._choose(node) or next(iter(self.workqueue))
        self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        if self._choose(node) is None and len(self.nodes) > 1 and not node.shutting_down:
            node.shutdown()
        super()._reschedule(node)

    def _choose(self, node: WorkerController) -> str | None:
        computing = lane(node.gateway.id, map(scope_of, self.collection or ()))
        return choose([*self.workqueue], computing=computing)
