from collections.abc import Callable

class FAIL_REASON:
    SUCCESS: int

class SyncObjConf:
    def __init__(
        self,
        *,
        autoTick: bool = ...,
        raftMinTimeout: float = ...,
        raftMaxTimeout: float = ...,
        appendEntriesPeriod: float = ...,
        connectionTimeout: float = ...,
        leaderFallbackTimeout: float = ...,
        appendEntriesUseBatch: bool = ...,
        onStateChanged: Callable[[int, int], None] | None = ...,
        useFork: bool = ...,
        pollerType: str = ...,
        journalFile: str | None = ...,
    ) -> None: ...
