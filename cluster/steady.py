"""The clock by which a node tells how long ago something was."""

from __future__ import annotations

import time
from typing import Final

_BOOT_CLOCK: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)


def steady_s() -> float:
    """Seconds that only go forward, whatever is done to the wall clock.

    Unlike `time.monotonic` they go on while the machine is suspended, where the system has such a clock
    (Linux): a node that slept for an hour must know that what it heard before is an hour old.
    """
    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)
