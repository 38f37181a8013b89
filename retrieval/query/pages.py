"""Page tokens: which hits a reader has already had. Pure.

A token carries the keys of all earlier hits, so that a page can leave out exactly those: no hit comes
twice and none is passed over, whatever was written in between. It is bound to its query and version.
"""

from __future__ import annotations

import base64
import hashlib

from pyroaring import BitMap64

from ragstone.errors import InvalidPageToken
from ragstone.types import Query

_DIGEST = 8
_VERSION = 4
"""Bytes of a version's id."""
MAX_SEEN = 10_000


def page_version(query: Query) -> int | None:
    """The id of the version that gave the query's page token; None without one. Raises InvalidPageToken."""
    if not query.page_token:
        return None
    return int.from_bytes(_decoded(query.page_token)[_DIGEST : _DIGEST + _VERSION], "little")


def decode_page(query: Query, version_id: int) -> BitMap64:
    """The keys of the hits that earlier pages gave.

    Raises InvalidPageToken when its token is damaged, or was given for another query or version.
    """
    if not query.page_token:
        return BitMap64()
    data = _decoded(query.page_token)
    digest, body = data[:_DIGEST], data[_DIGEST + _VERSION :]
    # The digest comes before the bitmap: only what this module wrote is ever deserialised.
    if digest != _digest(query, version_id, body):
        raise _refused("is damaged, or belongs to another query or to a version that no longer serves")
    return BitMap64.deserialize(body)


def encode_page(query: Query, version_id: int, seen: BitMap64) -> str:
    """The token for the page after those that gave ``seen``; "" when a token can hold no more."""
    if len(seen) >= MAX_SEEN:
        return ""
    body = seen.serialize()
    data = _digest(query, version_id, body) + version_id.to_bytes(_VERSION, "little") + body
    return base64.urlsafe_b64encode(data).decode()


def encode_position(document_id: str) -> str:
    """The token for the documents after ``document_id`` in a listing."""
    return base64.urlsafe_b64encode(document_id.encode()).decode()


def decode_position(token: str) -> str:
    """The id that a listing goes on after; "" at its begin. Raises InvalidPageToken."""
    try:
        return base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True).decode()
    except ValueError as exc:
        raise _refused("is damaged") from exc


def _decoded(token: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(token.encode())
    except ValueError as exc:
        raise _refused("is damaged") from exc


def _digest(query: Query, version_id: int, body: bytes) -> bytes:
    identity = repr(
        (
            version_id,
            query.text,
            query.space,
            query.mode.value,
            query.filter,
            query.language,
            query.fusion,
            query.depth,
            query.rerank,
            query.version,
        )
    )
    digest = hashlib.blake2b(identity.encode(), digest_size=_DIGEST)
    if query.vector is not None:
        digest.update(memoryview(query.vector).cast("B"))
    digest.update(body)
    return digest.digest()


def _refused(why: str) -> InvalidPageToken:
    return InvalidPageToken.at("page_token", f"{why}; start again without a page token")
