"""``ragstone search`` and ``ragstone ask``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ragstone.answers import Citation, Done, Generation, TextDelta, Usage
from ragstone.errors import InvalidArgument
from ragstone.types import AnswerEvent, Contexts, Fusion, Hit, Mode, Rerank
from retrieval.cli import output
from retrieval.cli.options import (
    CollectionArgument,
    FilterOption,
    JsonOption,
    ServerOption,
    TimeoutOption,
    connect,
)


class FusionKind(StrEnum):
    """How two legs become one ranking."""

    RRF = "rrf"
    WEIGHTED = "weighted"


ModeOption = Annotated[Mode, typer.Option("--mode", help="Which legs answer.")]
FusionOption = Annotated[
    FusionKind | None,
    typer.Option("--fusion", show_default="as the recipe says", help="How the legs are fused."),
]


RequestKeyOption = Annotated[
    str,
    typer.Option(
        "--request-key",
        metavar="KEY",
        show_default=False,
        help="Who asks, a user or a session: equal keys are answered by one version while another is tried.",
    ),
]


SpaceOption = Annotated[
    str | None,
    typer.Option(
        "--space",
        metavar="SPACE",
        show_default="the serving version's",
        help="Whose model embeds the query: of a version that is being built, through its adapter.",
    ),
]


VersionOption = Annotated[
    str,
    typer.Option(
        "--version",
        metavar="VERSION",
        show_default="the one that serves",
        help="Which open version answers: `ragstone versions list` shows them.",
    ),
]


RerankOption = Annotated[
    bool | None,
    typer.Option("--rerank/--no-rerank", show_default="as the recipe says", help="Rerank the candidates."),
]
RerankDepthOption = Annotated[
    int | None,
    typer.Option(
        "--rerank-depth", min=1, show_default="as the recipe says", help="How many candidates are reranked."
    ),
]


def rerank_of(asked: bool | None, depth: int | None) -> Rerank | None:
    """What ``--rerank`` and ``--rerank-depth`` say; ``None`` leaves it to the collection's recipe."""
    if asked is False and depth is not None:
        raise typer.BadParameter("has no use with --no-rerank", param_hint="--rerank-depth")
    return None if asked is None and depth is None else Rerank(off=asked is False, depth=depth)


def fusion_of(kind: FusionKind | None) -> Fusion | None:
    """The fusion that ``--fusion`` names; ``None`` leaves it to the collection's recipe."""
    return None if kind is None else Fusion(kind=kind.value)


def search(
    collection: CollectionArgument,
    query: Annotated[str, typer.Argument(metavar="QUERY", show_default=False, help="What to look for.")],
    k: Annotated[int, typer.Option("-k", "--k", help="How many hits.")] = 10,
    mode: ModeOption = Mode.HYBRID,
    where: FilterOption = "",
    fusion: FusionOption = None,
    language: Annotated[
        str | None, typer.Option(metavar="CODE", show_default="detected", help="The query's language.")
    ] = None,
    rerank: RerankOption = None,
    rerank_depth: RerankDepthOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each leg thought of a hit.")] = False,
    space: SpaceOption = None,
    version: VersionOption = "",
    request_key: RequestKeyOption = "",
    timeout: TimeoutOption = None,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Find the passages that answer a query."""
    with connect(server) as client:
        result = client.search(
            collection,
            query,
            k=k,
            mode=mode,
            filter=where,
            fusion=fusion_of(fusion),
            language=language,
            explain=explain,
            space=space,
            version=version,
            request_key=request_key,
            rerank=rerank_of(rerank, rerank_depth),
            timeout=timeout,
        )
    if result.truncation is not None:
        output.stderr().print(output.truncation_line(result.truncation), style="dim")
    if as_json:
        output.print_json(output.search_json(result))
        return
    console = output.stdout()
    console.print(output.hits_table(result.hits, explain=explain))
    for line in output.plan_lines(result):
        console.print(line, style="dim")
    console.print(output.result_line(result), style="dim")


@dataclass
class Transcript:
    """An answer as it arrives."""

    pieces: list[str] = field(default_factory=list)
    citations: list[Citation] = field(default_factory=list)
    contexts: tuple[Hit, ...] = ()
    usage: Usage | None = None
    done: Done | None = None

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self.pieces)

    def add(self, event: AnswerEvent) -> None:
        """Take the next event of the stream."""
        match event:
            case Contexts():
                self.contexts = event.hits
            case TextDelta():
                self.pieces.append(event.text)
            case Citation():
                self.citations.append(event)
            case Usage():
                self.usage = event
            case Done():
                self.done = event

    def sources(self) -> list[str]:
        """One line a citation: the passage's number, where it stands, and what it quotes."""
        numbers = {hit.chunk_id: number for number, hit in enumerate(self.contexts, start=1)}
        return [
            f"[{numbers.get(c.chunk_id, '?')}] {c.document_id} ({c.start}:{c.end})  "
            f"{output.snippet(c.quote, 100)}".rstrip()
            for c in self.citations
        ]


def _json_schema(file: Path | None) -> dict[str, Any] | None:
    if file is None:
        return None
    try:
        schema = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise InvalidArgument.at("--schema", f"{file} holds no JSON: {exc}") from exc
    if not isinstance(schema, dict):
        raise InvalidArgument.at("--schema", f"{file} holds no JSON object")
    return schema


def ask(
    collection: CollectionArgument,
    question: Annotated[str, typer.Argument(metavar="QUESTION", show_default=False, help="What to answer.")],
    k: Annotated[int, typer.Option("-k", "--k", help="How many passages the answer may use.")] = 5,
    mode: ModeOption = Mode.HYBRID,
    where: FilterOption = "",
    rerank: RerankOption = None,
    space: SpaceOption = None,
    version: VersionOption = "",
    request_key: RequestKeyOption = "",
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="The length of the answer at most.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0.0, max=2.0, help="0 is the most likely text.")
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option("--schema", exists=True, dir_okay=False, help="A JSON schema to answer in."),
    ] = None,
    timeout: TimeoutOption = None,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Answer a question from the passages found, and cite them."""
    answer = Transcript()
    with connect(server) as client:
        events = client.answer(
            collection,
            question,
            k=k,
            mode=mode,
            filter=where,
            space=space,
            version=version,
            request_key=request_key,
            rerank=rerank,
            generation=Generation(
                max_tokens=max_tokens, temperature=temperature, json_schema=_json_schema(schema)
            ),
            timeout=timeout,
        )
        for event in events:
            answer.add(event)
            if isinstance(event, Contexts) and event.truncation is not None:
                output.stderr().print(output.truncation_line(event.truncation), style="dim")
            if isinstance(event, TextDelta) and not as_json:
                typer.echo(event.text, nl=False)
    if as_json:
        value = output.answer_json(answer.text, answer.citations, answer.contexts, answer.usage, answer.done)
        output.print_json(value)
        return
    typer.echo("" if answer.pieces else "No passage answers this.")
    for line in answer.sources():
        typer.echo(line)
    for line in output.answer_lines(answer.usage, answer.done):
        output.stderr().print(line, style="dim")
