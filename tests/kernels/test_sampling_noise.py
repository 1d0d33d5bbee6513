"""The bits behind the draws: pinned for ever, good enough to draw with, and the same in C."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from berth_kernels import noise
from berth_kernels.noise import bits, gumbel, row_keys

PINNED_KEYS = [[1293516399, 2802244911], [2828850248, 2367713356]]
PINNED_NOISE = [-0.855371, -0.703254, 0.278193, 0.140614, 0.793246, 5.041611, -0.216269, 0.034375]
SEEDS_AND_POSITIONS = [(0, 0), (1, 0), (0, 1), (42, 4095), ((1 << 63) - 1, (1 << 31) - 1)]
IDS = torch.tensor([0, 1, 2, 255, 256, 65_535, 65_536, 151_935, (1 << 31) - 1])

WRAPPERS = """
#include "noise.h"
uint64_t row_key(uint64_t seed, uint64_t position) { return berth_row_key(seed, position); }
uint32_t bits(uint64_t key, uint32_t id) { return berth_bits(key, id); }
float gumbel(uint32_t bits) { return berth_gumbel(bits); }
"""


def test_the_noise_is_the_same_for_ever():
    """Another backend, machine or version must go on with a turn that this one began."""
    ids = torch.tensor([0, 1, 257, 151_935])
    keys = torch.tensor([row_keys(0, 0), row_keys((1 << 63) - 1, 4095)])
    assert keys.tolist() == PINNED_KEYS
    assert gumbel(keys, ids).flatten().tolist() == pytest.approx(PINNED_NOISE, abs=1e-5)


def test_noise_is_independent_between_ids_positions_and_seeds():
    keys = torch.tensor([row_keys(seed, position) for seed in range(20) for position in range(50)])
    noise = gumbel(keys, torch.arange(400))
    # The mean and variance of a standard Gumbel distribution are Euler's constant and π² / 6.
    assert float(noise.mean()) == pytest.approx(0.57722, abs=0.01)
    assert float(noise.var()) == pytest.approx(1.64493, abs=0.02)
    assert torch.corrcoef(noise[:, :20].T).triu(1).abs().max() < 0.15
    assert torch.corrcoef(noise[:20]).triu(1).abs().max() < 0.25
    assert torch.isfinite(noise).all()


@pytest.fixture(scope="module")
def in_c(tmp_path_factory):
    """noise.h as a library."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        pytest.skip("no C compiler")
    source = tmp_path_factory.mktemp("noise") / "noise.c"
    source.write_text(WRAPPERS)
    built = source.with_suffix(".so")
    headers = Path(noise.__file__).parent
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{headers}"]
    subprocess.run([compiler, *flags, str(source), "-o", str(built), "-lm"], check=True)
    library = ctypes.CDLL(str(built))
    library.row_key.argtypes, library.row_key.restype = [ctypes.c_uint64] * 2, ctypes.c_uint64
    library.bits.argtypes, library.bits.restype = [ctypes.c_uint64, ctypes.c_uint32], ctypes.c_uint32
    library.gumbel.argtypes, library.gumbel.restype = [ctypes.c_uint32], ctypes.c_float
    return library


@pytest.mark.parametrize(("seed", "position"), SEEDS_AND_POSITIONS)
def test_c_has_the_same_bits(in_c, seed, position):
    low, high = row_keys(seed, position)
    assert in_c.row_key(seed, position) == low | high << 32
    found = [in_c.bits(low | high << 32, each) for each in IDS.tolist()]
    assert found == bits(torch.tensor([[low, high]]), IDS)[0].tolist()
    noise = gumbel(torch.tensor([[low, high]]), IDS)[0].tolist()
    assert [in_c.gumbel(each) for each in found] == pytest.approx(noise, rel=1e-6, abs=1e-6)
