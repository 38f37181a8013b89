"""Hearing that another server has written to the catalog."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any, Final

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from retrieval.store.dialects import CHANNEL

log = structlog.get_logger(__name__)

POLL_S: Final = 1.0
"""How often the catalog is looked at when nobody says that it has changed."""
_CLOSING_S: Final = 0.2
"""How soon the listening thread sees that it is to end."""


class Notices:
    """Wakes whoever waits when another server has committed, and once in a while in any case.

    PostgreSQL tells by NOTIFY, as soon as the transaction is committed; a notice that is lost with its
    connection, and what SQLite never tells, is found by looking every ``POLL_S``.
    """

    def __init__(self, listener: Engine | None, *, server: str) -> None:
        """``server`` is the name under which this process announces: it does not hear itself."""
        self._engine = listener
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="store-listen", daemon=True)
        if listener is not None:
            self._thread.start()

    async def wait(self) -> None:
        """Return when somebody may have written since the last call returned."""
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._changed.wait()
        self._changed.clear()

    async def close(self) -> None:
        """Listen no longer."""
        self._closed.set()
        if self._engine is not None:
            await asyncio.to_thread(self._thread.join)

    def _listen(self) -> None:
        assert self._engine is not None
        while not self._closed.is_set():
            try:
                self._hear(self._engine)
            except SQLAlchemyError as exc:
                log.debug("not_listening", reason=type(exc).__name__)
            except self._engine.dialect.loaded_dbapi.Error as exc:
                # The driver's own: notices do not come through SQLAlchemy.
                log.debug("not_listening", reason=type(exc).__name__)
            self._closed.wait(_CLOSING_S)

    def _hear(self, engine: Engine) -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"LISTEN {CHANNEL}")
            driver: Any = connection.connection.driver_connection
            self._tell()  # whatever was missed while nobody listened
            while not self._closed.is_set():
                for notice in driver.notifies(timeout=_CLOSING_S, stop_after=1):
                    if notice.payload != self._server:
                        self._tell()

    def _tell(self) -> None:
        # The loop may be closed already: then nobody waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._changed.set)
