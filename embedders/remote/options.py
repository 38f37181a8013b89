"""The recipe options that all embedders over the network have in common."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import BaseModel, Field

from embedders.remote.sending import SendLimits
from embedders.remote.turns import TurnLimits
from ragstone.errors import FailedPrecondition

Rate = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]


class RemoteOptions(BaseModel, frozen=True, extra="forbid"):
    """What every server is asked with, and how hard."""

    api_key_env: str | None = Field(None, pattern=r"^[A-Z][A-Z0-9_]*_API_KEY$")
    """The environment variable that has the key: recipes are stored and shown, so no key stands in one."""
    revision: str | None = Field(None, min_length=1, max_length=200)
    """Of the weights, where the server does not tell it; another one is another space."""
    query_prompt: str = ""
    passage_prompt: str = ""
    dim: int | None = Field(None, ge=8, le=4096)
    """Only the first so many of each vector's numbers, for models trained to be cut there (Matryoshka)."""
    tokenizer: str | None = None
    """A folder or a model id whose tokenizer counts the model's tokens; without it words are counted."""
    batch_texts: int = Field(32, ge=1, le=2048)
    batch_tokens: int = Field(16_384, ge=16, le=1_048_576)
    """Of one request; a text that is longer goes alone. Without a tokenizer, 4 bytes count as a token."""
    concurrency: int = Field(8, ge=1, le=256)
    """Requests at once."""
    queue_requests: int = Field(1_024, ge=1)
    """Requests of queries that may wait for their turn."""
    requests_per_s: Rate | None = None
    tokens_per_s: Rate | None = None
    timeout_s: float = Field(30.0, gt=0, le=600)
    """For one request, once sent."""
    retries: int = Field(3, ge=0, le=20)
    patience_s: float = Field(10.0, ge=0, le=600)
    """The longest pause (Retry-After) that is waited for; a longer one is passed on to the caller."""
    failures: int = Field(5, ge=1, le=1000)
    """So many requests in a row without an answer, and the server is left alone for ``open_s``."""
    open_s: float = Field(10.0, gt=0, le=3600)

    @property
    def send_limits(self) -> SendLimits:
        """How hard the server is tried."""
        turns = TurnLimits(
            at_once=self.concurrency,
            waiting=self.queue_requests,
            requests_per_s=self.requests_per_s,
            tokens_per_s=self.tokens_per_s,
            patience_s=self.patience_s,
        )
        return SendLimits(turns=turns, retries=self.retries, failures=self.failures, open_s=self.open_s)

    def api_key(self) -> str | None:
        """The key, from the environment. Raises FailedPrecondition when the variable is not set."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env)  # noqa: TID251 - the recipe says which; its value is no setting
        if not key:
            raise FailedPrecondition.at(
                "recipe.embedder.api_key_env", f"the environment variable {self.api_key_env} is not set"
            )
        return key
