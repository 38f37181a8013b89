"""How the outcome of tuning looks: tables for people, JSON, and the recipe as TOML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import tomli_w
from rich import box
from rich.table import Table

from ragstone.types import Interval, Recipe
from retrieval.cli import output
from retrieval.cli.options import SECTIONS
from retrieval.cli.tuning import Setting, Step, Values
from retrieval.versions.comparison import paired_bootstrap


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A setting, and the nDCG@10 of each query of the test half with it."""

    name: str
    setting: Setting
    values: Values

    @property
    def ndcg(self) -> float:
        """Its mean."""
        return float(self.values.mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What tuning found. The first one measured is held against the others, the last is the chosen one."""

    collection: str
    seed: int
    train: int
    """Queries tuned on."""
    test: int
    """Queries measured on."""
    steps: Sequence[Step]
    measured: Sequence[Measured]
    recipe: Recipe
    unscored: int
    """Queries that the reranker has answered only in part."""
    seconds: float

    def gain(self, measured: Measured) -> Interval:
        """Over the first one."""
        return paired_bootstrap((measured.values - self.measured[0].values).tolist())

    def toml(self) -> str:
        """The recipe, as `--recipe` takes it."""
        first, chosen = self.measured[0], self.measured[-1]
        return (
            f"# {self.collection}, tuned on {self.train} judged queries with seed {self.seed}.\n"
            f"# nDCG@10 on {self.test} others: {first.name} {first.ndcg:.3f}, this {chosen.ndcg:.3f}"
            f" ({interval(self.gain(chosen))}).\n\n"
        ) + tomli_w.dumps({name: dict(getattr(self.recipe, name)) for name in SECTIONS})

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "collection": self.collection,
            "seed": self.seed,
            "train": {"queries": self.train, "steps": [_step_json(step) for step in self.steps]},
            "test": {"queries": self.test, "measured": [self._measured_json(one) for one in self.measured]},
            "recipe": asdict(self.recipe),
            "unscored": self.unscored,
            "seconds": round(self.seconds, 1),
        }

    def _measured_json(self, measured: Measured) -> dict[str, Any]:
        return {
            "name": measured.name,
            "setting": _setting_json(measured.setting),
            "ndcg@10": measured.ndcg,
            "gain": asdict(self.gain(measured)),
        }


def show(report: Report) -> None:
    """Print the steps and the measurements as tables."""
    console = output.stdout()
    steps = _table(
        f"tuned on {report.train} queries", "looked at", "version", "best", "nDCG@10", "gain, 95%", ""
    )
    for step in report.steps:
        cells = (step.part, *_cells(step.setting, step.ndcg), interval(step.gain))
        steps.add_row(*cells, "chosen" if step.pays else "does not pay", style=None if step.pays else "dim")
    console.print(steps)
    gain = f"beside {report.measured[0].name}, 95%"
    found = _table(f"measured on {report.test} others", "", "version", "setting", "nDCG@10", gain)
    for one in report.measured:
        told = "" if one is report.measured[0] else interval(report.gain(one))
        found.add_row(one.name, *_cells(one.setting, one.ndcg), told)
    console.print(found)
    if report.unscored:
        console.print(
            f"The reranker had no time for all candidates of {report.unscored} queries: give fewer with "
            "--rerank-depth, or more with reranker.timeout_s."
        )
    console.print(f"It took {output.duration(report.seconds)}.", style="dim")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _cells(setting: Setting, ndcg: float) -> tuple[str, str, str]:
    return setting.version, setting.told(), f"{ndcg:.4f}"


def interval(gain: Interval) -> str:
    """A mean and where it lies: ``+0.012 (+0.003 to +0.021)``."""
    return f"{gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"


def _step_json(step: Step) -> dict[str, Any]:
    return {
        "part": step.part,
        "setting": _setting_json(step.setting),
        "ndcg@10": step.ndcg,
        "gain": asdict(step.gain),
        "chosen": step.pays,
    }


def _setting_json(setting: Setting) -> dict[str, Any]:
    rerank = setting.rerank
    return {
        "version": setting.version,
        "fusion": setting.fusion.model_dump(mode="json"),
        "rerank": None if rerank is None else asdict(rerank),
    }
