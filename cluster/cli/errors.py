"""What keeps the command line from doing as it is told; the messages say what to do."""

from __future__ import annotations

from cluster.errors import ClusterError


class LayoutError(ClusterError):
    """The data directory cannot be used as asked; the message says what to do."""

    error = "DataDirectoryError"


class StartError(ClusterError):
    """A process cannot be started; the message says why and what was (not) started."""

    error = "StartError"
