"""The settings of a server: one frozen tree, parsed once, unknown keys refused.

Sources, the later one wins: defaults, a TOML file, ``RAGSTONE_`` environment variables
(``RAGSTONE_LIMITS__MAX_K=500``), the command line.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import (
    BaseModel,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ragstone.errors import FieldViolation, InvalidArgument


class Limits(BaseModel, frozen=True, extra="forbid"):
    """What one request may ask for, and how much work may wait."""

    max_message_bytes: PositiveInt = 32 * 2**20
    max_document_bytes: PositiveInt = 8 * 2**20
    max_concurrent_requests: PositiveInt = 256
    max_waiting_requests: PositiveInt = 1024
    max_pending_chunks: PositiveInt = 20_000
    """Chunks that are committed but not yet indexed; above it, writes wait."""
    min_free_disk_bytes: int = Field(256 * 2**20, ge=0)
    """Below so much free disk under ``data_dir`` documents are refused, and deletions are not: indexes, and a
    catalog that lies there, need room to go on. 0 sets no limit."""
    query_vectors: int = Field(10_000, ge=0)
    """Vectors of queries that are kept in memory, each for the tenant that asked; 0 keeps none."""


class IndexingSettings(BaseModel, frozen=True, extra="forbid"):
    """How the applier follows the journal."""

    batch_chunks: PositiveInt = 1024
    """Chunks applied in one step, at most."""
    checkpoint_s: PositiveFloat = 30.0
    max_lag_s: PositiveFloat = 30.0
    """A collection that is behind the journal for longer is not ready: see the health service."""
    follower_ttl_s: PositiveFloat = 3600.0
    """A server that was not heard of for so long is waited for no longer before the journal is pruned; its
    indexes begin anew should it come back."""


class RebuildSettings(BaseModel, frozen=True, extra="forbid"):
    """How a rebuild behaves beside live traffic."""

    busy_share: float = Field(0.5, gt=0, le=1)
    """Of the time that a rebuild works while requests come in; it takes all of it while none do."""
    adapter_texts: int = Field(2_000, ge=0)
    """Texts from which a query adapter is learned when a version moves to another space; 0 learns none."""
    adapter_recall: float = Field(0.6, ge=0, le=1)
    """The least recall@10 of a query adapter, on texts that it has not seen, with which it is used."""
    rollback_window_s: float = Field(86_400.0, ge=0)
    """So long a version that served before follows on, ready for a rollback; then it is deleted."""


class TrafficSettings(BaseModel, frozen=True, extra="forbid"):
    """How a version is tried on live searches, and what takes a canary's share away."""

    timeout_s: PositiveFloat = 2.0
    """A search that a version has not answered by then has failed. A canary gets half of what the caller
    still waits, where that is less: the serving version is to answer in its place."""
    shadow_queue: PositiveInt = 100
    """Mirrored searches that wait for one version; what comes above it is dropped, and counted."""
    min_searches: PositiveInt = 100
    """Fewer say nothing of latency and likeness; failures are counted as if they were of so many."""
    max_failures: float = Field(0.02, ge=0, le=1)
    """Share of a canary's searches."""
    max_slowdown: float = Field(2.0, gt=0)
    """The canary's 95th percentile of latency, as a multiple of the serving version's."""
    min_rbo: float = Field(0.0, ge=0, le=1)
    """Mean rank-biased overlap of mirrored searches; 0 asks for none."""


class AuthSettings(BaseModel, frozen=True, extra="forbid"):
    """Bearer tokens and the tenant each one stands for; empty means that nobody has to show one."""

    tokens: Mapping[str, SecretStr] = Field(default_factory=dict)
    """Tenant -> its token."""
    operators: tuple[str, ...] = ()
    """Tenants that see what every tenant uses."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        unknown = sorted(set(self.operators) - self.tokens.keys())
        if unknown:
            raise ValueError(f"operators names {', '.join(unknown)}, who have no token in tokens")
        return self


class GeneratorSettings(BaseModel, frozen=True, extra="forbid"):
    """One of the generators, which are asked in their order."""

    name: str = Field(min_length=1, max_length=100)
    """As responses, metrics and logs call it."""
    kind: str = "openai_http"
    options: Mapping[str, Any] = Field(default_factory=dict)
    """Of its kind: docs/answers.md has them."""
    tenants: tuple[str, ...] = ()
    """Those that it answers; none means all."""
    escalate: bool = False
    """Whether the next one is asked when this one finds no evidence."""
    hedge_s: PositiveFloat | None = None
    """After so long without a first token the next one is asked as well, and whoever begins first answers."""
    failures: PositiveInt = 3
    """So many in a row, and it is left alone for ``open_s``."""
    open_s: PositiveFloat = 10.0


class Price(BaseModel, frozen=True, extra="forbid"):
    """What a million tokens cost."""

    prompt: float = Field(ge=0)
    cached: float | None = Field(None, ge=0)
    """Of the prompt, those that were in the cache; as others, where it is not set."""
    completion: float = Field(ge=0)


class AnswerSettings(BaseModel, frozen=True, extra="forbid"):
    """How answers are generated."""

    max_tokens: PositiveInt = 512
    """The length of an answer, where the request does not say."""
    grounding_similarity: float = Field(0.6, ge=0, le=1)
    """Cosine with a cited passage from which a sentence rests on it, whatever their words."""
    kept: int = Field(1_000, ge=0)
    """Answers that are kept, and given again to the same tenant, question and passages; 0 keeps none."""
    similarity: float | None = Field(None, ge=0.95, le=1)
    """Cosine with an earlier question from which its answer is given again, where numbers and filter are the
    same, all that it cites was found again and nothing that it read has changed; unset, only the very same
    question's is."""
    condense_s: float = Field(3.0, ge=0, le=60)
    """The longest wait for a generator to make a conversation's last question stand alone, for the search.
    Then, or with 0 at once, a rule does."""
    salt_key: SecretStr = SecretStr("")
    """Makes a tenant's cache salt, by which generators keep tenants' caches apart. Servers that share a
    generator need the same; empty is a random one of each start."""
    prices: Mapping[str, Price] = Field(default_factory=dict)
    """By the model's own name."""


EXTRACTIVE = GeneratorSettings(name="extractive", kind="extractive")


class Settings(BaseSettings):
    """Everything that a server can be told."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="RAGSTONE_", env_nested_delimiter="__"
    )

    data_dir: Path = Path("data")
    listen: str = "127.0.0.1:50051"
    metrics_listen: str = Field("", pattern=r"^(.+:\d+)?$")
    """HOST:PORT of the Prometheus metrics, over HTTP; empty serves none, port 0 is a free one."""
    database_url: str = ""
    """SQLAlchemy URL of the catalog; empty is SQLite in ``data_dir``."""
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")
    shutdown_grace_s: PositiveFloat = 10.0
    drain_s: float = Field(0.2, ge=0)
    """How long the server goes on accepting calls after it has told its health watchers to leave."""
    limits: Limits = Limits()
    indexing: IndexingSettings = IndexingSettings()
    rebuild: RebuildSettings = RebuildSettings()
    traffic: TrafficSettings = TrafficSettings()
    auth: AuthSettings = AuthSettings()
    answers: AnswerSettings = AnswerSettings()
    generators: tuple[GeneratorSettings, ...] = Field((EXTRACTIVE,), min_length=1)
    """The last one answers when none before it does."""
    recipe: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """Defaults for the sections of every new collection's recipe."""

    @property
    def catalog_url(self) -> str:
        """The catalog's URL, with the default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir / 'catalog.sqlite'}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line over environment over file; no dotenv files, no secrets directory."""
        given = init_settings() if isinstance(init_settings, InitSettingsSource) else {}
        file = given.pop("config_file", None)
        cli = InitSettingsSource(settings_cls, init_kwargs=given)
        return cli, env_settings, InitSettingsSource(settings_cls, init_kwargs=_read_toml(file))


def load_settings(config_file: Path | None = None, **command_line: object) -> Settings:
    """The settings from all sources.

    Raises InvalidArgument naming each wrong key, or the place where the TOML does not parse.
    """
    given: dict[str, Any] = {key: value for key, value in command_line.items() if value is not None}
    given["config_file"] = config_file
    try:
        return Settings(**given)
    except ValidationError as exc:
        raise invalid("settings", exc) from exc


def configure_threads() -> None:
    """Keep BLAS and OpenMP to one passive thread each. Call before NumPy, torch or FAISS is imported.

    A spinning OpenMP barrier beside a busy event loop makes a model 30 times slower; parallelism comes
    from several single-threaded calls instead. Between those a request needs the interpreter's lock some
    ten times, and waits for it up to 5 ms each by default: beside a thread that computes in Python an
    embedded query took 38 ms so, and takes 9.
    """
    sys.setswitchinterval(_SWITCH_S)
    for name, value in _THREADS.items():
        os.environ.setdefault(name, value)


_SWITCH_S = 0.0005
_THREADS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
}


def invalid(prefix: str, error: ValidationError) -> InvalidArgument:
    """One InvalidArgument for all that pydantic found, each with its dotted path under ``prefix``."""
    violations = tuple(
        FieldViolation(
            ".".join([prefix, *(str(part) for part in found["loc"])]),
            f"{found['msg']} (got {found['input']!r})"
            if found["type"] != "extra_forbidden"
            else "unknown key",
        )
        for found in error.errors()
    )
    message = "; ".join(f"{v.field}: {v.description}" for v in violations)
    return InvalidArgument(message, violations=violations)


def _read_toml(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise InvalidArgument.at("config", f"{file}: {exc}") from exc
