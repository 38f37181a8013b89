"""Sets of rows, and the translation of a filter's keys into them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from pyroaring import BitMap64

from indexes.base import Keys
from indexes.dense.rows import Filters, RowSet


@dataclass(eq=False)
class Piece:
    """A piece of an index whose row ``i`` has the key ``10 i``; it counts what it was asked."""

    rows: int = 6
    asked: list[list[int]] = field(default_factory=list)

    def allowed(self, keys: Keys) -> RowSet:
        """The rows of ``keys``."""
        self.asked.append(keys.tolist())
        return RowSet(np.isin(10 * np.arange(self.rows), keys))


def test_a_row_set_is_the_same_in_every_form() -> None:
    rows = RowSet(np.array([False, True, False, True, True, False, False, False, False, True]))
    assert rows.count == 4
    assert rows.rows.tolist() == [1, 3, 4, 9]
    assert [row for row in range(10) if rows.selector.is_member(row)] == [1, 3, 4, 9]


def test_an_empty_row_set_has_no_member() -> None:
    rows = RowSet(np.zeros(3, np.bool_))
    assert (rows.count, rows.rows.tolist()) == (0, [])
    assert not any(rows.selector.is_member(row) for row in range(3))


def test_a_filter_is_the_rows_of_its_keys() -> None:
    allowed = Filters().of(BitMap64([50, 10, 7]))
    piece = Piece()
    assert allowed.within(piece).rows.tolist() == [1, 5]
    assert piece.asked == [[7, 10, 50]], "keys ascend"


def test_a_filter_is_translated_once_for_each_piece() -> None:
    allowed, one, other = Filters().of(BitMap64([20])), Piece(), Piece(2)
    assert allowed.within(one) is allowed.within(one)
    assert allowed.within(other).count == 0
    assert (len(one.asked), len(other.asked)) == (1, 1)


def test_equal_bitmaps_share_a_translation() -> None:
    filters, piece = Filters(), Piece()
    first = filters.of(BitMap64([10, 20]))
    again = filters.of(BitMap64([20, 10]))
    assert first is again
    assert first.within(piece) is again.within(piece)
    assert filters.of(BitMap64([10])) is not first


def test_a_bitmap_that_its_owner_changed_gives_the_new_answer() -> None:
    filters, piece, bitmap = Filters(), Piece(), BitMap64([10])
    before = filters.of(bitmap)
    assert before.within(piece).rows.tolist() == [1]
    bitmap.add(30)
    assert filters.of(bitmap).within(piece).rows.tolist() == [1, 3]
    bitmap.discard(10)
    assert filters.of(bitmap).within(piece).rows.tolist() == [3]
    assert before.within(Piece()).rows.tolist() == [1], "who asked before the change is not disturbed"


def test_a_change_before_the_first_use_does_not_reach_a_filter() -> None:
    filters, bitmap = Filters(), BitMap64([10])
    allowed = filters.of(bitmap)
    bitmap.add(20)
    assert allowed.within(Piece()).rows.tolist() == [1]


@pytest.mark.parametrize("count", [17, 40])
def test_only_the_last_filters_are_remembered(count: int) -> None:
    filters = Filters()
    first = filters.of(BitMap64([0]))
    others = [filters.of(BitMap64([key])) for key in range(1, count)]
    assert filters.of(BitMap64([count - 1])) is others[-1]
    assert filters.of(BitMap64([0])) is not first


def test_a_piece_that_is_gone_takes_its_rows_along() -> None:
    allowed, piece = Filters().of(BitMap64([20])), Piece()
    allowed.within(piece)
    del piece
    assert len(allowed._sets) == 0
