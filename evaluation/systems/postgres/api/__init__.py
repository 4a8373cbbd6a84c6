"""The API server beside each Postgres server: Chroma's routes, each done in one transaction.

A handler decodes as the cluster's own API does, works through `access`, and encodes as that does.
"""
