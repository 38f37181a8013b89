"""A served model's tokenizer, from files on this machine or from the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from embedders.weights import looks_like_path, packaged
from ragstone.errors import BackendUnavailable, InvalidArgument

_FILE: Final = "tokenizer.json"


def load_tokenizer(model: str) -> Tokenizer:
    """The ``tokenizer.json`` of a folder or a model id, without truncation or padding. Blocks.

    Raises InvalidArgument when there is none, BackendUnavailable when only the hub could have it and does
    not answer.
    """
    file = Path(model).expanduser() / _FILE if looks_like_path(model) else _by_id(model)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as exc:  # tokenizers raises nothing more precise
        raise _wrong(f"{file} is not a tokenizer that loads: {exc}") from exc
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _by_id(model: str) -> Path:
    folder = packaged(model)
    return _from_hub(model) if folder is None else folder / _FILE


def _from_hub(model: str) -> Path:
    """The file in the local hub cache, or downloaded into it."""
    from httpx import HTTPError
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    away = BackendUnavailable(
        f"the tokenizer of {model!r} is not on this machine and the hub does not answer"
    )
    try:
        return Path(hf_hub_download(model, _FILE))
    except LocalEntryNotFoundError as exc:
        raise away from exc
    except HFValidationError as exc:
        raise _wrong(f"{model!r} is neither a folder nor a model id") from exc
    except (EntryNotFoundError, RepositoryNotFoundError) as exc:
        raise _wrong(f"the hub has no {_FILE} of {model!r}, or not for this account") from exc
    except (HfHubHTTPError, HTTPError, OSError) as exc:
        raise away from exc


def _wrong(description: str) -> InvalidArgument:
    return InvalidArgument.at("recipe.embedder.tokenizer", description)
