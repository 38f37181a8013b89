"""Vectors that clients bring: what is refused, and what only looks unusual."""

from typing import Any

import numpy as np
import pytest

from ragstone.errors import InvalidArgument
from retrieval.versions.vectors import check_vector, first_not_finite


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_the_first_component_that_is_not_finite_is_found(wrong: float) -> None:
    assert first_not_finite(np.array([0.0, 1.0, wrong, np.nan], np.float32)) == 2


@pytest.mark.parametrize("row", [[], [0.0, -0.0], [1e38, -1e38, 3e38], [1e-45, 1.0]])
def test_finite_components_are_never_refused_however_large(row: list[float]) -> None:
    assert first_not_finite(np.array(row, np.float32)) is None


@pytest.mark.parametrize("row", [[1, 2], np.array([1e-45, 0], np.float32), np.array([3e38, 3e38])])
def test_a_vector_becomes_a_float32_row(row: Any) -> None:
    checked = check_vector(row, 2, cosine=True)
    assert checked.dtype == np.dtype("<f4")
    assert checked.tolist() == np.asarray(row, np.float32).tolist()


@pytest.mark.parametrize("row", [[1.0, 2.0, 3.0], [[1.0, 2.0]], [1.0, np.nan], [0.0, -0.0]])
def test_a_vector_of_another_shape_or_without_direction_is_refused(row: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_vector(row, 2, cosine=True)
    assert caught.value.violations[0].field == "vector"


def test_zeros_are_refused_only_where_direction_counts() -> None:
    assert check_vector([0.0, 0.0], 2, cosine=False).tolist() == [0.0, 0.0]
