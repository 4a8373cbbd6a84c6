"""xdist's scheduler of files, with the choice made by `tests/lanes.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling

from tests.lanes import choose, scope_of

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController


class LaneScheduling(LoadScopeScheduling):
    """Each worker gets the files of its lane, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        # A worker without a file of its own kind that is given one all the same: they were all that there is.
        file = choose([*self.workqueue], node.gateway.id) or next(iter(self.workqueue))
        self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        nothing_for_it = choose([*self.workqueue], node.gateway.id) is None
        if nothing_for_it and len(self.nodes) > 1 and not node.shutting_down:
            node.shutdown()
        super()._reschedule(node)
