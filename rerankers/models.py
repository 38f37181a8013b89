"""Where a model's files are."""

from __future__ import annotations

from pathlib import Path

from ragstone.errors import BackendUnavailable, InvalidArgument

_NOT_NEEDED = ["*.onnx", "onnx/*", "openvino/*", "*.h5", "*.ot", "*.msgpack", "*.gguf", "coreml/*"]


def find_model(model: str, revision: str | None = None) -> Path:
    """The folder of ``model``: a folder itself, or a model id in the local cache or on the hub.

    Blocks on disk, and on the network as the last resort. Raises InvalidArgument when there is no such model,
    BackendUnavailable when only the hub could have it and does not answer.
    """
    if model.startswith(("/", ".", "~")) or Path(model).is_dir():
        path = Path(model).expanduser()
        if not path.is_dir():
            raise _wrong("model", f"{model!r} is not a folder")
        return path
    return _cached(model, revision) or _downloaded(model, revision)


def _cached(model: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(model, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as exc:
        raise _wrong("model", f"{model!r} is neither a folder nor a model id") from exc
    # A cache may hold nothing but the configuration that somebody once looked at.
    weights = [*path.glob("*.safetensors"), *path.glob("pytorch_model*.bin")]
    return path if weights and (path / "config.json").exists() else None


def _downloaded(model: str, revision: str | None) -> Path:
    from httpx import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(snapshot_download(model, revision=revision, ignore_patterns=_NOT_NEEDED))
    except RevisionNotFoundError as exc:
        raise _wrong("revision", f"{model!r} has no revision {revision!r}") from exc
    except RepositoryNotFoundError as exc:
        raise _wrong("model", f"the hub has no model {model!r}, or not for this account") from exc
    except (HfHubHTTPError, HTTPError, OSError) as exc:
        raise BackendUnavailable(
            f"model {model!r} is not on this machine and the hub does not answer: "
            "go online once, or copy the model here and name its folder"
        ) from exc


def _wrong(option: str, description: str) -> InvalidArgument:
    return InvalidArgument.at(f"recipe.reranker.{option}", description)
