"""Real text that every machine has offline, and its embeddings, kept between runs.

The texts are the sentences of docstrings, read with ``ast`` (nothing is imported) from the standard
library and the installed packages.
"""

from __future__ import annotations

import ast
import hashlib
import json
import random
import re
import sysconfig
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "ragstone-bench"
POOL = 51_000
DIM = 384
_MAX_WORDS = 20
_PER_FILE = 60
PROGRESS = Console(stderr=True)
_SENTENCE_END = re.compile(r"(?<=[.!?:])\s+")
_BLOCK = 1_000


def sentences(count: int) -> list[str]:
    """The first ``count`` of ``POOL`` different short texts (5 to 20 words), chosen once a machine."""
    if count > POOL:
        raise SystemExit(f"{count:,} texts were asked for; there are {POOL:,}")
    kept = CACHE / "texts.json"
    if not kept.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(_choose()))
    return list(json.loads(kept.read_text()))[:count]


def _choose() -> list[str]:
    found: dict[str, None] = {}
    for path in track(_sources(), description="Choosing texts", console=PROGRESS):
        for text in islice(_sentences_of(path), _PER_FILE):
            found[text] = None
        if len(found) >= POOL:
            return list(found)[:POOL]
    raise SystemExit(f"only {len(found):,} texts are installed here; {POOL:,} are needed")


def embeddings(texts: list[str]) -> NDArray[np.float32]:
    """MiniLM's unit vectors of ``texts``, float32 ``(len(texts), 384)``, computed once a block of 1,000."""
    blocks = [texts[start : start + _BLOCK] for start in range(0, len(texts), _BLOCK)]
    missing = [block for block in blocks if not _file(block).exists()]
    if missing:
        _embed(missing)
    return np.concatenate([np.load(_file(block)) for block in blocks])


def _embed(blocks: list[list[str]]) -> None:
    from benchmarks.models import minilm

    model = minilm()
    CACHE.mkdir(parents=True, exist_ok=True)
    for block in track(blocks, description="Embedding (kept for later runs)", console=PROGRESS):
        vectors = model.encode(block, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
        partial = _file(block).with_suffix(".partial.npy")
        np.save(partial, np.asarray(vectors, dtype=np.float32))
        partial.replace(_file(block))


def _file(block: list[str]) -> Path:
    digest = hashlib.sha256("\0".join(block).encode()).hexdigest()[:16]
    return CACHE / f"minilm-{digest}.npy"


def _sources() -> list[Path]:
    roots = (Path(sysconfig.get_path(key)) for key in ("stdlib", "purelib"))
    paths = sorted({path for root in roots for path in root.rglob("*.py")})
    random.Random(7).shuffle(paths)
    return paths


def _sentences_of(path: Path) -> Iterator[str]:
    for docstring in _docstrings_of(path):
        for sentence in _SENTENCE_END.split(docstring):
            words = sentence.split()
            if len(words) >= 5 and sum(word.isalpha() for word in words) * 2 > len(words):
                yield " ".join(words[:_MAX_WORDS])


def _docstrings_of(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError, RecursionError):
        return  # Test data of other packages holds files that are broken on purpose.
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring


def main() -> None:
    """Fill the cache, before a benchmark needs it."""
    embeddings(sentences(POOL))


if __name__ == "__main__":
    main()
