"""Recipes: what an index version pins, with every default filled in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator
from tokenizers import Tokenizer

import ragstone.types as types
from embedders.base import Embedder
from embedders.weights import DEFAULT_MODEL
from indexes.base import Metric
from ragstone.errors import FailedPrecondition, InvalidArgument
from retrieval.config import invalid

NONE: Final = "none"
"""The ``kind`` of a part that a version does without."""
LATE_INTERACTION: Final = "late_interaction"
"""The ``kind`` of a reranker by token vectors: those that are kept, or made when they are asked for."""
_KEEPS_TOKENS: Final = frozenset({"sentence_transformer", "onnx"})
"""Embedders whose token vectors are kept, and used to rerank, unless the recipe says otherwise."""
_READS: Final[Mapping[str, tuple[str, ...]]] = {DEFAULT_MODEL: ("en",)}
"""The languages of models: in others, reranking by their tokens does harm (measured on xquad)."""
_WEIGHTS: Final[Mapping[str, float]] = {LATE_INTERACTION: 0.7}
"""A reranker's say where the recipe is silent: measured on scifact, squad-dev and covidqa-long."""


class Backend(BaseModel):
    """A part chosen by ``kind``; the back end itself validates the other keys."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str

    @property
    def options(self) -> Mapping[str, object]:
        """The keys that belong to the back end."""
        return dict(self.model_extra or {})


class EmbedderSpec(Backend):
    """``[embedder]``: which model makes the vectors."""

    kind: str = "sentence_transformer"


class ChunkerSpec(BaseModel, frozen=True, extra="forbid"):
    """``[chunker]``: passages of at most ``max_tokens`` of the embedder's, title included."""

    kind: Literal["tokens"] = "tokens"
    max_tokens: Annotated[int, Field(ge=16, le=8192)] = 128
    overlap_tokens: Annotated[int, Field(ge=0)] = 32

    @model_validator(mode="after")
    def _overlap_is_smaller(self) -> ChunkerSpec:
        if self.overlap_tokens * 2 > self.max_tokens:
            raise ValueError("overlap_tokens must be at most half of max_tokens")
        return self


class IndexSpec(Backend):
    """``[index]``: the dense index."""

    kind: str = "hnsw"
    metric: Metric = Metric.COSINE


class LexicalSpec(Backend):
    """``[lexical]``: the BM25 index, of chunks with up to ``context_chars`` of their surroundings."""

    kind: str = "tantivy"
    context_chars: Annotated[int, Field(ge=0, le=100_000)] = 1500
    title_boost: Annotated[int, Field(ge=0, le=10)] = 1
    """How many times a title's terms count beside those of the text."""


class TokensSpec(Backend):
    """``[tokens]``: the index of token vectors, for late interaction; none where ``kind`` is ``none``."""

    kind: str = NONE


class FusionSpec(BaseModel, frozen=True, extra="forbid"):
    """``[fusion]``: the default way to make one ranking of two legs."""

    kind: Literal["rrf", "weighted"] = "weighted"
    k: PositiveInt = 60
    dense_weight: Annotated[float, Field(ge=0)] = 0.5
    lexical_weight: Annotated[float, Field(ge=0)] = 0.5
    depth: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Candidates that each leg gives."""
    failed_leg: Literal["degrade", "fail"] = "degrade"
    """What becomes of a hybrid search when one leg fails: the other one answers alone and the response says
    so, or the search fails with that leg's error."""

    @model_validator(mode="after")
    def _some_leg_counts(self) -> FusionSpec:
        if self.dense_weight + self.lexical_weight <= 0:
            raise ValueError("one of dense_weight and lexical_weight must be above 0")
        return self


class GatesSpec(BaseModel, frozen=True, extra="forbid"):
    """``[gates]``: what a version has to reach before it may serve, beside the one that serves then."""

    recall: Annotated[float, Field(ge=0, le=1)] | None = None
    """The least recall@10 of the dense leg against its own exact search. None: the recall target less what
    a sample may miss it by."""
    ndcg_loss: Annotated[float, Field(ge=0, le=1)] = 0.02
    """So much of the mean nDCG@10 over the golden queries may be lost."""
    overlap: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The least mean share of the first ten documents that both versions find."""
    p95_ratio: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """The most times the serving version's p95 latency of a search. None: it is measured, and no limit."""

    def with_(self, given: Mapping[str, Any]) -> GatesSpec:
        """These with other limits in their place. Raises InvalidArgument naming ``gates.<key>``."""
        try:
            return GatesSpec.model_validate({**self.model_dump(), **given})
        except ValidationError as exc:
            raise invalid("gates", exc) from exc


class RerankerSpec(Backend):
    """``[reranker]``: what scores the best candidates once more, with the query at hand."""

    kind: str = NONE
    depth: Annotated[int, Field(ge=1, le=1000)] = 50
    """Candidates of the fused ranking that are reranked."""
    weight: Annotated[float, Field(ge=0, le=1)] = Field(
        default_factory=lambda known: _WEIGHTS.get(known.get("kind", NONE), 0.5)
    )
    """The reranker's say in the final score; the fused score has the rest."""
    languages: tuple[str, ...] | None = None
    """The ISO 639-1 codes of what it reads; queries in other languages are not reranked. None: all."""
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    """So long a search waits for it at most, whatever its own deadline."""

    @model_validator(mode="after")
    def _none_has_no_options(self) -> RerankerSpec:
        if self.kind == NONE and self.options:
            raise ValueError(f"kind 'none' has no use for {', '.join(self.options)}")
        return self


class PinnedRecipe(BaseModel, frozen=True, extra="forbid"):
    """A recipe with nothing left open."""

    embedder: EmbedderSpec = EmbedderSpec()
    chunker: ChunkerSpec = ChunkerSpec()
    index: IndexSpec = IndexSpec()
    lexical: LexicalSpec = LexicalSpec()
    tokens: TokensSpec = TokensSpec()
    fusion: FusionSpec = FusionSpec()
    reranker: RerankerSpec = RerankerSpec()
    gates: GatesSpec = GatesSpec()

    @property
    def indexes(self) -> Mapping[str, Backend]:
        """The indexes by leg; tokens have one where they are kept."""
        legs: dict[str, Backend] = {"dense": self.index, "lexical": self.lexical, "tokens": self.tokens}
        return {leg: index for leg, index in legs.items() if index.kind != NONE}

    def dump(self) -> str:
        """Canonical JSON, as the catalog stores it."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)

    @classmethod
    def load(cls, text: str) -> PinnedRecipe:
        """The inverse of ``dump``."""
        return cls.model_validate_json(text)

    def public(self) -> types.Recipe:
        """The recipe as clients see it."""
        return types.Recipe(**self.model_dump(mode="json", exclude_none=True))


def pin(recipe: types.Recipe, defaults: Mapping[str, Mapping[str, Any]]) -> PinnedRecipe:
    """Fill a client's recipe with the server's defaults, then with Ragstone's.

    A section that names another ``kind`` than the server's default takes none of that default's options.
    Where neither says so, an embedder that gives token vectors has them kept, and reranks by them. Raises
    InvalidArgument naming ``recipe.<section>.<key>``.
    """
    sections = {
        name: _with_defaults(getattr(recipe, name), defaults.get(name, {}))
        for name in PinnedRecipe.model_fields
    }
    if sections["embedder"].get("kind", EmbedderSpec().kind) in _KEEPS_TOKENS:
        sections["tokens"] = sections["tokens"] or {"kind": "lmdb"}
        if sections["tokens"].get("kind") != NONE:
            sections["reranker"] = sections["reranker"] or _by_tokens_of(sections["embedder"])
    try:
        return PinnedRecipe.model_validate(sections)
    except ValidationError as exc:
        raise invalid("recipe", exc) from exc


def _by_tokens_of(embedder: Mapping[str, Any]) -> dict[str, Any]:
    """The reranker of an embedder that gives token vectors, for the languages that its model reads."""
    languages = _READS.get(embedder.get("model", DEFAULT_MODEL))
    return {"kind": LATE_INTERACTION} | ({} if languages is None else {"languages": languages})


def _with_defaults(given: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    if "kind" in given and given["kind"] != default.get("kind", given["kind"]):
        return dict(given)
    return {**default, **given}


def chunking_of(recipe: PinnedRecipe, embedder: Embedder) -> str:
    """The fingerprint of all that decides where documents are cut: equal ones cut equal chunks."""
    if recipe.embedder.kind == "precomputed":
        return "whole"
    space, tokenizer = embedder.space, embedder.tokenizer
    words = "" if tokenizer is None else _vocabulary(tokenizer)
    longest = min(recipe.chunker.max_tokens, space.max_tokens or recipe.chunker.max_tokens)
    parts = (recipe.chunker.kind, longest, recipe.chunker.overlap_tokens, recipe.lexical.context_chars, words)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _vocabulary(tokenizer: Tokenizer) -> str:
    """What identifies a tokenizer, however it truncates and pads."""
    whole = json.loads(tokenizer.to_str())
    kept = {key: value for key, value in whole.items() if key not in ("truncation", "padding")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def change(serving: PinnedRecipe, given: types.Recipe) -> PinnedRecipe:
    """The serving recipe, with the sections that are given in its place.

    A section that names another ``kind`` takes none of the serving one's options. Raises InvalidArgument
    naming ``recipe.<section>.<key>``, FailedPrecondition when nothing would change.
    """
    kept = serving.model_dump(mode="json")
    another = given.embedder.get("kind", serving.embedder.kind) != serving.embedder.kind
    if another and serving.reranker.kind == LATE_INTERACTION:
        # It may give no token vectors: what is done with them is decided anew.
        del kept["tokens"], kept["reranker"]
    changed = pin(given, kept)
    if changed == serving:
        raise FailedPrecondition("the serving version has exactly this recipe: there is nothing to rebuild")
    if changed.model_copy(update={"gates": serving.gates}) == serving:
        raise FailedPrecondition(
            "only the gates would change, and they are not what is built: give the limits to the promotion"
        )
    if changed.embedder.kind == "precomputed":
        if changed.embedder != serving.embedder:
            raise InvalidArgument.at(
                "recipe.embedder", "cannot be rebuilt into: only clients have the vectors of such a space"
            )
        if (changed.chunker, changed.lexical.context_chars) != (
            serving.chunker,
            serving.lexical.context_chars,
        ):
            raise InvalidArgument.at("recipe.chunker", "has no use: a vector stands for a whole document")
    return changed


def fusion_of(spec: FusionSpec, asked: types.Fusion | None) -> FusionSpec:
    """A query's fusion, at the recipe's depth. Raises InvalidArgument naming ``fusion.<key>``."""
    if asked is None:
        return spec
    try:
        return FusionSpec(
            kind=asked.kind,
            k=asked.k,
            dense_weight=asked.dense_weight,
            lexical_weight=asked.lexical_weight,
            depth=spec.depth,
            failed_leg=spec.failed_leg,
        )
    except ValidationError as exc:
        raise invalid("fusion", exc) from exc
