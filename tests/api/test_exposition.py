"""Metrics over HTTP: for as long as they are wanted, and only where they are."""

from __future__ import annotations

import asyncio
import socket
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from ragstone.errors import FailedPrecondition
from retrieval.api.exposition import expose


@pytest.fixture
def registry() -> CollectorRegistry:
    """One counter, at 2."""
    registry = CollectorRegistry()
    Counter("things_total", "Things.", registry=registry).inc(2)
    return registry


def scrape(address: str) -> dict[str, float]:
    with urlopen(f"http://{address}/metrics", timeout=5) as reply:
        families = list(text_string_to_metric_families(reply.read().decode()))
    return {sample.name: sample.value for family in families for sample in family.samples}


async def test_what_is_registered_can_be_read_until_the_end(registry: CollectorRegistry) -> None:
    async with expose(registry, "127.0.0.1:0") as address:
        assert (await asyncio.to_thread(scrape, address))["things_total"] == 2
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(scrape, address)


async def test_without_an_address_nothing_is_served(registry: CollectorRegistry) -> None:
    async with expose(registry, "") as address:
        assert address == ""


async def test_a_port_that_is_taken(registry: CollectorRegistry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(FailedPrecondition, match=f"cannot serve metrics on {address}"):
            async with expose(registry, address):
                pass


async def test_a_port_that_cannot_be(registry: CollectorRegistry) -> None:
    with pytest.raises(FailedPrecondition, match="cannot serve metrics"):
        async with expose(registry, "127.0.0.1:70000"):
            pass
