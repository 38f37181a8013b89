"""TEI's gRPC service: what its server tells of itself, and what its statuses mean."""

from typing import Any

import numpy as np
import pytest
from grpc import StatusCode

from embedders.base import Embedder
from embedders.hashing import HashingEmbedder
from embedders.refusals import embed_or_refuse
from embedders.registry import open_embedder
from embedders.remote._tei import tei_pb2
from ragstone.errors import BackendUnavailable, FailedPrecondition, Internal, InvalidArgument, Overloaded
from tests.embedders.servers import DIM, TeiServer

SHIPS = [f"ship number {i}" for i in range(10)]


async def opened(server: TeiServer, **options: Any) -> Embedder:
    return await open_embedder("tei", {"address": server.address, **options})


async def test_vectors_are_the_served_models(tei_server: TeiServer) -> None:
    embedder = await opened(tei_server)
    wanted = await HashingEmbedder(dim=DIM).embed_passages(SHIPS)
    np.testing.assert_allclose(await embedder.embed_passages(SHIPS), wanted, atol=1e-6)
    np.testing.assert_allclose(await embedder.embed_queries(SHIPS[:1]), wanted[:1], atol=1e-6)
    await embedder.close()


async def test_the_space_is_what_the_server_tells(tei_server: TeiServer) -> None:
    embedder = await opened(tei_server)
    space = embedder.space
    assert (space.name, space.dim, space.digest, space.max_tokens) == ("hashing", DIM, "c0ffee", 512)
    await embedder.close()


async def test_other_weights_are_another_space(tei_server: TeiServer) -> None:
    one = await opened(tei_server)
    tei_server.info.model_sha = "decaf"
    other = await opened(tei_server)
    assert one.space.id != other.space.id
    await one.close()
    await other.close()


async def test_where_the_server_knows_no_revision_the_recipe_may_tell_it(tei_server: TeiServer) -> None:
    tei_server.info.ClearField("model_sha")
    embedder = await opened(tei_server, revision="mine")
    assert embedder.space.digest == "mine"
    await embedder.close()


@pytest.mark.parametrize("option", ["model", "revision"])
async def test_a_server_with_another_model_than_the_recipes_is_refused(
    tei_server: TeiServer, option: str
) -> None:
    with pytest.raises(FailedPrecondition, match=f"{option}: is 'mine'; the server has"):
        await opened(tei_server, **{option: "mine"})


async def test_a_server_of_rerankers_is_refused(tei_server: TeiServer) -> None:
    tei_server.info.model_type = tei_pb2.MODEL_TYPE_RERANKER
    with pytest.raises(FailedPrecondition, match="no embedding model"):
        await opened(tei_server)


async def test_the_key_is_shown_to_the_server(tei_server: TeiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    tei_server.key = "s3cret"
    with pytest.raises(FailedPrecondition, match="api_key_env"):
        await opened(tei_server)
    monkeypatch.setenv("TEI_API_KEY", "s3cret")
    embedder = await opened(tei_server, api_key_env="TEI_API_KEY")
    assert (await embedder.embed_queries(["harbour"])).shape == (1, DIM)
    await embedder.close()


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(BackendUnavailable, match="UNAVAILABLE"):
        await open_embedder("tei", {"address": "127.0.0.1:1", "retries": 0})


@pytest.mark.parametrize("status", [StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED])
async def test_what_passes_is_tried_again(
    tei_server: TeiServer, status: StatusCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedders.tei._BUSY_S", 0.01)
    embedder = await opened(tei_server)
    for texts in (["harbour"], SHIPS):
        tei_server.faults.extend([status, status])
        assert len(await embedder.embed_passages(texts)) == len(texts)
    await embedder.close()


@pytest.mark.parametrize(
    ("status", "error"),
    [(StatusCode.UNAVAILABLE, BackendUnavailable), (StatusCode.RESOURCE_EXHAUSTED, Overloaded)],
)
async def test_what_does_not_pass_is_told(
    tei_server: TeiServer, status: StatusCode, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedders.tei._BUSY_S", 0.01)
    embedder = await opened(tei_server, retries=1)
    tei_server.faults.extend([status, status])
    with pytest.raises(error, match=status.name):
        await embedder.embed_queries(["harbour"])
    await embedder.close()


async def test_a_text_that_is_too_long_is_named_by_its_position(tei_server: TeiServer) -> None:
    embedder = await opened(tei_server, batch_texts=4)
    tei_server.model.refuses = lambda text: text == SHIPS[7]
    with pytest.raises(InvalidArgument, match="less than 512 tokens") as caught:
        await embedder.embed_passages(SHIPS)
    assert [violation.field for violation in caught.value.violations] == ["texts[7]"]
    await embedder.close()


async def test_a_text_that_is_too_long_is_cut_where_the_recipe_says_so(tei_server: TeiServer) -> None:
    embedder = await opened(tei_server, too_long="truncate")
    tei_server.model.refuses = lambda text: text == SHIPS[7]
    assert (await embedder.embed_passages(SHIPS)).shape == (len(SHIPS), DIM)
    await embedder.close()


async def test_a_text_that_its_model_fails_on_takes_no_other_with_it(tei_server: TeiServer) -> None:
    embedder = await opened(tei_server)
    tei_server.model.breaks_on = lambda text: text == SHIPS[7]
    with pytest.raises(Internal, match="FAILED_PRECONDITION"):
        await embedder.embed_queries([SHIPS[7]])
    outcomes = await embed_or_refuse(embedder.embed_passages, SHIPS)
    assert [i for i, outcome in enumerate(outcomes) if isinstance(outcome, str)] == [7]
    await embedder.close()


async def test_a_model_that_fails_on_everything_is_away(tei_server: TeiServer) -> None:
    embedder = await opened(tei_server)
    tei_server.model.breaks_on = lambda text: True
    with pytest.raises(BackendUnavailable, match="FAILED_PRECONDITION"):
        await embedder.embed_passages(SHIPS)
    await embedder.close()
