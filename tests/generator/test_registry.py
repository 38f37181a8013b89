"""Generators are opened by kind."""

import pytest

from generator.registry import BACKENDS, open_generator
from ragstone.errors import InvalidArgument


async def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match="extractive") as caught:
        await open_generator("oracle", {})
    assert caught.value.violations[0].field == "kind"


@pytest.mark.parametrize("options", [{"max_sentences": 0}, {"max_sentence": 3}])
async def test_wrong_options_are_refused_by_name(options: dict[str, int]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await open_generator("extractive", options)
    assert caught.value.violations[0].field == f"options.{next(iter(options))}"


def test_every_kind_names_a_module_of_this_package() -> None:
    assert all(target.startswith("generator.") for target in BACKENDS.values())
