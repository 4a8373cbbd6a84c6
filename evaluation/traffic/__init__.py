"""The traffic of a run: what clients decide, how they ask, what is written down. The same everywhere."""
