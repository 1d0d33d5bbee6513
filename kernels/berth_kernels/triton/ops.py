"""What is not attention, on a GPU: draws and page copies by Triton; norms, rotation and activation are torch's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth_kernels.ops_reference import ReferenceOps
from berth_kernels.triton.pages import copy_pages
from berth_kernels.triton.sampling import sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from berth_kernels.interface import KVLayer
    from berth_kernels.ops import Draw


class TritonOps(ReferenceOps):
    """Torch and Triton."""

    def sample(self, logits: Tensor, draws: Sequence[Draw]) -> Tensor:
        return sample(logits, draws)

    def copy_pages(self, pool: Sequence[KVLayer], sources: NDArray[np.int32], targets: NDArray[np.int32]) -> None:
        copy_pages(pool, sources, targets)
