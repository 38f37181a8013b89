"""A dense index in PostgreSQL, with the extension pgvector: one table for each index."""

from indexes.dense.pgvector.index import PgvectorIndex, drop_index, open_index

__all__ = ["PgvectorIndex", "drop_index", "open_index"]
