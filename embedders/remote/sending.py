"""One request to a server: in its turn, through the circuit breaker, and again where that may help."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from embedders.base import Vectors
from embedders.remote.circuit import CircuitBreaker
from embedders.remote.transport import Away, Busy, Transport
from embedders.remote.turns import TurnLimits, Turns
from ragstone.errors import BackendUnavailable, Overloaded

T = TypeVar("T")

_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SendLimits:
    """How hard a server is tried."""

    turns: TurnLimits
    retries: int
    failures: int
    """So many in a row open the circuit."""
    open_s: float


class Sender:
    """Sends requests over a transport, and owns it."""

    def __init__(self, transport: Transport, limits: SendLimits) -> None:
        self._transport = transport
        self._limits = limits
        self._turns = Turns(limits.turns)
        self._circuit = CircuitBreaker(failures=limits.failures, open_s=limits.open_s)

    async def send(self, texts: Sequence[str], *, tokens: int, bulk: bool) -> Vectors:
        """What the server gives for ``texts``; ``tokens`` is about how long they are together.

        Raises the errors of ``run``.
        """
        return await self.run(partial(self._transport.embed, texts), tokens=tokens, bulk=bulk)

    async def run(self, request: Callable[[], Awaitable[T]], *, tokens: int = 0, bulk: bool = False) -> T:
        """What ``request`` gives, which asks the server once.

        Raises Overloaded when the server stays busy or too many queries wait, BackendUnavailable when it
        stays away or the circuit is open, and what else the transport raises.
        """
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type((Away, Busy)),
                wait=wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S),
                stop=stop_after_attempt(self._limits.retries + 1),
                reraise=True,
            ):
                with attempt:
                    return await self._try(request, tokens, bulk=bulk)
        except Busy as exc:
            raise Overloaded(str(exc), retry_after_s=exc.retry_after_s) from exc
        except Away as exc:
            raise BackendUnavailable(str(exc)) from exc
        raise AssertionError("the retry loop ends by returning or raising")

    async def close(self) -> None:
        """Close the transport."""
        await self._turns.close()
        await self._transport.close()

    async def _try(self, request: Callable[[], Awaitable[T]], tokens: int, *, bulk: bool) -> T:
        async with self._turns.turn(tokens, bulk=bulk):
            try:
                with self._circuit.call():
                    return await request()
            except Busy as exc:
                self._turns.pause(exc.retry_after_s)
                raise
