"""What a decoder asks of its kernels before it serves."""

from __future__ import annotations

import pytest
import torch

from berth_kernels.interface import AttentionShape, KernelError
from berth_kernels.reference import ReferenceKernels
from berth_worker.builtin import BUILTIN_MODELS
from berth_worker.models.config import load_config
from berth_worker.models.decoder import Decoder
from berth_worker.models.weights import allocate


class Choosy(ReferenceKernels):
    """Serves no model, and says of which kind it was."""

    def prepare(self, model: AttentionShape) -> None:
        raise KernelError(repr(model))


def test_kernels_are_prepared_for_the_model_and_may_refuse_it():
    config = load_config(BUILTIN_MODELS["berth-tiny"])
    wanted = AttentionShape(
        config.heads,
        config.kv_heads,
        config.head_dim,
        torch.bfloat16,
        torch.device("cpu"),
        frozenset(config.windows),
    )
    with pytest.raises(KernelError) as refused:
        Decoder(config, allocate(config, torch.bfloat16), Choosy(), 32)
    assert str(refused.value) == repr(wanted)
