"""Every public value survives the wire."""

from __future__ import annotations

from array import array
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragstone import wire, wire_answers, wire_versions
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
from ragstone.fields import decode_metadata, decode_options, encode_options
from ragstone.types import (
    Collection,
    Comparison,
    Contexts,
    Document,
    Fusion,
    Gate,
    GoldenQuery,
    Hit,
    Interval,
    Latency,
    LegScore,
    MeasuredVersion,
    MissingText,
    MissingTexts,
    Mode,
    ParkedText,
    Progress,
    Query,
    QueryAdapter,
    QuerySource,
    RebuildPlan,
    Recipe,
    Rerank,
    RerankScores,
    SearchResult,
    ServerInfo,
    Traffic,
    Truncation,
    Version,
    VersionEvent,
    WriteResult,
)
from ragstone.v1 import documents_pb2, retrieval_pb2

text = st.text(st.characters(codec="utf-8"), max_size=20)
counts = st.integers(0, 2**63 - 1)
ints32 = st.integers(0, 2**31 - 1)
floats = st.floats(allow_nan=False)
moments = st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC))
scalars = st.one_of(
    text,
    st.integers(-(2**63), 2**63 - 1),
    floats,
    st.booleans(),
    st.dates(date(1000, 1, 1)),
    moments,
)
metadata = st.dictionaries(text, scalars | st.lists(scalars, max_size=4), max_size=4)
vectors = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8).map(
    lambda row: array("f", row)
)
options = st.dictionaries(
    text,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e300, 1e300) | text,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)
languages = st.none() | st.sampled_from(["en", "de", "zh"])
timings = st.dictionaries(text, floats, max_size=3)

documents = st.builds(
    Document,
    id=text,
    text=text,
    title=text,
    metadata=metadata,
    language=languages,
    vector=st.none() | vectors,
)
weights = st.floats(0, 1e6)
fusions = st.builds(
    Fusion,
    kind=st.sampled_from(["rrf", "weighted"]),
    k=ints32,
    dense_weight=weights,
    lexical_weight=weights,
)
queries = st.builds(
    Query,
    text=text,
    k=ints32,
    mode=st.sampled_from(Mode),
    filter=text,
    language=languages,
    fusion=st.none() | fusions,
    depth=st.none() | ints32,
    explain=st.booleans(),
    page_token=text,
    min_seq=st.none() | counts,
    request_key=text,
    version=text,
    space=st.none() | text.filter(bool),
    rerank=st.none()
    | st.builds(Rerank, off=st.booleans(), depth=st.none() | ints32, weight=st.none() | floats),
)
rerank_scores = st.builds(
    RerankScores,
    scores=st.lists(st.floats(width=32, allow_nan=False), max_size=4).map(tuple),
    complete=st.booleans(),
    version=text,
)
hits = st.builds(
    Hit,
    chunk_id=text,
    document_id=text,
    score=floats,
    text=text,
    title=text,
    metadata=metadata,
    start=counts,
    end=counts,
    legs=st.lists(
        st.builds(LegScore, leg=text, rank=ints32, score=floats, contribution=floats), max_size=2
    ).map(tuple),
)
names = st.lists(text, max_size=2).map(tuple)
adapters = st.builds(
    QueryAdapter,
    kind=text,
    from_space=text,
    into_space=text,
    recall=floats,
    limit=floats,
    passed=st.booleans(),
    texts=ints32,
    reason=text,
)
truncations = st.builds(Truncation, tokens=ints32, limit=ints32)
results = st.builds(
    SearchResult,
    hits=st.lists(hits, max_size=3).map(tuple),
    version=text,
    space=text,
    seq=counts,
    degraded=names,
    timings_ms=timings,
    next_page_token=text,
    plan=st.dictionaries(text, text, max_size=2),
    adapter=st.none() | adapters,
    truncation=st.none() | truncations,
)
usages = st.builds(
    Usage,
    prompt_tokens=counts,
    cached_tokens=counts,
    completion_tokens=counts,
    ttft_ms=floats,
    tpot_ms=floats,
    queue_ms=floats,
    cost=st.none() | floats,
)
events = st.one_of(
    st.builds(TextDelta, text=text),
    st.builds(
        Contexts,
        hits=st.lists(hits, max_size=2).map(tuple),
        version=text,
        space=text,
        seq=counts,
        degraded=names,
        adapter=st.none() | adapters,
        truncation=st.none() | truncations,
        standalone=st.none() | st.builds(Standalone, text=text, condensed_by=text),
    ),
    st.builds(
        Citation,
        chunk_id=text,
        document_id=text,
        start=counts,
        end=counts,
        answer_start=counts,
        answer_end=counts,
        quote=text,
    ),
    usages,
    st.builds(
        Done,
        finish_reason=st.sampled_from(FinishReason),
        timings_ms=timings,
        answered_by=text,
        model=text,
        passed_over=names,
        template=text,
        removed_marks=ints32,
        grounded=st.none() | floats,
        ungrounded=st.lists(st.builds(AnswerSpan, start=counts, end=counts), max_size=3).map(tuple),
        logprobs=st.lists(st.builds(TokenLogprob, token=text, logprob=floats), max_size=3).map(tuple),
        from_cache=st.booleans(),
        similarity=st.none() | floats,
    ),
)
recipes = st.builds(
    Recipe,
    embedder=options,
    chunker=options,
    index=options,
    lexical=options,
    tokens=options,
    fusion=options,
    reranker=options,
    gates=options,
)
progress = st.builds(
    Progress,
    chunks_done=counts,
    chunks_total=counts,
    embedded=counts,
    reused=counts,
    chunks_per_s=floats,
    seconds_left=st.none() | floats,
    lag=counts,
)
gates = st.builds(Gate, name=text, passed=st.booleans(), value=floats, limit=floats, detail=text)
latencies = st.none() | st.builds(
    Latency,
    searches=ints32,
    p50_ms=floats,
    p95_ms=floats,
    serving_p50_ms=st.none() | floats,
    serving_p95_ms=st.none() | floats,
)
traffic = st.builds(
    Traffic,
    shadow=floats,
    canary=floats,
    mirrored=counts,
    skipped=counts,
    dropped=counts,
    failed=counts,
    mean_rbo=st.none() | floats,
    mean_overlap=st.none() | floats,
    shadow_latency=latencies,
    canary_answered=counts,
    canary_failed=counts,
    canary_latency=latencies,
    stopped=text,
    last_failure=text,
)
versions = st.builds(
    Version,
    name=text,
    collection=text,
    state=st.sampled_from(["building", "catching_up", "ready", "serving", "retiring", "paused", "failed"]),
    recipe=recipes,
    space=text,
    dim=ints32,
    applied_seq=counts,
    created_at=moments,
    stats=options,
    progress=st.none() | progress,
    reason=text,
    gates=st.lists(gates, max_size=2).map(tuple),
    parked=st.lists(st.builds(ParkedText, chunk_id=text, reason=text), max_size=2).map(tuple),
    traffic=st.none() | traffic,
    adapter=st.none() | adapters,
    history=st.lists(st.builds(VersionEvent, event=text, at=moments, detail=options), max_size=2).map(tuple),
)
golden_queries = st.builds(
    GoldenQuery, id=text, text=text, relevant=st.dictionaries(text, ints32, max_size=3)
)
measured = st.builds(
    MeasuredVersion, version=text, failed=ints32, p50_ms=floats, p95_ms=floats, ndcg=st.none() | floats
)
comparisons = st.builds(
    Comparison,
    a=measured,
    b=measured,
    source=st.sampled_from(QuerySource),
    queries=ints32,
    skipped=ints32,
    overlap=floats,
    rank_biased_overlap=floats,
    judged=ints32,
    ndcg_delta=st.none() | st.builds(Interval, mean=floats, low=floats, high=floats),
)
plans = st.builds(
    RebuildPlan,
    recipe=recipes,
    space=text,
    dim=ints32,
    documents=counts,
    chunks=counts,
    chunks_estimated=st.booleans(),
    texts_to_embed=counts,
    tokens=counts,
    embed_s=floats,
    build_s=floats,
    disk_bytes=counts,
    memory_bytes=counts,
    notes=names,
)
missing_texts = st.builds(
    MissingTexts,
    texts=st.lists(st.builds(MissingText, text_hash=st.binary(max_size=16), text=text), max_size=2).map(
        tuple
    ),
    lease=text,
    lease_s=floats,
    space=text,
    dim=ints32,
    embedder=options,
    missing=counts,
    parked=counts,
    done=st.booleans(),
)
collections = st.builds(
    Collection, name=text, serving=versions, documents=counts, chunks=counts, seq=counts, created_at=moments
)


def through_bytes(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())


@given(documents)
def test_documents(document: Document) -> None:
    decoded = wire.decode_document(through_bytes(wire.encode_document(document)))
    assert decoded == document
    assert decoded.vector == document.vector


@given(metadata)
def test_metadata_keeps_the_type_of_every_value(given_metadata: dict[str, Any]) -> None:
    message = through_bytes(wire.encode_document(Document(id="1", metadata=given_metadata)))
    decoded = decode_metadata(message.metadata)
    assert {key: type(value) for key, value in decoded.items()} == {
        key: type(value) for key, value in given_metadata.items()
    }


@given(queries)
def test_queries(query: Query) -> None:
    assert wire.decode_query(through_bytes(wire.encode_query(query))) == query


@given(vectors, text.filter(bool))
def test_a_query_s_vector_and_its_space(vector: array[float], space: str) -> None:
    decoded = wire.decode_query(through_bytes(wire.encode_query(Query(vector=vector, space=space))))
    assert (decoded.vector, decoded.space) == (vector, space)


@given(results)
def test_search_results(result: SearchResult) -> None:
    message = retrieval_pb2.SearchResult()
    wire.put_result(message, result)
    assert wire.decode_result(through_bytes(message)) == result


@given(
    st.builds(
        Generation,
        max_tokens=st.none() | ints32,
        temperature=st.none() | floats,
        seed=st.none() | st.integers(-(2**63), 2**63 - 1),
        stop=names,
        json_schema=st.none() | st.dictionaries(text, st.integers() | text, min_size=1, max_size=2),
        logprobs=st.booleans(),
    )
)
def test_generations(generation: Generation) -> None:
    there = through_bytes(wire_answers.encode_generation(generation))
    assert wire_answers.decode_generation(there) == generation


@given(st.lists(st.builds(Turn, role=st.sampled_from(Role), text=text), max_size=3).map(tuple))
def test_conversations(history: tuple[Turn, ...]) -> None:
    there = [through_bytes(turn) for turn in wire_answers.encode_history(history)]
    assert wire_answers.decode_history(there) == history


@pytest.mark.parametrize("schema", ["{", "[]", "3"])
def test_a_schema_that_is_no_json_object_is_refused(schema: str) -> None:
    with pytest.raises(InvalidArgument, match=r"generation\.json_schema"):
        wire_answers.decode_generation(retrieval_pb2.Generation(json_schema=schema))


@given(events)
def test_answer_events(event: Any) -> None:
    assert wire_answers.decode_event(through_bytes(wire_answers.encode_event(event))) == event


@given(
    st.builds(
        UsageRecord,
        day=st.dates(),
        tenant=text,
        generator=text,
        model=text,
        answers=counts,
        usage=usages,
    )
)
def test_usage_records(record: UsageRecord) -> None:
    there = through_bytes(wire_answers.encode_usage_record(record))
    assert wire_answers.decode_usage_record(there) == record


@pytest.mark.parametrize("day", ["2026-13-01", "yesterday"])
def test_a_day_that_is_none_is_refused_by_field(day: str) -> None:
    with pytest.raises(InvalidArgument, match="first_day"):
        wire_answers.decode_day(day, "first_day")


@given(collections)
def test_collections_with_their_version_and_recipe(collection: Collection) -> None:
    assert (
        wire_versions.decode_collection(through_bytes(wire_versions.encode_collection(collection)))
        == collection
    )


@given(versions)
def test_versions_with_their_progress_gates_and_traffic(version: Version) -> None:
    assert wire_versions.decode_version(through_bytes(wire_versions.encode_version(version))) == version


@given(rerank_scores)
def test_scores_of_a_reranker(result: RerankScores) -> None:
    assert wire.decode_rerank_scores(through_bytes(wire.encode_rerank_scores(result))) == result


@given(golden_queries)
def test_golden_queries(query: GoldenQuery) -> None:
    message = through_bytes(wire_versions.encode_golden_query(query))
    assert wire_versions.decode_golden_query(message) == query


@given(comparisons)
def test_comparisons_of_versions(comparison: Comparison) -> None:
    message = through_bytes(wire_versions.encode_comparison(comparison))
    assert wire_versions.decode_comparison(message) == comparison


@given(plans)
def test_plans_of_rebuilds(plan: RebuildPlan) -> None:
    assert wire_versions.decode_plan(through_bytes(wire_versions.encode_plan(plan))) == plan


@given(missing_texts)
def test_texts_that_are_lent(part: MissingTexts) -> None:
    message = through_bytes(wire_versions.encode_missing_texts(part))
    assert wire_versions.decode_missing_texts(message) == part


@given(counts, counts, counts, counts)
def test_write_results(seq: int, written: int, unchanged: int, chunks: int) -> None:
    result = WriteResult(seq=seq, documents=written, unchanged=unchanged, chunks=chunks)
    assert wire.decode_write_result(through_bytes(wire.encode_write_result(result))) == result


def test_server_info() -> None:
    info = ServerInfo(version="1", max_message_bytes=2**25, max_k=9, max_batch=4, embedder={"model": "m"})
    assert wire.decode_info(through_bytes(wire.encode_info(info))) == info


@given(options)
def test_whole_numbers_of_a_recipe_come_back_as_integers(table: dict[str, Any]) -> None:
    struct = encode_options(table, "recipe.index")
    decoded = {} if struct is None else decode_options(through_bytes(struct))
    assert decoded == table
    whole = [v for v in decoded.values() if isinstance(v, float) and v.is_integer() and abs(v) <= 2**53]
    assert whole == []


def test_a_moment_without_a_zone_is_taken_as_utc() -> None:
    document = Document(id="1", metadata={"at": datetime(2024, 5, 1, 12)})
    decoded = wire.decode_document(wire.encode_document(document))
    assert decoded.metadata["at"] == datetime(2024, 5, 1, 12, tzinfo=UTC)


def test_what_a_query_leaves_out_takes_the_defaults() -> None:
    assert wire.decode_query(retrieval_pb2.Query()) == Query()
    assert wire.decode_query(retrieval_pb2.Query(fusion={})).fusion == Fusion()


def test_a_state_of_a_newer_server_is_unknown() -> None:
    message = wire_versions.encode_version(
        Version(
            name="v1",
            collection="docs",
            state="a state to come",
            recipe=Recipe(),
            space="s",
            dim=2,
            applied_seq=0,
            created_at=datetime(2024, 5, 1, tzinfo=UTC),
        )
    )
    assert wire_versions.decode_version(message).state == "unknown"


def test_an_event_of_a_newer_server_is_passed_over() -> None:
    assert wire_answers.decode_event(retrieval_pb2.AnswerResponse()) is None


def test_a_write_waits_for_the_index_unless_told_otherwise() -> None:
    assert wire.decode_wait(documents_pb2.UpsertDocumentsRequest().wait) == "indexed"
