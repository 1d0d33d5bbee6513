"""Triton's kernels beyond the suites that every backend passes: their bits, and that a compiler for GPUs takes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
import triton
import triton.language as tl

from berth_kernels.noise import bits, row_keys
from berth_kernels.ops import Draw
from berth_kernels.triton.ops import TritonOps
from berth_kernels.triton.sampling import noise_bits


@triton.jit
def bits_kernel(keys, ids, out, count: tl.constexpr):
    low, high = tl.load(keys).to(tl.uint32), tl.load(keys + 1).to(tl.uint32)
    lanes = tl.arange(0, count)
    tl.store(out + lanes, noise_bits(low, high, tl.load(ids + lanes)).to(tl.int64))


@pytest.mark.parametrize(("seed", "position"), [(0, 0), (42, 4095), ((1 << 63) - 1, (1 << 31) - 1)])
def test_triton_has_the_same_bits(seed, position):
    ids = torch.tensor([0, 1, 2, 255, 65_536, 151_935, (1 << 31) - 2, (1 << 31) - 1])
    keys, out = torch.tensor(row_keys(seed, position)), torch.zeros(8, dtype=torch.int64)
    bits_kernel[1,](keys, ids, out, count=8)
    assert torch.equal(out, bits(keys[None], ids)[0])


def test_logits_may_be_a_slice_of_wider_rows():
    wide = torch.randn(3, 20, generator=torch.Generator().manual_seed(1))
    draws = [Draw(seed, 5, top_p=0.9) for seed in range(3)]
    expected = TritonOps().sample(wide[:, :12].contiguous(), draws)
    assert torch.equal(TritonOps().sample(wide[:, :12], draws), expected)
    columns = wide[:, :12].T.contiguous().T
    assert torch.equal(TritonOps().sample(columns, draws), expected)


COMPILE = """
import json, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from berth_kernels.triton.pages import copy_kernel
from berth_kernels.triton.sampling import MAX_BLOCK, sample_kernel

kernels = [
    (sample_kernel, "*fp32 i64 *fp64 *i64 i32", {"BLOCK": MAX_BLOCK}, 16),
    (sample_kernel, "*fp32 i64 *fp64 *i64 i32", {"BLOCK": 1}, 1),
    *((copy_kernel, "*i64 *i64 i32 i32", {"WIDTH": width, "BLOCK": 1024}, 4) for width in (8, 16, 32)),
]
ptx = []
for kernel, types, constants, warps in kernels:
    signature = dict(zip(kernel.arg_names, types.split() + ["constexpr"] * len(constants), strict=True))
    source = ASTSource(kernel, signature, constants)
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    assert built.asm["cubin"]
    ptx.append(built.asm["ptx"])
print(json.dumps(ptx))
"""


def test_a_gpu_that_is_not_here_gets_its_code(tmp_path):
    """For an H100 or H200, by Triton's own assembler, in a process that does not interpret."""
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    found = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    drawing, *_ = json.loads(found.stdout)
    # Near 1 the fast logarithm is off by more than its value: the rarest noise would be the worst.
    assert "lg2.approx" not in drawing
    assert "div.full" not in drawing
