"""``ragstone capacity``: what a collection of some size takes, from arithmetic and measured rates."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from ragstone.errors import InvalidArgument
from retrieval.cli import measuring, output
from retrieval.cli.estimating import Estimate
from retrieval.cli.layouts import Storage
from retrieval.cli.options import JsonOption
from retrieval.cli.rates import MODEL_PARAMETERS, PUBLISHED, Rates
from retrieval.cli.sizing import (
    GIB,
    Corpus,
    Demand,
    Hardware,
    IndexChoice,
    Kind,
    Line,
    Plan,
    Prices,
    chunks_of,
)

_CORPUS: Final = "What is indexed"
_INDEX: Final = "How"
_DEMAND: Final = "What is asked of it"
_MACHINES: Final = "Machines and prices"
_RATES: Final = "Rates"
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")
_STEP: Final = 1_024
_WHOLE: Final = 100
"""From here on no decimals."""


def _option(help_text: str, panel: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=panel, **more)


def capacity(
    documents: Annotated[int | None, _option("Documents.", _CORPUS, min=1)] = None,
    chunks: Annotated[int | None, _option("Chunks, where they are known.", _CORPUS, min=1)] = None,
    document_tokens: Annotated[
        float | None, _option("Tokens of a document, the mean; one chunk where not said.", _CORPUS, min=1)
    ] = None,
    chunk_tokens: Annotated[int, _option("Tokens of a chunk, the mean.", _CORPUS, min=1)] = 128,
    overlap_tokens: Annotated[int, _option("Tokens that chunks share.", _CORPUS, min=0)] = 32,
    token_bytes: Annotated[float, _option("Bytes of text a token.", _CORPUS, min=0.1)] = 4.5,
    metadata_bytes: Annotated[float, _option("A document's metadata, as JSON.", _CORPUS, min=0)] = 64,
    metadata_values: Annotated[float, _option("Values that filters may ask for.", _CORPUS, min=0)] = 2,
    index: Annotated[Kind, _option("The kind of the dense index.", _INDEX)] = "hnsw",
    dim: Annotated[int, _option("Dimensions of a vector.", _INDEX, min=1)] = 384,
    m: Annotated[int, _option("Links of a graph's node.", _INDEX, min=2)] = 16,
    storage: Annotated[Storage, _option("What hnsw walks over.", _INDEX)] = "sq8",
    half: Annotated[bool, _option("pgvector: halfvec instead of vector.", _INDEX, "--half")] = False,
    quantised: Annotated[bool, _option("Qdrant: 8-bit scalars.", _INDEX, "--quantised")] = False,
    tokens: Annotated[bool, _option("Token vectors for late interaction.", _INDEX)] = True,
    qps: Annotated[float, _option("Searches a second.", _DEMAND, min=0)] = 0,
    latency_ms: Annotated[float, _option("The longest a search may take.", _DEMAND, min=0)] = 0,
    replicas: Annotated[int, _option("Copies, so that one fewer may be away.", _DEMAND, min=1)] = 1,
    writes: Annotated[float, _option("Chunks written a second.", _DEMAND, min=0)] = 0,
    rebuild_hours: Annotated[float, _option("In which all is embedded anew.", _DEMAND, min=0.01)] = 24,
    server_memory: Annotated[float, _option("GiB of a server or node.", _MACHINES, min=1)] = 64,
    server_cores: Annotated[int, _option("Its cores.", _MACHINES, min=1)] = 16,
    busy: Annotated[float, _option("How busy its cores may be.", _MACHINES, min=0.05, max=1)] = 0.5,
    filled: Annotated[float, _option("How full its memory may be.", _MACHINES, min=0.05, max=1)] = 0.75,
    gpus: Annotated[int, _option("GPUs for embedding; as needed if not said.", _MACHINES, min=0)] = 0,
    gpu_tflops: Annotated[float, _option("A GPU's peak in 16 bits, TFLOP/s.", _MACHINES, min=0)] = 0,
    price_server: Annotated[float, _option("Of a server or node, a month.", _MACHINES, min=0)] = 0,
    price_disk: Annotated[float, _option("Of a GiB of disk, a month.", _MACHINES, min=0)] = 0,
    price_core_hour: Annotated[float, _option("Of a core, for embedding.", _MACHINES, min=0)] = 0,
    price_gpu_hour: Annotated[float, _option("Of a GPU, for embedding.", _MACHINES, min=0)] = 0,
    model_parameters: Annotated[
        float, _option("The embedder's weights, in millions, without its word table.", _RATES, min=0.1)
    ] = MODEL_PARAMETERS / 1e6,
    measured: Annotated[
        Path | None,
        _option("Rates of your hardware, JSON.", _RATES, metavar="FILE", exists=True, dir_okay=False),
    ] = None,
    measure: Annotated[bool, _option("Take them on this machine, now.", _RATES, "--measure")] = False,
    measure_rows: Annotated[int, _option("Rows of the index to measure.", _RATES, min=1_000)] = 10_000,
    as_json: JsonOption = False,
) -> None:
    """Show what a collection of some size takes: bytes, servers, time, cost.

    Every line says whether it is arithmetic, rests on rates that were measured on your hardware
    (--measure, or --measured FILE), or on rates that this project published of other hardware.
    """
    if measure and measured is not None:
        raise typer.BadParameter("take the rates now or from a file, not both", param_hint="--measure")
    corpus = _corpus(
        documents,
        chunks,
        document_tokens=document_tokens,
        overlap_tokens=overlap_tokens,
        sizes=Corpus(
            chunks=1,
            documents=1,
            chunk_tokens=chunk_tokens,
            bytes_a_token=token_bytes,
            metadata_bytes=metadata_bytes,
            metadata_values=metadata_values,
        ),
    )
    choice = IndexChoice(
        kind=index, dim=dim, m=m, storage=storage, half=half, quantised=quantised, tokens=tokens
    )
    rates = PUBLISHED if measured is None else Rates.read(measured)
    if measure:
        rates = _measured(choice, measure_rows)
    plan = Estimate(
        corpus=corpus,
        index=choice,
        demand=Demand(
            searches_s=qps,
            latency_ms=latency_ms,
            replicas=replicas,
            chunks_written_s=writes,
            rebuild_h=rebuild_hours,
        ),
        hardware=Hardware(
            memory=server_memory * GIB,
            cores=server_cores,
            busy=busy,
            filled=filled,
            gpus=gpus,
            gpu_tflops=gpu_tflops,
        ),
        prices=Prices(
            server_month=price_server,
            disk_gib_month=price_disk,
            core_hour=price_core_hour,
            gpu_hour=price_gpu_hour,
        ),
        rates=rates.of_model(model_parameters * 1e6),
    ).plan()
    _print(plan, corpus, choice, rates, measure=measure, as_json=as_json)


def _corpus(
    documents: int | None,
    chunks: int | None,
    *,
    document_tokens: float | None,
    overlap_tokens: int,
    sizes: Corpus,
) -> Corpus:
    """``sizes`` with its numbers filled in. Raises InvalidArgument when neither was given."""
    if documents is None and chunks is None:
        raise InvalidArgument.at("documents", "say how many: --documents, or --chunks")
    length = sizes.chunk_tokens if document_tokens is None else document_tokens
    a_document = chunks_of(
        1, document_tokens=length, chunk_tokens=sizes.chunk_tokens, overlap_tokens=overlap_tokens
    )
    known = chunks if chunks is not None else (documents or 1) * a_document
    return replace(
        sizes,
        chunks=known,
        documents=documents if documents is not None else max(1, round(known / a_document)),
        document_tokens=length,
    )


def _measured(choice: IndexChoice, rows: int) -> Rates:
    options: dict[str, object] = {}
    if choice.kind == "hnsw":
        options = {"m": choice.m, "storage": choice.storage}
    say = output.stderr().print
    return measuring.measure(
        choice, options=options, rows=rows, say=lambda step: say(f"measuring: {step} ...")
    )


# -- how it looks ---------------------------------------------------------------------------


def _print(
    plan: Plan, corpus: Corpus, choice: IndexChoice, rates: Rates, *, measure: bool, as_json: bool
) -> None:
    if as_json:
        output.print_json(_as_json(plan, corpus, choice, rates))
        return
    console = output.stdout()
    console.print(
        f"{corpus.documents:,} documents, {corpus.chunks:,} chunks of {corpus.chunk_tokens} tokens, "
        f"{choice.dim} dimensions, {choice.kind}"
    )
    console.print(_table(plan))
    for note in plan.notes:
        console.print(f"note: {note}")
    for how in measuring.HOW if measure else ():
        console.print(f"measured: {how}")


def _table(plan: Plan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("rests on", style="dim")
    table.add_column("how", style="dim", overflow="fold")
    section = ""
    for line in plan.lines:
        if line.section != section:
            section = line.section
            table.add_row(f"[bold]{section}[/bold]")
        table.add_row(f"  {line.name}", shown(line), line.basis.value, line.how)
    return table


def shown(line: Line) -> str:
    """A result as people read it: bytes by powers of 1,024, seconds as hours and minutes."""
    match line.unit:
        case "bytes":
            return _bytes(line.value)
        case "seconds":
            return output.duration(line.value)
        case unit:
            number = (
                f"{line.value:,.0f}" if line.value >= _WHOLE or line.value % 1 == 0 else f"{line.value:,.2f}"
            )
            return f"{number} {unit}".rstrip()


def _bytes(value: float) -> str:
    for unit in _UNITS[:-1]:
        if value < _STEP:
            return f"{value:,.1f} {unit}"
        value /= _STEP
    return f"{value:,.1f} {_UNITS[-1]}"


def _as_json(plan: Plan, corpus: Corpus, choice: IndexChoice, rates: Rates) -> dict[str, Any]:
    return {
        "corpus": asdict(corpus),
        "index": asdict(choice),
        "lines": [asdict(line) for line in plan.lines],
        "notes": list(plan.notes),
        "rates": rates.model_dump(mode="json"),
    }
