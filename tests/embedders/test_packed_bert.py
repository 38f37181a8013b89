"""BERT with packed weights."""

import torch

from embedders.packed_bert import PackedBert, compiled
from embedders.sentence_transformer import open_model
from embedders.weights import DEFAULT_MODEL, find_weights


def test_the_pass_is_one_call_outside_the_interpreters_lock() -> None:
    bert = PackedBert(open_model(find_weights(DEFAULT_MODEL, None).path, "cpu")[0].auto_model)
    ids = torch.arange(1_000, 1_024).view(2, 12)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 5:] = False

    called = compiled(bert)

    assert isinstance(called, torch.jit.ScriptModule)
    for given in (None, mask):
        for one, other in zip(called(ids, given), bert(ids, given), strict=True):
            assert torch.allclose(one, other, atol=1e-5)
