"""Embeddings over HTTP: the server's own vectors, and what becomes of its failures."""

import asyncio
import os
from typing import Any

import numpy as np
import pytest

from embedders.base import Embedder
from embedders.hashing import HashingEmbedder
from embedders.refusals import embed_or_refuse
from embedders.registry import open_embedder
from embedders.weights import DEFAULT_MODEL
from ragstone.errors import BackendUnavailable, FailedPrecondition, Internal, InvalidArgument, Overloaded
from tests.embedders.servers import DIM, Fault, OpenAIServer

TEXTS = ["harbour", "The harbour froze in January.", "Bees store honey.", "x " * 500, "灯台は海岸に立つ。"]
SHIPS = [f"ship number {i}" for i in range(10)]
BUSY = Fault(status=429, headers={"Retry-After": "0"})


async def opened(server: OpenAIServer, **options: Any) -> Embedder:
    """An embedder of ``server``, which then has no requests noted."""
    embedder = await open_embedder("openai_http", {"url": server.url, "model": "hashing", **options})
    server.forget()
    return embedder


# -- vectors and spaces --------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["base64", "float"])
async def test_vectors_are_the_served_models(openai_server: OpenAIServer, encoding: str) -> None:
    embedder = await opened(openai_server, encoding_format=encoding, batch_texts=2)
    wanted = await HashingEmbedder(dim=DIM).embed_passages(TEXTS)
    np.testing.assert_allclose(await embedder.embed_passages(TEXTS), wanted, atol=1e-6)
    await embedder.close()


async def test_the_space_is_what_the_recipe_says_of_the_model(openai_server: OpenAIServer) -> None:
    plain = await opened(openai_server)
    pinned = await opened(openai_server, revision="abc", max_tokens=512, query_prompt="query: ")
    space = pinned.space
    assert (space.name, space.dim, space.digest, space.max_tokens) == ("hashing", DIM, "abc", 512)
    assert plain.space.id != space.id
    await plain.close()
    await pinned.close()


async def test_prompts_go_before_queries_and_passages(openai_server: OpenAIServer) -> None:
    embedder = await opened(openai_server, query_prompt="query: ", passage_prompt="passage: ")
    await embedder.embed_queries(["harbour"])
    await embedder.embed_passages(["harbour"])
    assert openai_server.inputs == [["query: harbour"], ["passage: harbour"]]
    await embedder.close()


async def test_an_empty_text_is_sent_as_a_space_since_most_servers_refuse_it(
    openai_server: OpenAIServer,
) -> None:
    embedder = await opened(openai_server)
    await embedder.embed_queries([""])
    assert openai_server.inputs == [[" "]]
    await embedder.close()


@pytest.mark.parametrize("by_server", [False, True])
async def test_a_smaller_dimension_is_the_beginning_of_the_vector(
    openai_server: OpenAIServer, by_server: bool
) -> None:
    embedder = await opened(openai_server, dim=16, send_dimensions=by_server)
    texts = ["The harbour of Lindholm froze in January.", "Bees store honey in combs of wax."]
    got = await embedder.embed_passages(texts)
    wanted = (await HashingEmbedder(dim=DIM).embed_passages(texts))[:, :16]
    np.testing.assert_allclose(got, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-6)
    assert openai_server.requests[0].get("dimensions") == (16 if by_server else None)
    await embedder.close()


async def test_more_dimensions_than_the_server_gives_are_refused(openai_server: OpenAIServer) -> None:
    with pytest.raises(InvalidArgument, match=f"dim: the server's vectors have {DIM} numbers"):
        await opened(openai_server, dim=512)


@pytest.mark.parametrize(("options", "sent"), [({}, None), ({"too_long": "truncate"}, -1)])
async def test_the_server_truncates_where_the_recipe_says_so(
    openai_server: OpenAIServer, options: dict[str, Any], sent: int | None
) -> None:
    embedder = await opened(openai_server, **options)
    await embedder.embed_passages(["harbour"])
    assert openai_server.requests[0].get("truncate_prompt_tokens") == sent
    await embedder.close()


async def test_a_tokenizer_counts_the_models_own_tokens(openai_server: OpenAIServer) -> None:
    embedder = await opened(openai_server, tokenizer=DEFAULT_MODEL, batch_tokens=500)
    assert embedder.tokenizer is not None
    assert len(embedder.tokenizer.encode("word " * 700).ids) == 702
    await embedder.embed_passages(["word " * 700, "word " * 400, "word " * 150, "word"])
    assert sorted(map(len, openai_server.inputs)) == [1, 1, 2]
    await embedder.close()


async def test_a_tokenizer_that_is_not_there_is_refused(openai_server: OpenAIServer) -> None:
    with pytest.raises(InvalidArgument, match="tokenizer"):
        await opened(openai_server, tokenizer="./no/such/folder")


# -- batches -------------------------------------------------------------------------------------


async def test_batches_have_like_lengths_and_are_bounded_by_texts_and_tokens(
    openai_server: OpenAIServer,
) -> None:
    embedder = await opened(openai_server, batch_texts=3, batch_tokens=120, concurrency=1)
    texts = ["a", "b" * 400, "c", "d" * 300, "e" * 100, "f"]
    await embedder.embed_passages(texts)
    assert openai_server.inputs == [[texts[1]], [texts[3], texts[4], "a"], ["c", "f"]]
    await embedder.close()


async def test_a_request_that_is_too_large_for_the_server_goes_through_in_parts(
    openai_server: OpenAIServer,
) -> None:
    openai_server.max_texts = 4
    embedder = await opened(openai_server)
    wanted = await HashingEmbedder(dim=DIM).embed_passages(SHIPS)
    np.testing.assert_allclose(await embedder.embed_passages(SHIPS), wanted, atol=1e-6)
    await embedder.close()


# -- keys and names ------------------------------------------------------------------------------


async def test_the_key_comes_from_the_environment_and_stands_nowhere_else(
    openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTS_API_KEY", "s3cret")
    embedder = await opened(openai_server, api_key_env="TESTS_API_KEY")
    assert openai_server.keys == ["Bearer s3cret"]
    openai_server.always = Fault(status=401)
    with pytest.raises(BackendUnavailable, match="401") as caught:
        await embedder.embed_queries(["harbour"])
    assert "s3cret" not in f"{caught.value} {embedder.space}"
    await embedder.close()


async def test_a_key_that_is_not_set_is_said_to_be_missing(openai_server: OpenAIServer) -> None:
    assert "NOBODYS_API_KEY" not in os.environ
    with pytest.raises(FailedPrecondition, match="NOBODYS_API_KEY is not set"):
        await opened(openai_server, api_key_env="NOBODYS_API_KEY")


@pytest.mark.parametrize(
    ("status", "error", "field"),
    [
        (401, FailedPrecondition, "recipe.embedder.api_key_env"),
        (403, FailedPrecondition, "recipe.embedder.api_key_env"),
        (404, FailedPrecondition, "recipe.embedder.model"),
        (400, InvalidArgument, "recipe.embedder"),
    ],
)
async def test_a_server_that_refuses_everything_is_not_opened(
    openai_server: OpenAIServer, status: int, error: type[FailedPrecondition], field: str
) -> None:
    openai_server.always = Fault(status=status)
    with pytest.raises(error) as caught:
        await opened(openai_server)
    assert [violation.field for violation in caught.value.violations] == [field]


async def test_a_server_that_is_not_there_is_unavailable(openai_server: OpenAIServer) -> None:
    openai_server.close()
    with pytest.raises(BackendUnavailable, match="is not there"):
        await opened(openai_server, retries=1)


# -- refused texts -------------------------------------------------------------------------------


async def test_a_text_that_the_server_refuses_is_named_by_its_position(openai_server: OpenAIServer) -> None:
    embedder = await opened(openai_server, batch_texts=4)
    openai_server.model.refuses = lambda text: text == SHIPS[7]
    with pytest.raises(InvalidArgument, match="maximum context length") as caught:
        await embedder.embed_passages(SHIPS)
    assert [violation.field for violation in caught.value.violations] == ["texts[7]"]
    await embedder.close()


@pytest.mark.parametrize("rule", ["refuses", "breaks_on"])
async def test_a_text_that_fails_takes_no_other_with_it(openai_server: OpenAIServer, rule: str) -> None:
    embedder = await opened(openai_server)
    setattr(openai_server.model, rule, lambda text: text == SHIPS[7])
    outcomes = await embed_or_refuse(embedder.embed_passages, SHIPS)
    assert [i for i, outcome in enumerate(outcomes) if isinstance(outcome, str)] == [7]
    await embedder.close()


# -- a server that is busy, or away ----------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        BUSY,
        Fault(status=503, headers={"Retry-After": "0"}),
        Fault(status=502),
        Fault(status=504),
        Fault(cut=True),
    ],
    ids=["429", "503", "502", "504", "cut"],
)
async def test_what_passes_is_tried_again(openai_server: OpenAIServer, fault: Fault) -> None:
    embedder = await opened(openai_server)
    openai_server.faults.extend([fault, fault])
    assert (await embedder.embed_queries(["harbour"])).shape == (1, DIM)
    assert len(openai_server.requests) == 3
    await embedder.close()


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_stays_busy_is_overloaded(openai_server: OpenAIServer, status: int) -> None:
    embedder = await opened(openai_server, retries=2)
    openai_server.always = Fault(status=status, headers={"Retry-After": "0"})
    with pytest.raises(Overloaded, match=str(status)):
        await embedder.embed_queries(["harbour"])
    assert len(openai_server.requests) == 3
    await embedder.close()


async def test_a_long_pause_is_kept_and_passed_on_to_the_caller(openai_server: OpenAIServer) -> None:
    embedder = await opened(openai_server, patience_s=5)
    openai_server.faults.append(Fault(status=429, headers={"Retry-After": "600"}))
    for _ in range(3):
        with pytest.raises(Overloaded) as caught:
            await embedder.embed_queries(["harbour"])
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s > 500
    assert len(openai_server.requests) == 1
    await embedder.close()


async def test_a_server_that_hangs_is_given_up_and_asked_again_by_the_next_call(
    openai_server: OpenAIServer,
) -> None:
    embedder = await opened(openai_server, timeout_s=0.2)
    openai_server.faults.append(Fault(hang=True))
    with pytest.raises(BackendUnavailable, match="in time"):
        await embedder.embed_queries(["harbour"])
    assert (await embedder.embed_queries(["harbour"])).shape == (1, DIM)
    await embedder.close()


async def test_a_server_that_does_not_answer_is_left_alone(openai_server: OpenAIServer) -> None:
    embedder = await opened(openai_server, retries=0, failures=3, open_s=600)
    openai_server.always = Fault(status=502)
    for _ in range(6):
        with pytest.raises(BackendUnavailable, match="502"):
            await embedder.embed_queries(["harbour"])
    assert len(openai_server.requests) == 3
    await embedder.close()


async def test_a_server_that_is_back_is_used_again(openai_server: OpenAIServer) -> None:
    embedder = await opened(openai_server, retries=0, failures=1, open_s=0.01)
    openai_server.faults.append(Fault(status=502))
    with pytest.raises(BackendUnavailable):
        await embedder.embed_queries(["harbour"])
    await asyncio.sleep(0.02)
    assert (await embedder.embed_queries(["harbour"])).shape == (1, DIM)
    await embedder.close()


# -- a server that lies ----------------------------------------------------------------------------

LIES = {
    "500": Fault(status=500),
    "wrong count": Fault(spoil=lambda rows: rows[:-1]),
    "wrong dimension": Fault(spoil=lambda rows: rows[:, :-1]),
    "ragged": Fault(body=b'{"data": [{"index": 0, "embedding": [1, 2]}, {"index": 1, "embedding": [1]}]}'),
    "not finite": Fault(spoil=lambda rows: rows * np.nan),
    "null": Fault(
        body=b'{"data": [{"index": 0, "embedding": [null, 1]}, {"index": 1, "embedding": [1, 1]}]}'
    ),
    "zero": Fault(spoil=lambda rows: rows * 0),
    "not JSON": Fault(body=b"<html>"),
    "another answer": Fault(body=b'{"object": "list"}'),
    "broken base64": Fault(
        body=b'{"data": [{"index": 0, "embedding": "a"}, {"index": 1, "embedding": "b"}]}'
    ),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_wrong_answer_is_an_error_and_the_next_call_succeeds(
    openai_server: OpenAIServer, lie: Fault
) -> None:
    embedder = await opened(openai_server)
    openai_server.faults.append(lie)
    with pytest.raises(Internal):
        await embedder.embed_passages(["harbour", "bridge"])
    assert (await embedder.embed_passages(["harbour", "bridge"])).shape == (2, DIM)
    await embedder.close()


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_server_that_answers_nothing_right_is_away_so_that_no_text_is_blamed(
    openai_server: OpenAIServer, lie: Fault
) -> None:
    embedder = await opened(openai_server)
    openai_server.always = lie
    with pytest.raises(BackendUnavailable):
        await embedder.embed_passages(["harbour", "bridge"])
    await embedder.close()


async def test_another_model_under_the_same_name_is_noticed_when_the_server_comes_back(
    openai_server: OpenAIServer,
) -> None:
    embedder = await opened(openai_server, retries=0)
    openai_server.faults.append(Fault(cut=True))
    openai_server.model.salt = "another model "
    with pytest.raises(BackendUnavailable, match="is not there"):
        await embedder.embed_queries(["harbour"])
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="other vectors than before"):
            await embedder.embed_queries(["harbour"])
    openai_server.model.salt = ""
    assert (await embedder.embed_queries(["harbour"])).shape == (1, DIM)
    await embedder.close()


async def test_another_model_is_noticed_without_a_failure_too(
    openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedders.remote.embedder._LOOK_AGAIN_S", 0.0)
    embedder = await opened(openai_server)
    openai_server.model.salt = "another model "
    with pytest.raises(BackendUnavailable, match="other vectors than before"):
        await embedder.embed_queries(["harbour"])
    await embedder.close()


async def test_closing_waits_for_what_was_accepted(openai_server: OpenAIServer) -> None:
    embedder = await opened(openai_server)
    call = asyncio.create_task(embedder.embed_passages(SHIPS))
    await asyncio.sleep(0)
    await embedder.close()
    assert (await call).shape == (len(SHIPS), DIM)
    with pytest.raises(BackendUnavailable, match="closed"):
        await embedder.embed_queries(["harbour"])
