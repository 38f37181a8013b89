"""The two shapes of ``POST /rerank`` that servers speak: what is asked, and how answers are read. Pure.

``tei``: Hugging Face's text-embeddings-inference; ``texts``, and a list of ``{index, score}`` back.
``cohere``: Cohere, Jina, vLLM; ``documents``, and as ``results`` a list of ``{index, relevance_score}`` back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np

from ragstone.errors import BackendUnavailable
from rerankers.base import Scores

Style = Literal["tei", "cohere"]

_ANSWERS: Final[Mapping[Style, str]] = {"tei": "score", "cohere": "relevance_score"}


def request(style: Style, query: str, texts: Sequence[str], *, model: str | None) -> dict[str, Any]:
    """The body of a request. TEI cuts what is too long, and has one model only."""
    if style == "tei":
        return {"query": query, "texts": list(texts), "truncate": True}
    named = {} if model is None else {"model": model}
    return {**named, "query": query, "documents": list(texts), "top_n": len(texts)}


def scores(style: Style, answer: Any, n: int) -> Scores:
    """Float32 ``(n,)`` in the order of the texts; an answer has them in that of their scores.

    Raises BackendUnavailable unless every text has exactly one finite score.
    """
    try:
        rows = answer if style == "tei" else answer["results"]
        found = {int(row["index"]): float(row[_ANSWERS[style]]) for row in rows}
        if len(rows) != n or sorted(found) != list(range(n)):
            raise ValueError(f"it has indices {sorted(found)[:5]}... for {n} texts")
        row = np.array([found[i] for i in range(n)], np.float32)
    except (KeyError, TypeError, ValueError) as exc:
        why = f"no {exc}" if isinstance(exc, KeyError) else str(exc)
        raise BackendUnavailable(f"the answer is not a {style} server's: {why}") from exc
    if not np.isfinite(row).all():
        raise BackendUnavailable("the reranking server gave a score that is not finite")
    return row
