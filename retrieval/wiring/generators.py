"""The generators of the settings, as one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

from generator.base import Generator
from generator.circuit import Circuit
from generator.fallback import Candidate, FallbackGenerator
from generator.registry import open_generator
from ragstone.errors import RagstoneError
from retrieval.config import GeneratorSettings


async def open_generators(settings: Sequence[GeneratorSettings]) -> Generator:
    """All of them, asked in their order. Raises what opening one raises, naming it."""
    candidates: list[Candidate] = []
    async with AsyncExitStack() as opened:
        for number, one in enumerate(settings):
            try:
                generator = await open_generator(one.kind, one.options)
            except RagstoneError as exc:
                raise exc.within(f"generators[{number}]") from exc
            opened.push_async_callback(generator.close)
            candidates.append(
                Candidate(
                    name=one.name,
                    generator=generator,
                    tenants=frozenset(one.tenants),
                    escalate=one.escalate,
                    hedge_s=one.hedge_s,
                    circuit=Circuit(failures=one.failures, open_s=one.open_s),
                )
            )
        opened.pop_all()
    return FallbackGenerator(candidates)
