"""Whatever store has the vectors of a real collection, an exact search ranks them alike."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pytest
from pyroaring import BitMap64

from embedders.registry import open_embedder
from indexes.base import Metric, SearchParams, VectorBatch, VectorIndex, Vectors
from indexes.directory import LocalDirectory
from indexes.registry import open_dense
from tests.postgres import Postgres

PASSAGES: Final = 1_200
QUERIES: Final = 60
AGAIN: Final = 40
"""Passages that are there twice: their scores are ties."""
GONE: Final = np.arange(7, PASSAGES, 10)
EXACT: Final = SearchParams(exact=True)
STORES: Final = ("pgvector", "pgvector-hnsw", "qdrant_edge", "qdrant")


class Collection(NamedTuple):
    passages: Vectors
    queries: Vectors


@pytest.fixture(scope="module")
def scifact(dataset: Callable[[str], Path]) -> Collection:
    """Passages and queries of a real collection, embedded by the default model."""
    folder = dataset("scifact")

    def texts(name: str, count: int) -> list[str]:
        with gzip.open(folder / name, "rt", encoding="utf-8") as lines:
            return [json.loads(line)["text"] for line in islice(lines, count)]

    async def embed() -> Collection:
        embedder = await open_embedder("sentence_transformer", {})
        passages = await embedder.embed_passages(texts("corpus.jsonl.gz", PASSAGES))
        queries = await embedder.embed_queries(texts("queries.jsonl.gz", QUERIES))
        await embedder.close()
        return Collection(np.concatenate([passages, passages[:AGAIN]]), queries)

    return asyncio.run(embed())


@pytest.fixture
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], dict[str, object]]:
    """The options of a store, by its name."""

    def options(store: str) -> dict[str, object]:
        if store == "qdrant":
            return {"path": str(tmp_path / "local")}
        if store.startswith("pgvector"):
            server: Postgres = request.getfixturevalue("postgres_server")
            method = "hnsw" if store.endswith("hnsw") else "exact"
            return {"url": server.create_database(), "method": method}
        return {}

    return options


async def filled(kind: str, folder: Path, options: dict[str, object], collection: Collection) -> VectorIndex:
    """An index with the collection, some of which was deleted again."""
    index = await open_dense(
        kind,
        directory=LocalDirectory(folder),
        name="ragstone_agree_dense",
        dim=collection.passages.shape[1],
        metric=Metric.COSINE,
        options=options,
    )
    keys, none = np.arange(len(collection.passages)), np.empty(0, np.int64)
    await index.apply(VectorBatch(keys, collection.passages, none), seq=1)
    await index.apply(VectorBatch(none, collection.passages[:0], GONE), seq=2)
    return index


@pytest.fixture
async def flat(tmp_path: Path, scifact: Collection) -> AsyncIterator[VectorIndex]:
    index = await filled("flat", tmp_path / "flat", {}, scifact)
    yield index
    await index.close()


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("store", STORES)
async def test_an_exact_search_finds_the_same_ids_with_the_same_scores_in_every_store(
    store: str,
    places: Callable[[str], dict[str, object]],
    flat: VectorIndex,
    scifact: Collection,
    tmp_path: Path,
) -> None:
    index = await filled(store.partition("-")[0], tmp_path / "other", places(store), scifact)
    filters = (None, BitMap64(range(0, PASSAGES, 3)), BitMap64(range(100)), BitMap64(range(5, PASSAGES)))
    for allow in filters:
        expected = await flat.search(scifact.queries, 20, allow=allow, params=EXACT)
        found = await index.search(scifact.queries, 20, allow=allow, params=EXACT)
        assert found.keys.tolist() == expected.keys.tolist()
        assert np.allclose(found.scores, expected.scores, rtol=0, atol=1e-5)
    await index.close()


@pytest.mark.data
@pytest.mark.slow
async def test_the_collection_has_ties_and_holes_to_agree_on(flat: VectorIndex, scifact: Collection) -> None:
    found = await flat.search(scifact.passages[:AGAIN], 2, params=EXACT)
    assert (found.scores[:, 0] == found.scores[:, 1]).sum() > AGAIN / 2
    assert not set(GONE.tolist()) & set(found.keys.ravel().tolist())
