"""Answers <-> protobuf, pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, Final

from ragstone.answers import (
    AnswerSpan,
    Citation,
    Done,
    FinishReason,
    Generation,
    Role,
    Standalone,
    TextDelta,
    TokenLogprob,
    Turn,
    Usage,
    UsageRecord,
)
from ragstone.errors import InvalidArgument
from ragstone.fields import build, encode_choice
from ragstone.types import AnswerEvent, Contexts
from ragstone.v1 import retrieval_pb2
from ragstone.wire import decode_hit, decode_truncation, encode_truncation, put_hits
from ragstone.wire_versions import decode_adapter, encode_adapter

ROLES: Final[Mapping[Role, int]] = {role: retrieval_pb2.Role.Value(f"ROLE_{role.name}") for role in Role}
_ROLE_OF: Final[Mapping[int, Role]] = {number: role for role, number in ROLES.items()}
_FINISHES: Final[Mapping[FinishReason, Any]] = {
    finish: retrieval_pb2.FinishReason.Value(f"FINISH_REASON_{finish.name}") for finish in FinishReason
}
_FINISH_OF: Final[Mapping[int, FinishReason]] = {number: finish for finish, number in _FINISHES.items()}
_CITATION: Final = ("chunk_id", "document_id", "start", "end", "answer_start", "answer_end", "quote")
_USAGE: Final = ("prompt_tokens", "cached_tokens", "completion_tokens", "ttft_ms", "tpot_ms", "queue_ms")
_RECORD: Final = ("tenant", "generator", "model", "answers")
_DONE: Final = ("answered_by", "model", "template", "removed_marks", "from_cache")


# -- what is asked ------------------------------------------------------------------------------


def encode_history(history: Sequence[Turn]) -> list[retrieval_pb2.Turn]:
    """A conversation. Raises InvalidArgument naming ``history[i].<field>``."""
    return [
        build(
            retrieval_pb2.Turn,
            f"history[{i}].",
            role=encode_choice(ROLES, turn.role, f"history[{i}].role"),
            text=turn.text,
        )
        for i, turn in enumerate(history)
    ]


def decode_history(messages: Sequence[retrieval_pb2.Turn]) -> tuple[Turn, ...]:
    """The reverse of ``encode_history``."""
    return tuple(Turn(role=_ROLE_OF[message.role], text=message.text) for message in messages)


def encode_generation(generation: Generation) -> retrieval_pb2.Generation:
    """How an answer is generated. Raises InvalidArgument naming ``generation.<field>``."""
    schema = generation.json_schema
    try:
        encoded = "" if schema is None else json.dumps(schema)
    except (TypeError, ValueError) as exc:
        raise InvalidArgument.at("generation.json_schema", f"is no JSON: {exc}") from exc
    return build(
        retrieval_pb2.Generation,
        "generation.",
        max_tokens=generation.max_tokens,
        temperature=generation.temperature,
        seed=generation.seed,
        stop=list(generation.stop),
        json_schema=encoded,
        logprobs=generation.logprobs,
    )


def decode_generation(message: retrieval_pb2.Generation) -> Generation:
    """The reverse of ``encode_generation``. Raises InvalidArgument for a schema that is no JSON object."""
    schema = None
    if message.json_schema:
        try:
            schema = json.loads(message.json_schema)
        except ValueError as exc:
            raise InvalidArgument.at("generation.json_schema", f"is no JSON: {exc}") from exc
        if not isinstance(schema, dict):
            raise InvalidArgument.at("generation.json_schema", "must be a JSON object")
    return Generation(
        max_tokens=message.max_tokens if message.HasField("max_tokens") else None,
        temperature=message.temperature if message.HasField("temperature") else None,
        seed=message.seed if message.HasField("seed") else None,
        stop=tuple(message.stop),
        json_schema=schema,
        logprobs=message.logprobs,
    )


# -- what comes ---------------------------------------------------------------------------------


def encode_event(event: AnswerEvent) -> retrieval_pb2.AnswerResponse:
    """One event of an answer."""
    match event:
        case TextDelta():
            return retrieval_pb2.AnswerResponse(text_delta=retrieval_pb2.TextDelta(text=event.text))
        case Contexts():
            return retrieval_pb2.AnswerResponse(contexts=_encode_contexts(event))
        case Citation():
            cited = {name: getattr(event, name) for name in _CITATION}
            return retrieval_pb2.AnswerResponse(citation=retrieval_pb2.Citation(**cited))
        case Usage():
            return retrieval_pb2.AnswerResponse(usage=_encode_usage(event))
        case Done():
            return retrieval_pb2.AnswerResponse(done=_encode_done(event))


def decode_event(message: retrieval_pb2.AnswerResponse) -> AnswerEvent | None:
    """The reverse of ``encode_event``; ``None`` for an event that this version does not know."""
    kind = message.WhichOneof("event")
    return None if kind is None else _EVENTS[kind](getattr(message, kind))


def _encode_contexts(event: Contexts) -> retrieval_pb2.Contexts:
    contexts = retrieval_pb2.Contexts(
        version=event.version,
        space=event.space,
        seq=event.seq,
        degraded=event.degraded,
        adapter=None if event.adapter is None else encode_adapter(event.adapter),
        truncation=None if event.truncation is None else encode_truncation(event.truncation),
        standalone=None if event.standalone is None else _encode_standalone(event.standalone),
    )
    put_hits(contexts.hits, event.hits)
    return contexts


def _decode_contexts(message: retrieval_pb2.Contexts) -> Contexts:
    return Contexts(
        hits=tuple(map(decode_hit, message.hits)),
        version=message.version,
        space=message.space,
        seq=message.seq,
        degraded=tuple(message.degraded),
        adapter=decode_adapter(message.adapter) if message.HasField("adapter") else None,
        truncation=decode_truncation(message.truncation) if message.HasField("truncation") else None,
        standalone=_decode_standalone(message.standalone) if message.HasField("standalone") else None,
    )


def _encode_standalone(question: Standalone) -> retrieval_pb2.Standalone:
    return retrieval_pb2.Standalone(text=question.text, condensed_by=question.condensed_by)


def _decode_standalone(message: retrieval_pb2.Standalone) -> Standalone:
    return Standalone(text=message.text, condensed_by=message.condensed_by)


def _encode_done(event: Done) -> retrieval_pb2.Done:
    return retrieval_pb2.Done(
        finish_reason=_FINISHES[event.finish_reason],
        timings_ms=event.timings_ms,
        passed_over=event.passed_over,
        grounded=event.grounded,
        similarity=event.similarity,
        ungrounded=[retrieval_pb2.AnswerSpan(start=span.start, end=span.end) for span in event.ungrounded],
        logprobs=[retrieval_pb2.TokenLogprob(token=one.token, logprob=one.logprob) for one in event.logprobs],
        **{name: getattr(event, name) for name in _DONE},
    )


def _decode_done(message: retrieval_pb2.Done) -> Done:
    return Done(
        finish_reason=_FINISH_OF.get(message.finish_reason, FinishReason.COMPLETE),
        timings_ms=dict(sorted(message.timings_ms.items())),
        passed_over=tuple(message.passed_over),
        grounded=message.grounded if message.HasField("grounded") else None,
        similarity=message.similarity if message.HasField("similarity") else None,
        ungrounded=tuple(AnswerSpan(start=span.start, end=span.end) for span in message.ungrounded),
        logprobs=tuple(TokenLogprob(token=one.token, logprob=one.logprob) for one in message.logprobs),
        **{name: getattr(message, name) for name in _DONE},
    )


def _encode_usage(usage: Usage) -> retrieval_pb2.Usage:
    return retrieval_pb2.Usage(**{name: getattr(usage, name) for name in _USAGE}, cost=usage.cost)


def _decode_usage(message: retrieval_pb2.Usage) -> Usage:
    used = {name: getattr(message, name) for name in _USAGE}
    return Usage(**used, cost=message.cost if message.HasField("cost") else None)


# -- accounts -----------------------------------------------------------------------------------


def encode_usage_record(record: UsageRecord) -> retrieval_pb2.UsageRecord:
    """What a generator took in one day."""
    return retrieval_pb2.UsageRecord(
        day=record.day.isoformat(),
        **{name: getattr(record, name) for name in _RECORD},
        usage=_encode_usage(record.usage),
    )


def decode_usage_record(message: retrieval_pb2.UsageRecord) -> UsageRecord:
    """The reverse of ``encode_usage_record``."""
    return UsageRecord(
        day=date.fromisoformat(message.day),
        **{name: getattr(message, name) for name in _RECORD},
        usage=_decode_usage(message.usage),
    )


def encode_day(day: date | None) -> str:
    """``YYYY-MM-DD``; empty for none."""
    return "" if day is None else day.isoformat()


def decode_day(text: str, field: str) -> date | None:
    """The reverse of ``encode_day``. Raises InvalidArgument naming the ``field``."""
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as exc:
        raise InvalidArgument.at(field, f"is no day: {exc}") from exc


_EVENTS: Final[Mapping[str, Callable[[Any], AnswerEvent]]] = {
    "contexts": _decode_contexts,
    "text_delta": lambda message: TextDelta(text=message.text),
    "citation": lambda message: Citation(**{name: getattr(message, name) for name in _CITATION}),
    "usage": _decode_usage,
    "done": _decode_done,
}
