"""What a person has to type for a failover and for a backup of each system, and what it costs."""

from __future__ import annotations

from typing import Any

OPERATIONS: dict[str, dict[str, Any]] = {}
