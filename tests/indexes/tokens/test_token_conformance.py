"""Every token index passes every conformance check, and what LMDB's own must do beyond them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexes.base import TokenIndex
from indexes.directory import LocalDirectory
from indexes.registry import TOKENS, open_tokens
from indexes.tokens.conformance import DIM, TOKEN_INDEX_CHECKS, Check, batch, max_sim, tokens
from indexes.tokens.lmdb_tokens import open_index
from ragstone.errors import CorruptIndex, FailedPrecondition, InvalidArgument


@pytest.mark.parametrize("check", TOKEN_INDEX_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", TOKENS)
async def test_token_index(kind: str, check: Check, tmp_path: Path) -> None:
    async def opener() -> TokenIndex:
        directory = LocalDirectory(tmp_path / "index")
        return await open_tokens(kind, directory=directory, dim=DIM, options={"keep": 1.0})

    await check(opener)


async def test_fewer_numbers_are_kept_once_enough_tokens_were_seen(tmp_path: Path) -> None:
    index = await open_index(directory=LocalDirectory(tmp_path), dim=DIM, options={"dim": 8, "keep": 1.0})
    # All that can be told of these lies in eight directions.
    directions = np.linalg.qr(tokens(0, length=DIM))[0][:8]
    flat = {}
    for key in range(30):
        drawn = np.random.default_rng(key).standard_normal((1_000, 8)).astype(np.float32) @ directions
        flat[key] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    early = {key: flat[key] for key in range(25)}
    await index.apply(batch(early), seq=1)
    assert index.stats().details["dim"] == DIM
    await index.checkpoint()
    assert index.stats().details["dim"] == 8
    await index.apply(batch({key: flat[key] for key in range(25, 30)}), seq=2)
    query = flat[27][:20]
    scores = await max_sim(index, query, [3, 27, 28])
    truth = [np.mean((query @ flat[key].T).max(axis=1)) for key in (3, 27, 28)]
    np.testing.assert_allclose(scores, truth, atol=0.02)
    await index.close()


async def test_passages_from_before_the_choice_take_no_more_room_than_those_after(tmp_path: Path) -> None:
    sizes = []
    for width in (8, DIM):
        folder = LocalDirectory(tmp_path / str(width))
        index = await open_index(directory=folder, dim=DIM, options={"dim": width, "keep": 1.0})
        await index.apply(batch({key: tokens(key, length=1_000) for key in range(25)}), seq=1)
        await index.checkpoint()
        sizes.append(index.stats().bytes_on_disk)
        await index.close()
    assert sizes[0] < 0.7 * sizes[1]


async def test_joined_tokens_take_less_room_and_change_scores_little(tmp_path: Path) -> None:
    sizes, scores = [], []
    for share in (1.0, 0.34):
        folder = LocalDirectory(tmp_path / str(share))
        index = await open_index(directory=folder, dim=DIM, options={"keep": share})
        # Each token three times, as good as.
        often = np.repeat(tokens(1, length=20), 3, axis=0) + 0.01 * tokens(2, length=60)
        passages = dict.fromkeys(range(200), often)
        await index.apply(batch(passages), seq=1)
        await index.checkpoint()
        sizes.append(index.stats().bytes_on_disk)
        scores.append((await max_sim(index, tokens(1, length=20), [0]))[0])
        await index.close()
    assert sizes[1] < 0.6 * sizes[0]
    assert scores[1] == pytest.approx(scores[0], abs=0.02)


async def test_a_flipped_byte_is_found_when_the_passage_is_asked_for(tmp_path: Path) -> None:
    index = await open_index(directory=LocalDirectory(tmp_path), dim=DIM, options={})
    await index.apply(batch({key: tokens(key, length=200) for key in range(50)}), seq=1)
    await index.checkpoint()
    await index.close()
    file = tmp_path / "lmdb" / "data.mdb"
    data = bytearray(file.read_bytes())
    for place in range(3 * 4096 + 200, len(data), 4096):
        data[place] ^= 0xFF
    file.write_bytes(bytes(data))
    with pytest.raises(CorruptIndex):
        index = await open_index(directory=LocalDirectory(tmp_path), dim=DIM, options={})
        try:
            await max_sim(index, tokens(0), list(range(50)))
        finally:
            assert index.stats().damage
            await index.close()


async def test_a_model_with_other_tokens_needs_another_index(tmp_path: Path) -> None:
    index = await open_index(directory=LocalDirectory(tmp_path), dim=DIM, options={})
    await index.apply(batch({1: tokens(1)}), seq=1)
    await index.checkpoint()
    await index.close()
    with pytest.raises(CorruptIndex, match="vectors of 32 numbers, not 64"):
        await open_index(directory=LocalDirectory(tmp_path), dim=64, options={})


async def test_two_cannot_have_it_open(tmp_path: Path) -> None:
    index = await open_index(directory=LocalDirectory(tmp_path), dim=DIM, options={})
    with pytest.raises(FailedPrecondition):
        await open_index(directory=LocalDirectory(tmp_path), dim=DIM, options={})
    await index.close()
    await (await open_index(directory=LocalDirectory(tmp_path), dim=DIM, options={})).close()


@pytest.mark.parametrize("options", [{"dim": 4}, {"keep": 0}, {"keep": 1.5}, {"width": 3}])
async def test_wrong_options_are_named(options: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as raised:
        await open_index(directory=LocalDirectory(tmp_path), dim=DIM, options=options)
    assert raised.value.violations[0].field == f"recipe.tokens.{next(iter(options))}"
