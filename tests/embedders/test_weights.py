"""Which weights a model id or a folder stands for."""

import shutil
from pathlib import Path

import pytest

import embedders.weights
from embedders.weights import DEFAULT_DIGEST, DEFAULT_MODEL, find_weights, weights_digest
from ragstone.errors import CorruptIndex, InvalidArgument


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("no_hub")
def test_the_default_model_needs_no_network() -> None:
    found = find_weights(DEFAULT_MODEL)
    assert (found.name, found.digest) == (DEFAULT_MODEL, DEFAULT_DIGEST)


@pytest.mark.usefixtures("no_hub")
def test_known_weights_keep_their_name_wherever_they_lie(tmp_path: Path) -> None:
    copy = tmp_path / "my-model"
    shutil.copytree(find_weights(DEFAULT_MODEL).path, copy)
    assert find_weights(str(copy)).name == DEFAULT_MODEL


def test_other_weights_are_named_after_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    found = find_weights(str(folder))
    assert found.name == "mine"
    assert found.digest != DEFAULT_DIGEST


@pytest.mark.usefixtures("no_hub")
def test_packaged_weights_that_are_not_the_published_ones_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedders.weights, "_KNOWN", {"0" * 64: DEFAULT_MODEL})
    with pytest.raises(CorruptIndex, match="published"):
        find_weights(DEFAULT_MODEL)


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("model", ["not a model id", "a/b/c"])
def test_a_name_that_is_neither_folder_nor_model_id_is_refused(model: str) -> None:
    with pytest.raises(InvalidArgument):
        find_weights(model)


def test_the_digest_of_several_files_covers_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"one")
    (tmp_path / "b.safetensors").write_bytes(b"two")
    before = weights_digest(tmp_path)
    (tmp_path / "b.safetensors").write_bytes(b"2")
    assert weights_digest(tmp_path) != before


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="safetensors"):
        find_weights(str(tmp_path))
