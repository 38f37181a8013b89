"""Real text that every machine has offline, and its embeddings, kept between runs.

The texts are the sentences of docstrings, read with ``ast`` (nothing is imported) from the standard
library and the installed packages.
"""

from __future__ import annotations

import argparse
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
from rich.progress import track

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "ragstone-bench"
DIM = 384
_MAX_WORDS = 20
_PER_FILE = 60
_SENTENCE_END = re.compile(r"(?<=[.!?:])\s+")
_BLOCK = 1_000


def sentences(count: int, *, seed: int = 7) -> list[str]:
    """``count`` different short texts (5 to 20 words), chosen once a machine and then kept."""
    kept = CACHE / f"texts-{count}-{seed}.json"
    if kept.exists():
        return list(json.loads(kept.read_text()))
    found: dict[str, None] = {}
    for path in _sources(seed):
        for text in islice(_sentences_of(path), _PER_FILE):
            found[text] = None
        if len(found) >= count:
            break
    else:
        raise SystemExit(f"only {len(found)} texts are installed here; {count} were asked for")
    texts = list(found)[:count]
    CACHE.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(texts))
    return texts


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
    for block in track(blocks, description="Embedding (kept for later runs)"):
        vectors = model.encode(block, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
        partial = _file(block).with_suffix(".partial.npy")
        np.save(partial, np.asarray(vectors, dtype=np.float32))
        partial.replace(_file(block))


def _file(block: list[str]) -> Path:
    digest = hashlib.sha256("\0".join(block).encode()).hexdigest()[:16]
    return CACHE / f"minilm-{digest}.npy"


def _sources(seed: int) -> list[Path]:
    roots = (Path(sysconfig.get_path(key)) for key in ("stdlib", "purelib"))
    paths = sorted({path for root in roots for path in root.rglob("*.py")})
    random.Random(seed).shuffle(paths)
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
    """Fill the cache for ``--rows`` texts."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rows", type=int, default=51_000)
    embeddings(sentences(parser.parse_args().rows))


if __name__ == "__main__":
    main()
