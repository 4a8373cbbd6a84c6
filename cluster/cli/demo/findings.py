"""What the demo found out, and whether that is good. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.cli.demo.compare import Digest
    from cluster.cli.demo.ledger import Difference


@dataclass
class Findings:
    """What the summary says."""

    acknowledged: int = 0
    lost: list[str] = field(default_factory=list[str])
    pause_s: float | None = None
    caught_up_s: float = 0.0
    digests: dict[str, Digest] = field(default_factory=dict[str, "Digest"])
    differing: list[Difference] = field(default_factory=list["Difference"])
    killed: str = ""

    @property
    def good(self) -> bool:
        """Nothing lost, nothing different, and something was looked at."""
        return self.acknowledged > 0 and not self.lost and not self.differing and len(self.digests) > 1
