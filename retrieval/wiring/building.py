"""Settings -> an application, with everything under its data directory opened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from secrets import token_bytes
from typing import Final
from uuid import uuid4

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from indexes.directory import LocalDirectory
from retrieval.config import Settings
from retrieval.ingest.disk import DiskGuard
from retrieval.ingest.writer import Writer
from retrieval.query.answer import Answerer
from retrieval.query.hydration import Hydrator
from retrieval.query.query_vectors import QueryVectors
from retrieval.query.search import Searcher
from retrieval.store.adapters import Adapters
from retrieval.store.catalog import Catalog
from retrieval.store.chunks import Chunks
from retrieval.store.database import Database
from retrieval.store.documents import Documents
from retrieval.store.doomed import DoomedIndexes
from retrieval.store.embeddings import Embeddings
from retrieval.store.followers import Followers
from retrieval.store.golden import GoldenQueries
from retrieval.store.journal import Journal
from retrieval.store.notices import Notices
from retrieval.store.ownership import Ownership
from retrieval.store.traffic import Shares
from retrieval.store.usage import Accounts
from retrieval.telemetry import Metrics
from retrieval.versions.adapting import Adapting
from retrieval.versions.applier import Sources
from retrieval.versions.collections import Collections
from retrieval.versions.gauges import CollectionGauges
from retrieval.versions.healer import Healer
from retrieval.versions.homes import Homes
from retrieval.versions.leases import Leases
from retrieval.versions.leaving import Leaving
from retrieval.versions.measuring import Measuring
from retrieval.versions.planning import Planner
from retrieval.versions.rebuild import Rebuilds
from retrieval.versions.reembedding import Reembedding
from retrieval.versions.replication import Replication
from retrieval.versions.service import Versions
from retrieval.versions.sweeper import Sweeper
from retrieval.versions.traffic import Traffics
from retrieval.wiring.application import Ragstone
from retrieval.wiring.generators import open_generators
from retrieval.wiring.opener import RegistryOpener

_SERVER: Final = "SERVER"


def make_metrics() -> Metrics:
    """The instruments of one server, beside those of its process and platform, on a registry of their own."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return Metrics(registry)


async def build(
    settings: Settings, metrics: Metrics | None = None, *, when_opened: Callable[[], None] = lambda: None
) -> Ragstone:
    """Open everything under ``settings.data_dir``; then all that was ever acknowledged is searchable.

    ``metrics`` are those of the server in front of it, if there is one; ``when_opened`` is called after each
    model that is opened, now or later. Raises FailedPrecondition when another server has the directory
    open.
    """
    metrics = metrics or make_metrics()
    directory = LocalDirectory(settings.data_dir)
    lock = directory.lock()
    database = await Database.open(settings.catalog_url)
    catalog, journal = Catalog(database), Journal(database)
    documents = Documents(database)
    sources = Sources(
        journal=journal, documents=documents, chunks=Chunks(database), embeddings=Embeddings(database)
    )
    opener = RegistryOpener(when_opened)
    homes = Homes(
        root=settings.data_dir / "versions",
        identity=await catalog.identity(),
        opener=opener,
        catalog=catalog,
        doomed=DoomedIndexes(database),
    )
    followers = Followers(database, server=_server_of(directory), ttl_s=settings.indexing.follower_ttl_s)
    collections = Collections(
        opener=opener,
        catalog=catalog,
        sources=sources,
        homes=homes,
        followers=followers,
        settings=settings,
    )
    try:
        await collections.open()
    except BaseException:
        # A model's server may be away: nothing is held then, and the directory can be opened again.
        await collections.close()
        await opener.close()
        await database.close()
        lock.release()
        raise
    metrics.registry.register(CollectionGauges(collections, asyncio.get_running_loop()))
    searcher = Searcher(
        journal=journal,
        hydrator=Hydrator(documents),
        query_vectors=QueryVectors(max_vectors=settings.limits.query_vectors, metrics=metrics),
        metrics=metrics,
    )
    golden, ownership = GoldenQueries(database), Ownership(database)
    measuring = Measuring(ask=searcher.on, golden=golden, texts=documents)
    adapting = Adapting(
        opener=opener, sources=sources, adapters=Adapters(database), settings=settings.rebuild
    )
    rebuilds = Rebuilds(
        collections=collections,
        catalog=catalog,
        sources=sources,
        measuring=measuring,
        adapting=adapting,
        ownership=ownership,
        settings=settings.rebuild,
    )
    rebuilds.open()
    reembedding = Reembedding(
        collections=collections, catalog=catalog, sources=sources, opener=opener, leases=Leases()
    )
    traffic = Traffics(
        collections=collections,
        catalog=catalog,
        shares=Shares(database),
        rebuilds=rebuilds,
        ask=searcher.on,
        settings=settings,
        metrics=metrics,
    )
    await traffic.open()
    leaving = Leaving(
        rebuilds=rebuilds, traffic=traffic, adapting=adapting, reembedding=reembedding, homes=homes
    )
    versions = Versions(
        collections=collections,
        catalog=catalog,
        sources=sources,
        rebuilds=rebuilds,
        measuring=measuring,
        adapting=adapting,
        planner=Planner(opener=opener, catalog=catalog, sources=sources, homes=homes),
        reembedding=reembedding,
        traffic=traffic,
        homes=homes,
        leaving=leaving,
    )
    sweeper = Sweeper(
        versions=versions,
        collections=collections,
        catalog=catalog,
        homes=homes,
        window_s=settings.rebuild.rollback_window_s,
    )
    healer = Healer(versions=versions, collections=collections)
    notices = Notices(database.listener, server=database.server)
    replication = Replication(
        collections=collections,
        rebuilds=rebuilds,
        leaving=leaving,
        traffic=traffic,
        catalog=catalog,
        journal=journal,
        notices=notices,
    )
    generators = await open_generators(settings.generators)
    accounts = Accounts(database)
    return Ragstone(
        settings=settings,
        lock=lock,
        database=database,
        opener=opener,
        collections=collections,
        versions=versions,
        rebuilds=rebuilds,
        leaving=leaving,
        background=(
            asyncio.create_task(sweeper.run(), name="version sweeper"),
            asyncio.create_task(healer.run(), name="version healer"),
            asyncio.create_task(replication.run(), name="replication"),
        ),
        notices=notices,
        ownership=ownership,
        reembedding=reembedding,
        traffic=traffic,
        writer=Writer(
            journal=journal,
            documents=documents,
            limits=settings.limits,
            disk=DiskGuard(settings.data_dir, settings.limits.min_free_disk_bytes),
        ),
        searcher=searcher,
        answerer=Answerer(
            searcher=searcher,
            generator=generators,
            settings=settings.answers,
            salt_key=settings.answers.salt_key.get_secret_value().encode() or token_bytes(),
            metrics=metrics,
            accounts=accounts,
        ),
        generator=generators,
        documents=documents,
        golden=golden,
        accounts=accounts,
    )


def _server_of(directory: LocalDirectory) -> str:
    """The name of the server whose data lie in ``directory``: given once, and kept there."""
    if _SERVER not in directory.list():
        directory.atomic_write(_SERVER, uuid4().hex.encode())
    return directory.read(_SERVER).decode()
