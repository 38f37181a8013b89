"""A cross-encoder small enough to be trained while tests wait: real weights that really learned something.

It knows that questions and passages use different words for the same thing: asked for a ship, it prefers
passages about a vessel. ``python -m tests.rerankers.train_cross_encoder DIR`` writes it to a folder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

SAME = {
    "ship": "vessel",
    "harbour": "port",
    "sailor": "mariner",
    "storm": "tempest",
    "lamp": "lantern",
    "house": "dwelling",
    "road": "highway",
    "doctor": "physician",
    "child": "infant",
    "forest": "woodland",
}
"""The word of a question, and the word of the passages that answer it."""
ASKS = "where is the {} ?|who saw the {} ?".split("|")
OPENINGS = "in winter|every morning|long ago|on the island|near the coast|after dark|that year".split("|")
ENDINGS = "was old and small|could be seen from afar|had no name|was found again|came back late".split("|")

_STEPS = 600
"""At most; some 200 are enough."""
_BATCH = 64
_LEARNED = 0.02
"""The mean loss of the last steps, about."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and a passage that answers it, or does not."""

    query: str
    passage: str
    relevant: bool


def pairs(seed: int) -> Iterator[Pair]:
    """Pairs without end, one in three relevant; another seed gives others."""
    random, words = Random(seed), [*SAME]
    while True:
        asked = random.choice(words)
        told = asked if random.random() < 1 / 3 else random.choice(words)
        yield Pair(random.choice(ASKS).format(asked), passage(SAME[told], random), asked == told)


def passage(word: str, random: Random) -> str:
    """A passage about ``word``."""
    return f"{random.choice(OPENINGS)} the {word} {random.choice(ENDINGS)} ."


def train(folder: Path) -> Path:
    """Train, and save the model as any cross-encoder on the hub is saved. The same each time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        tokenizer = _tokenizer()
        model = _trained(tokenizer)
    finally:
        torch.set_num_threads(threads)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> BertTokenizer:
    texts = [*ASKS, *OPENINGS, *ENDINGS, *SAME, *SAME.values(), ". ?"]
    words = sorted({word for text in texts for word in text.split()} - {"{}"})
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    return BertTokenizer(tokenizer_object=tokenizer, model_max_length=128)


def _trained(tokenizer: BertTokenizer) -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.2,
    )
    config.num_labels = 1
    model: BertForSequenceClassification = BertForSequenceClassification(config).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    source = pairs(seed=0)
    mean = 1.0
    for _ in range(_STEPS):
        batch = [next(source) for _ in range(_BATCH)]
        features = tokenizer(
            [pair.query for pair in batch],
            [pair.passage for pair in batch],
            padding=True,
            return_tensors="pt",
        )
        logits = model(**features).logits.squeeze(-1)
        loss = binary_cross_entropy_with_logits(logits, torch.tensor([float(p.relevant) for p in batch]))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        mean += (loss.item() - mean) / 10
        if mean < _LEARNED:
            break
    return model


if __name__ == "__main__":
    train(Path(sys.argv[1]))
