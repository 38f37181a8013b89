"""Every generator that needs no server keeps the promises of the protocol."""

import pytest

from generator.conformance import GENERATOR_CHECKS, Check
from generator.registry import open_generator

LOCAL = ("extractive",)


@pytest.mark.parametrize("check", GENERATOR_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", LOCAL)
async def test_generator(kind: str, check: Check) -> None:
    await check(lambda: open_generator(kind, {}))
