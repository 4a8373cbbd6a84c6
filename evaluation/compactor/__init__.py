"""The lock-and-snapshot compactor: workers take a lock, download a snapshot, apply changes, upload it.

What people build from object storage and one writer at a time. Here with real worker processes, a real
Chroma directory as the snapshot, and a real server that speaks S3 over HTTP, in three variants that differ
only in the last step, the move of the pointer to the new snapshot: see `Variant`.
"""
