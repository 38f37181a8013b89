"""``--index``: the dense index by its kind, or by the address of the store that is to have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import typer

KINDS: Final = ("auto", "flat", "hnsw", "ivf_flat", "ivf_pq", "cagra", "qdrant_edge")
"""The kinds that need no address."""
PGVECTOR: Final = (
    *("method", "metric", "storage", "m", "ef_construction", "ef_search", "lists", "probes"),
    *("password_env", "pool", "timeout_s", "connect_timeout_s", "build_memory_mb", "build_workers"),
)
"""What an address may say about an index in PostgreSQL; all else in it belongs to libpq's URL."""
QDRANT: Final = (
    *("metric", "m", "ef_construct", "ef_search", "quantization", "rescore", "oversampling", "on_disk"),
    *("api_key_env", "grpc_port", "shard_number", "replication_factor", "write_consistency_factor"),
    *("batch", "timeout_s", "failures", "open_s"),
)
"""What an address may say about an index in Qdrant."""

IndexOption = Annotated[
    str | None,
    typer.Option(
        "--index",
        metavar="KIND|ADDRESS",
        show_default=False,
        help=f"The dense index: {', '.join(KINDS)}; or in PostgreSQL, at an address such as "
        "'pgvector://user@host:5432/db?method=hnsw&ef_search=100', with the index's own options and those of "
        "libpq (a password is left to PGPASSFILE, or to the variable that password_env=NAME names); or in "
        "Qdrant, 'qdrant://host:6333?shard_number=4' (qdrants:// for TLS; api_key_env=NAME for a key).",
    ),
]


def index_section(text: str) -> dict[str, Any]:
    """The recipe's ``index`` section. Raises ``typer.BadParameter`` for what is neither kind nor address."""
    if text in KINDS:
        return {"kind": text}
    if text.startswith("pgvector://"):
        return {"kind": "pgvector", **_address(text, "postgresql", PGVECTOR)}
    for scheme, of_url in (("qdrant", "http"), ("qdrants", "https")):
        if text.startswith(f"{scheme}://"):
            return {"kind": "qdrant", **_address(text, of_url, QDRANT)}
    raise typer.BadParameter(
        f"{text!r} is not one of {', '.join(KINDS)}, nor an address: pgvector://user@host:port/database or "
        "qdrant://host:port",
        param_hint="--index",
    )


def _address(text: str, scheme: str, options: tuple[str, ...]) -> Mapping[str, Any]:
    """The options that stand in an address's query, and the ``url`` that is left without them."""
    parts = urlsplit(text)
    query = parse_qsl(parts.query, keep_blank_values=True)
    given = {name: value for name, value in query if name in options}
    # libpq takes a plus sign for itself, and not for a space.
    rest = urlencode([(name, value) for name, value in query if name not in options]).replace("+", "%20")
    return {"url": urlunsplit(parts._replace(scheme=scheme, query=rest)), **given}
