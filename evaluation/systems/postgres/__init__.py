"""Postgres with pgvector behind Chroma's HTTP API: a primary, two streaming replicas, PgBouncer, failover.

filters, values, records, catalogue   Chroma's requests as SQL (the first two are pure)
connection, writing                   connections, and what a failed write may be taken for
routing                               which server takes writes and reads
api                                   the HTTP server of one node
programs, servers, source, bouncer     Postgres and PgBouncer: where they are, how they run, whom they follow
election, seen, orders, supervisor    who is promoted (pure), and the process that does it
topology, wiring, settings            who takes part, and what each process is told (pure)
observer, following, rejoining        what servers say of themselves; making an old primary follow
profiles, installation, system        the whole as a system under test
direct                                the same operations by SQL alone

Known differences from Chroma's own server
- A body that is not in Chroma's form is refused with 422 and words of our own.
- A collection's `schema` does not grow with the metadata keys of its records.
- The content type of a request is not looked at; tenants have no resource name (PATCH); no `/docs`.
- An id of a collection in braces is not read.
- Searches (`/search`), forks, attached functions and `/reset` are not there (501).
- The cosine distance from a vector of zeros is not a number here, and such vectors are not in the index.
- `$regex` is Postgres's: the classes and anchors of Rust's are translated, a negated class does not match a
  line's end. What Postgres cannot read is refused with 501.
- `where` on `chroma:document` and `chroma:uri` does not find documents and URIs.
- Distances may differ in the last bits of a 32-bit float: the sums are made in another order.
- Vectors of more than 2,000 dimensions are compared one by one: pgvector does not index them.
- A text that holds a zero character is refused with 400: Postgres does not store it.
- A query vector with an infinity in it is refused with 400.
- The metadata value -0.0 comes back as 0.0.
- A collection's `hnsw` settings are kept and shown; of them, only `space` has an effect.

Isolation is READ COMMITTED. All records of one request are written by one transaction.
"""
