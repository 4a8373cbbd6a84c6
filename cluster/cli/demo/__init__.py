"""`chroma-cluster demo`: real texts, a killed leader, and the proof that nothing was lost."""

from __future__ import annotations

from cluster.cli.demo.story import run

__all__ = ["run"]
