"""The cross-encoder: real weights that learned to rank, what its own library says, deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import BertConfig, BertForSequenceClassification

from ragstone.errors import BackendUnavailable, DeadlineExceeded, InvalidArgument
from rerankers.cross_encoder import CrossEncoderReranker, open_reranker
from tests.rerankers.train_cross_encoder import ASKS, SAME, pairs, passage


@pytest.fixture
async def reranker(cross_encoder: Path) -> AsyncIterator[CrossEncoderReranker]:
    opened = await open_reranker({"model": str(cross_encoder), "device": "cpu", "workers": 2})
    assert isinstance(opened, CrossEncoderReranker)
    yield opened
    await opened.close()


async def test_it_ranks_passages_that_it_has_not_seen(reranker: CrossEncoderReranker) -> None:
    random = Random("held out")
    for asked, told in SAME.items():
        others = [word for word in SAME.values() if word != told]
        texts = [passage(word, random) for word in [*others[:4], told, *others[4:]]]
        scores = await reranker.score(random.choice(ASKS).format(asked), texts, deadline_s=None)
        assert int(scores.argmax()) == 4, f"asked for a {asked}: {dict(zip(texts, scores, strict=True))}"


async def test_scores_are_those_of_the_library(reranker: CrossEncoderReranker, cross_encoder: Path) -> None:
    original = CrossEncoder(str(cross_encoder), device="cpu")
    texts = [pair.passage * (1 + i % 9) for i, pair in enumerate(islice(pairs(seed=1), 40))]
    query = "where is the ship ?"
    wanted = original.predict([(query, text) for text in texts], show_progress_bar=False)
    np.testing.assert_allclose(await reranker.score(query, texts, deadline_s=None), wanted, atol=1e-5)


async def test_what_cannot_be_done_in_time_is_not_begun(
    reranker: CrossEncoderReranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["on the island the vessel had no name . " * 6] * 200
    whole = await reranker.score("where is the ship ?", texts, deadline_s=None)

    def stall(tokens_per_s: float) -> None:
        reranker._tokens_per_s = 1.0

    monkeypatch.setattr(reranker, "_learn", stall)
    part = await reranker.score("where is the ship ?", texts, deadline_s=30.0)
    assert 0 < len(part) < 200
    np.testing.assert_allclose(part, whole[: len(part)], atol=1e-5)
    with pytest.raises(DeadlineExceeded, match="200 passages"):
        await reranker.score("where is the ship ?", texts, deadline_s=30.0)


async def test_a_slow_moment_does_not_close_the_door_for_ever(reranker: CrossEncoderReranker) -> None:
    reranker._tokens_per_s = 1.0
    for _ in range(500):
        try:
            scores = await reranker.score("where is the ship ?", ["the vessel"], deadline_s=1.0)
        except DeadlineExceeded:
            continue
        break
    assert len(scores) == 1


async def test_long_calls_leave_room_for_short_ones(reranker: CrossEncoderReranker) -> None:
    long = asyncio.ensure_future(reranker.score("ship", ["the vessel was old " * 20] * 1000, deadline_s=None))
    await asyncio.sleep(0.05)
    await reranker.score("ship", ["the vessel"], deadline_s=None)
    assert not long.done()
    long.cancel()


async def test_a_closed_reranker_says_so(cross_encoder: Path) -> None:
    reranker = await open_reranker({"model": str(cross_encoder), "device": "cpu"})
    running = asyncio.ensure_future(reranker.score("ship", ["the vessel " * 30] * 500, deadline_s=None))
    await asyncio.sleep(0.02)
    await reranker.close()
    for call in (running, reranker.score("ship", ["the vessel"], deadline_s=None)):
        with pytest.raises(BackendUnavailable, match="closed"):
            await call


async def test_long_texts_are_cut_where_the_recipe_says(cross_encoder: Path) -> None:
    reranker = await open_reranker({"model": str(cross_encoder), "device": "cpu", "max_tokens": 16})
    text = "in winter the vessel had no name . "
    short, long = await reranker.score("where is the ship ?", [text * 2, text * 9], deadline_s=None)
    assert short == pytest.approx(long, abs=1e-5)
    await reranker.close()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"model": "/there/is/no/such/folder"}, "recipe.reranker.model"),
        ({"model": "not a model id"}, "recipe.reranker.model"),
        ({}, "recipe.reranker.model"),
        ({"max_tokens": 4096}, "recipe.reranker.max_tokens"),
        ({"device": "abacus"}, "recipe.reranker.device"),
    ],
)
async def test_a_wrong_option_is_named(cross_encoder: Path, options: dict[str, object], field: str) -> None:
    given = {"model": str(cross_encoder), **options} if options else options
    with pytest.raises(InvalidArgument) as caught:
        await open_reranker(given)
    assert caught.value.violations[0].field == field


async def test_a_classifier_of_several_classes_is_no_reranker(cross_encoder: Path, tmp_path: Path) -> None:
    config = BertConfig.from_pretrained(cross_encoder)
    config.num_labels = 3
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((cross_encoder / name).read_bytes())
    with pytest.raises(InvalidArgument, match="3 numbers a pair"):
        await open_reranker({"model": str(tmp_path), "device": "cpu"})
