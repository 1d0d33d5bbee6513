"""llama.cpp's file of the same numbers: other names, and another order of the rows that are rotated."""

from __future__ import annotations

import checkpoint
import numpy as np
from gguf_file import name_of, paired

HEADS, DIM, INPUTS = 3, 8, 5


def turned(values: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rotate `values` in the planes of its elements `first` and `second`, each plane by an angle of its own."""
    angles = 0.3 * (1 + np.arange(DIM // 2))
    made = values.copy()
    made[:, first] = values[:, first] * np.cos(angles) - values[:, second] * np.sin(angles)
    made[:, second] = values[:, first] * np.sin(angles) + values[:, second] * np.cos(angles)
    return made


def test_rotating_neighbours_of_paired_rows_is_rotating_halves_of_the_stored():
    rng = np.random.default_rng(1)
    query, key, hidden = (
        rng.standard_normal(shape) for shape in ((HEADS * DIM, INPUTS), (HEADS * DIM, INPUTS), INPUTS)
    )

    def heads(rows: np.ndarray) -> np.ndarray:
        return (rows @ hidden).reshape(HEADS, DIM)

    half, every = np.arange(DIM // 2), np.arange(0, DIM, 2)
    stored = turned(heads(query), half, half + DIM // 2) * heads(key)
    neighbours = turned(heads(paired(query, HEADS)), every, every + 1) * heads(paired(key, HEADS))
    np.testing.assert_allclose(neighbours.sum(axis=1), stored.sum(axis=1), rtol=1e-12)


def test_every_tensor_of_the_model_has_a_name_of_its_own():
    tensors = checkpoint.weights(checkpoint.Shape(2, 32, 64, 2, 1, 40, 256))
    assert len({name_of(tensor) for tensor in tensors}) == len(tensors)
    assert name_of("model.layers.12.self_attn.o_proj.weight") == "blk.12.attn_output.weight"
    assert name_of("model.norm.weight") == "output_norm.weight"
