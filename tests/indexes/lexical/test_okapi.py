"""What is the reference's own: its checkpoint file and its options."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexes.directory import LocalDirectory
from indexes.lexical import okapi
from indexes.lexical.conformance import ENGLISH, batch, hits
from ragstone.errors import CorruptIndex, InvalidArgument


async def test_what_was_not_checkpointed_is_left_to_the_journal(tmp_path: Path) -> None:
    directory = LocalDirectory(tmp_path)
    index = await okapi.open_index(directory=directory, options={})
    await index.apply(batch({1: ENGLISH[0]}), seq=1)
    await index.checkpoint()
    await index.apply(batch({2: ENGLISH[1]}), seq=2)
    await index.close()
    reopened = await okapi.open_index(directory=directory, options={})
    assert reopened.applied_seq == 1
    assert hits(await reopened.search("blood", 5)) == [1]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"seq": 1, "texts": [[1]]}'])
async def test_a_damaged_checkpoint_is_reported(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "okapi.json").write_bytes(content)
    with pytest.raises(CorruptIndex):
        await okapi.open_index(directory=LocalDirectory(tmp_path), options={})


async def test_a_term_in_most_documents_never_counts_against_them(tmp_path: Path) -> None:
    index = await okapi.open_index(directory=LocalDirectory(tmp_path), options={})
    await index.apply(batch({1: "violin", 2: "violin", 3: "violin heart"}), seq=1)
    found = await index.search("violin", 3)
    assert (found.scores > 0).all()


@pytest.mark.parametrize("options", [{"b": 1.5}, {"k1": -1}, {"k1": "1.2"}])
async def test_wrong_options_name_their_field(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await okapi.open_index(directory=LocalDirectory(tmp_path), options=options)
    (violation,) = caught.value.violations
    assert violation.field == f"recipe.lexical.{next(iter(options))}"
