"""Collections moved from one Chroma to another, exactly, in a way that can be interrupted.

A directory is served by a `chroma run` of its own (a source's copy, never the source), so that whatever is
moved, in or out, goes from one HTTP server to another; see docs/migration.md.
"""
