"""Three real processes with nothing but the replicated log: measured (`bench`), and struck by tests."""
