"""What sizing concludes: pure arithmetic over a corpus, an index, machines and rates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ragstone.errors import InvalidArgument
from retrieval.cli.estimating import Estimate
from retrieval.cli.rates import PUBLISHED, Basis, IndexRate, Rates
from retrieval.cli.sizing import (
    GIB,
    KINDS,
    Corpus,
    Demand,
    Hardware,
    IndexChoice,
    Kind,
    Prices,
    chunks_of,
    parts_of,
)

MILLION = 10**6
RATES = Rates(
    source="a test",
    embed_tokens_s_core=1_000,
    query_core_ms=4,
    service_core_ms=6,
    loop_ms=1,
    search_ms=10,
    most_searches_s=300,
    service_rows=MILLION,
    indexes={"hnsw": IndexRate(rows=MILLION, dim=384, searches_s=1_000, build_rows_s=1_000)},
)


def estimate(chunks: int = MILLION, *, kind: Kind = "hnsw", rates: Rates = RATES, **more: Any) -> Estimate:
    parts: dict[str, Any] = {
        "demand": Demand(),
        "hardware": Hardware(),
        "prices": Prices(),
        "index": IndexChoice(kind=kind),
        **more,
    }
    corpus = Corpus(chunks=chunks, documents=chunks, document_tokens=128)
    return Estimate(corpus=corpus, rates=rates, **parts)


def value(of: Estimate, section: str, name: str) -> float:
    return of.plan().value(section, name)


def test_chunks_begin_a_step_after_one_another() -> None:
    def chunks(tokens: float) -> int:
        return chunks_of(10, document_tokens=tokens, chunk_tokens=128, overlap_tokens=32)

    assert [chunks(20), chunks(128), chunks(129), chunks(224), chunks(225)] == [10, 10, 20, 20, 30]


def test_chunks_do_not_overlap_as_far_as_they_are_long() -> None:
    with pytest.raises(InvalidArgument, match="overlap"):
        chunks_of(1, document_tokens=500, chunk_tokens=32, overlap_tokens=32)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_takes_disk_for_the_vectors_themselves(kind: Kind) -> None:
    corpus = Corpus(chunks=MILLION, documents=MILLION)
    parts = parts_of(corpus, IndexChoice(kind=kind))
    dense = [part for part in parts if part.where == "store" or part.name == "raw vectors"]
    assert sum(part.size.disk for part in dense) >= 4 * 384


def test_product_codes_need_less_memory_than_a_graph_and_a_scan_most() -> None:
    needed = {kind: estimate(kind=kind).serving_memory for kind in ("ivf_pq", "hnsw", "flat")}
    assert needed["ivf_pq"] < needed["hnsw"] < needed["flat"]


def test_token_vectors_are_left_out_where_they_are_off() -> None:
    without = estimate(index=IndexChoice(tokens=False))
    assert "token vectors" not in {line.name for line in without.plan().lines}


def test_a_store_holds_the_vectors_instead_of_the_servers() -> None:
    in_store = estimate(kind="qdrant")
    assert value(in_store, "the store", "memory of one copy") == MILLION * 384 * 4 * 1.5
    assert in_store.serving_memory < estimate(kind="hnsw").serving_memory


def test_quantised_qdrant_needs_less_memory_and_more_disk() -> None:
    full, small = (estimate(index=IndexChoice(kind="qdrant", quantised=q)) for q in (False, True))
    assert value(small, "the store", "memory of one copy") < value(full, "the store", "memory of one copy")
    assert value(small, "the store", "disk of one copy") > value(full, "the store", "disk of one copy")


def test_pgvector_refuses_what_it_cannot_index() -> None:
    with pytest.raises(InvalidArgument, match="2000 dimensions"):
        estimate(index=IndexChoice(kind="pgvector", dim=3_072)).plan()
    estimate(index=IndexChoice(kind="pgvector", dim=3_072, half=True)).plan()


def test_servers_are_as_many_as_their_cores_must_be() -> None:
    # A search takes 4 + 6 + 1 ms of a core; half of 10 cores are 5,000 ms a second.
    busy = Hardware(cores=10, busy=0.5)
    assert estimate(demand=Demand(searches_s=450), hardware=busy).servers == 1
    assert estimate(demand=Demand(searches_s=460), hardware=busy).servers == 2


def test_many_cores_do_not_help_beyond_the_event_loop() -> None:
    assert estimate(demand=Demand(searches_s=1_000), hardware=Hardware(cores=1_000)).servers == 2


def test_more_than_a_server_was_seen_to_answer_is_told() -> None:
    assert "beyond the 300" in " ".join(estimate(demand=Demand(searches_s=400)).plan().notes)
    assert "beyond" not in " ".join(estimate(demand=Demand(searches_s=400, replicas=2)).plan().notes)


def test_there_are_never_fewer_servers_than_replicas() -> None:
    assert estimate(demand=Demand(searches_s=1, replicas=3)).servers == 3


def test_qdrant_has_as_many_nodes_as_hold_all_copies() -> None:
    hardware = Hardware(memory=64 * GIB, filled=0.5)
    spread = estimate(100 * MILLION, kind="qdrant", hardware=hardware, demand=Demand(replicas=2))
    assert spread.nodes == 14  # 2 x 214.6 GiB on nodes that may hold 32
    assert spread.shards == 7


def test_what_does_not_fit_is_told() -> None:
    notes = " ".join(estimate(1_000 * MILLION).plan().notes)
    assert "a server needs" in notes
    assert "no shards" in " ".join(estimate(100 * MILLION, kind="pgvector").plan().notes)


def test_a_target_that_one_search_alone_misses_is_told() -> None:
    assert "one search alone" in " ".join(estimate(demand=Demand(latency_ms=5)).plan().notes)


def test_embedding_is_tokens_over_the_window() -> None:
    day = estimate(demand=Demand(rebuild_h=24, chunks_written_s=10))
    assert value(day, "embedding", "for a rebuild in time") == pytest.approx(128 * MILLION / 86_400)
    assert value(day, "embedding", "cores, beside searches") == 3  # 1,481 + 1,280 tokens/s


def test_a_model_of_twice_the_weights_takes_twice_the_time() -> None:
    double = RATES.of_model(2 * RATES.model_parameters)
    assert double.embed_tokens_s_core == RATES.embed_tokens_s_core / 2
    assert double.search_ms == RATES.search_ms + RATES.query_core_ms


def test_a_gpus_rate_is_arithmetic_until_it_is_measured() -> None:
    assumed = estimate(hardware=Hardware(gpu_tflops=100))
    assert assumed.gpu_tokens_s == pytest.approx(0.3 * 100e12 / (2 * RATES.model_parameters))
    rates = RATES.model_copy(update={"embed_tokens_s_gpu": 5_000.0})
    measured = replace(assumed, rates=rates)
    assert measured.gpu_tokens_s == 5_000
    by = {line.name: line.basis for line in measured.plan().lines}
    assert by["one GPU"] is Basis.MEASURED


def test_a_scan_grows_with_the_rows_and_a_graph_hardly() -> None:
    rate = IndexRate(rows=10_000, dim=100, searches_s=1_000)
    assert rate.search_ms("flat", 20_000, 100) == pytest.approx(2)
    assert rate.search_ms("hnsw", 20_000, 100) == pytest.approx(1.075, abs=0.001)
    assert rate.search_ms("ivf_pq", 40_000, 200) == pytest.approx(4)


def test_what_has_no_price_is_in_no_cost() -> None:
    assert not [line for line in estimate().plan().lines if line.section == "cost"]
    priced = estimate(prices=Prices(server_month=100, disk_gib_month=0.1))
    assert value(priced, "cost", "servers and nodes") == 100
    assert value(priced, "cost", "disks") > 0


def test_published_rates_say_that_they_are_of_other_hardware() -> None:
    plan = estimate(rates=PUBLISHED, demand=Demand(searches_s=10)).plan()
    assert {line.basis for line in plan.lines if line.section == "machines"} >= {Basis.PUBLISHED}
    assert "--measure" in plan.notes[-1]
