"""Settings -> a server that runs until it is told to stop."""

from __future__ import annotations

import gc
from collections.abc import Callable

from retrieval.api.exposition import expose
from retrieval.api.server import ServerOptions, serve
from retrieval.config import Settings
from retrieval.telemetry import configure_logging
from retrieval.wiring.building import build, make_metrics


def spare_collections() -> None:
    """Keep what lives as long as the server out of the collections of garbage.

    torch and transformers bring a million objects. A full collection that walks them holds the interpreter,
    and with it every search, for 300 ms (measured), and happens at any time.
    """
    gc.collect()
    gc.freeze()


async def run_server(settings: Settings, *, on_listening: Callable[[str], None]) -> None:
    """Build the application and serve it until SIGTERM or SIGINT.

    The metrics are there from before the application opens until after it is closed. Raises what ``build``
    raises, and FailedPrecondition when an address cannot be bound.
    """
    configure_logging(settings.log_level)
    limits = settings.limits
    options = ServerOptions(
        listen=settings.listen,
        max_message_bytes=limits.max_message_bytes,
        max_running=limits.max_concurrent_requests,
        max_waiting=limits.max_waiting_requests,
        drain_s=settings.drain_s,
        grace_s=settings.shutdown_grace_s,
        tokens={token.get_secret_value(): tenant for tenant, token in settings.auth.tokens.items()},
        log_calls=settings.log_level == "debug",
    )
    metrics = make_metrics()
    async with expose(metrics.registry, settings.metrics_listen):
        app = await build(settings, metrics, when_opened=spare_collections)
        spare_collections()
        await serve(app, options, metrics, on_listening=on_listening)
