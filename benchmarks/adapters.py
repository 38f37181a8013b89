"""Query adapters on real collections: a new space's queries over an old space's index.

    python -m benchmarks.adapters                       # scifact and squad-dev under ../shared/data
    RAGSTONE_DATA=DIR python -m benchmarks.adapters --collections scifact --json

Spaces are made of the one real model at hand: the default one, texts cut at 64 tokens, the first token
instead of the mean, the hidden states of a lower layer; and hashed words, which know no meaning. For each
pair the adapter is picked as a rebuild does it, from 2,000 passages in both spaces. Then the collection's own
queries, which it has never seen, are searched exactly in four ways: all embedded anew, through the adapter,
by the old model, and in the new space over the old index without any adapter.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from benchmarks import judged, report
from benchmarks.judged import Judged
from benchmarks.models import minilm
from benchmarks.texts import PROGRESS
from embedders.base import Space
from embedders.hashing import HashingEmbedder
from retrieval.versions.adapters.picking import Measurement, Picked, pick

Vectors = NDArray[np.float32]

TEXTS: Final = 2_000
_LAYER: Final = 4
_BATCH: Final = 32

DIM: Final = 384
OF_THE_MODEL: Final = ("default", "64 tokens", "first token", "layer 4")
SPACES: Final[Mapping[str, Space]] = {
    **{name: Space(name=name, dim=DIM, pooling=name) for name in OF_THE_MODEL},
    "hashing": HashingEmbedder(dim=DIM).space,
}
PAIRS: Final = (
    ("64 tokens", "default"),
    ("first token", "default"),
    ("layer 4", "default"),
    ("default", "layer 4"),
    ("hashing", "default"),
)
"""Old, new."""


@dataclass(frozen=True, slots=True)
class Side:
    """A collection in every space: float32 ``(n, DIM)``, by the space's name."""

    passages: Mapping[str, Vectors]
    queries: Mapping[str, Vectors]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One pair of spaces on one collection; recall and nDCG are at 10, against the judgments."""

    collection: str
    old: str
    new: str
    kind: str
    held_out: float
    """Recall@10 of held-out passages, as the gate sees it."""
    shared: float
    """Of the ten that all embedded anew finds, the share that the adapter finds."""
    recall: Mapping[str, float]
    ndcg: Mapping[str, float]

    @property
    def recovered(self) -> float:
        """Of the recall of all embedded anew."""
        return self.recall["adapted"] / self.recall["anew"]


def main() -> None:
    """Embed, learn, search, and show."""
    options = _parse()
    rows = [row for name in options.collections for row in _collection(name)]
    report.show(
        f"Adapters from {TEXTS:,} texts; queries that they have not seen; recall@10 (nDCG@10)",
        ("old to new", "collection", "kind", "held out", "anew", "adapted", "old", "none", "is"),
        [_cells(row) for row in rows],
        quiet=options.json,
    )
    if options.json:
        report.print_json(
            {"texts": TEXTS, "rows": [{**asdict(row), "recovered": row.recovered} for row in rows]}
        )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--collections", nargs="+", default=["scifact", "squad-dev"], metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


def _cells(row: Row) -> tuple[str, ...]:
    ways = (f"{row.recall[way]:.3f} ({row.ndcg[way]:.3f})" for way in ("anew", "adapted", "old", "none"))
    return (
        f"{row.old} to {row.new}",
        row.collection,
        row.kind,
        f"{row.held_out:.3f}",
        *ways,
        f"{row.recovered:.2f} x",
    )


def _collection(name: str) -> list[Row]:
    collection = judged.load(name)
    side = Side(
        _embed(collection.passages, f"{name}: passages"),
        _embed(list(collection.queries.values()), f"{name}: queries"),
    )
    return [_pair(name, collection, old, new, side) for old, new in PAIRS]


def _pair(name: str, collection: Judged, old: str, new: str, side: Side) -> Row:
    sample = np.sort(np.random.default_rng(1).permutation(len(collection.ids))[:TEXTS])
    picked: Picked = pick(
        side.passages[new][sample], side.passages[old][sample], new_space=SPACES[new], old_space=SPACES[old]
    )
    found = {
        "anew": judged.nearest(side.queries[new], side.passages[new]),
        "adapted": judged.nearest(picked.adapter.apply(side.queries[new]), side.passages[old]),
        "old": judged.nearest(side.queries[old], side.passages[old]),
        "none": judged.nearest(side.queries[new], side.passages[old]),
    }
    values = {way: judged.judge(collection, rows) for way, rows in found.items()}
    measured: Measurement = picked.measurement
    return Row(
        collection=name,
        old=old,
        new=new,
        kind=measured.kind,
        held_out=measured.recall,
        shared=_shared(found["anew"], found["adapted"]),
        recall={way: recall for way, (recall, _) in values.items()},
        ndcg={way: ndcg for way, (_, ndcg) in values.items()},
    )


def _shared(wanted: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    return float(np.mean([len({*a} & {*b}) / judged.K for a, b in zip(wanted, found, strict=True)]))


# -- spaces -----------------------------------------------------------------------------------


def _embed(texts: Sequence[str], told: str) -> dict[str, Vectors]:
    """Texts in every space, in their order."""
    model = minilm()
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    vectors = {name: np.zeros((len(texts), DIM), np.float32) for name in SPACES if name != "hashing"}
    for start in track(range(0, len(order), _BATCH), description=told, console=PROGRESS):
        rows = order[start : start + _BATCH]
        batch = [texts[row] for row in rows]
        for name, found in _forward(model, batch).items():
            vectors[name][rows] = found
    hashed = asyncio.run(HashingEmbedder(dim=DIM).embed_passages(texts))
    return {**vectors, "hashing": hashed}


@torch.inference_mode()
def _forward(model: Any, batch: Sequence[str]) -> dict[str, Vectors]:
    whole = model[0].auto_model(**_tokens(model, batch, 256), output_hidden_states=True)
    mask = _tokens(model, batch, 256)["attention_mask"]
    short = _tokens(model, batch, 64)
    cut = model[0].auto_model(**short).last_hidden_state
    return {
        "default": _mean(whole.last_hidden_state, mask),
        "64 tokens": _mean(cut, short["attention_mask"]),
        "first token": _unit(whole.last_hidden_state[:, 0]),
        "layer 4": _mean(whole.hidden_states[_LAYER], mask),
    }


def _tokens(model: Any, batch: Sequence[str], longest: int) -> Any:
    return model.tokenizer(
        list(batch), padding=True, truncation=True, max_length=longest, return_tensors="pt"
    )


def _mean(states: torch.Tensor, mask: torch.Tensor) -> Vectors:
    weights = mask.unsqueeze(-1).float()
    return _unit((states * weights).sum(dim=1) / weights.sum(dim=1))


def _unit(rows: torch.Tensor) -> Vectors:
    unit: Vectors = torch.nn.functional.normalize(rows, dim=1).numpy()
    return unit


if __name__ == "__main__":
    main()
