from collections.abc import Callable
from typing import Any, Protocol

from .config import FAIL_REASON as FAIL_REASON
from .config import SyncObjConf as SyncObjConf
from .node import Node as Node
from .syncobj import SyncObj as SyncObj
from .transport import Transport as Transport

class _Put(Protocol):
    def __call__(self, payload: bytes, *, callback: Callable[[None, int], None] | None = ...) -> None: ...

# As evaluation/raft/stock.py uses it: on a method that takes one payload.
def replicated(func: Callable[[Any, bytes], None]) -> _Put: ...
