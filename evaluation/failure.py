"""What every part of the evaluation raises when it cannot measure."""

from __future__ import annotations


class SystemFailure(Exception):
    """The system could not be brought to a measurable state: an error of the run, not a finding."""
