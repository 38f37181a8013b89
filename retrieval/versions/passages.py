"""What the embedder reads of a chunk, and the content address of its vector. Pure."""

from __future__ import annotations

import hashlib


def passage_text(title: str, text: str) -> str:
    """The chunk as it is embedded: its document's title, then its text."""
    return f"{title} {text}" if title else text


def text_hash(passage: str) -> bytes:
    """16 bytes that stand for a passage in the embeddings table, whatever document it came from."""
    return hashlib.blake2b(passage.encode(), digest_size=16).digest()


def vector_hash(vector: bytes) -> bytes:
    """16 bytes that stand for a vector that a client brought: it is its own content."""
    return hashlib.blake2b(vector, digest_size=16, person=b"vector").digest()
