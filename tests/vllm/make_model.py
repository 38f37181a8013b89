"""Make a small Llama for a real vLLM to serve: random weights, so its answers mean nothing.

    python tests/vllm/make_model.py tiny .cache/vllm/tiny

The answers depend on the prompt and, at temperature 0, on nothing else. The tokenizer, byte-level BPE, is
trained on the standard library's sources: nothing is downloaded. The same size, versions of the libraries and
Python make the same files. Runs in .venv-vllm (`make vllm`).
"""

from __future__ import annotations

import argparse
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WEIGHTS_STD: Final = 0.3
"""Wide: with the usual 0.02 a model that was never trained says the same whatever it is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A head is 64 numbers wide, the narrowest that every attention kernel takes."""

    hidden: int
    layers: int
    vocabulary: int
    context_tokens: int


SIZES: Final = {
    "tiny": Size(hidden=128, layers=2, vocabulary=4_096, context_tokens=4_096),  # 1.4 M parameters, 3 MB
    "mid": Size(hidden=512, layers=8, vocabulary=8_192, context_tokens=8_192),  # 29 M parameters, 59 MB
}


def make(size: Size, folder: Path) -> None:
    """Write weights, configuration and tokenizer, all or nothing."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer = _tokenizer(size)
    _model(size, tokenizer).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _tokenizer(size: Size) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size.vocabulary,
        special_tokens=[BEGIN, END, PAD, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train([str(path) for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))], trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        model_max_length=size.context_tokens,
        clean_up_tokenization_spaces=False,
    )


def _model(size: Size, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.hidden,
            intermediate_size=2 * size.hidden,
            num_hidden_layers=size.layers,
            num_attention_heads=size.hidden // 64,
            num_key_value_heads=size.hidden // 64,
            max_position_embeddings=size.context_tokens,
            tie_word_embeddings=False,
            initializer_range=WEIGHTS_STD,
            **special,
        )
    )
    model.generation_config = GenerationConfig(**special)  # type: ignore[no-untyped-call]
    model.bfloat16()
    return model


def main() -> None:
    """``make_model.py SIZE FOLDER``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    make(SIZES[options.size], options.folder)


if __name__ == "__main__":
    main()
