"""Tensors of every dtype that a safetensors file holds, and their single bits."""

import math

import torch
from hypothesis import strategies as st
from torch import Tensor

from planaria.streams import generator

FLOATS = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
]
SIGNED = [torch.int64, torch.int32, torch.int16, torch.int8]
UNSIGNED = [torch.uint64, torch.uint32, torch.uint16, torch.uint8]
DTYPES = [*FLOATS, *SIGNED, *UNSIGNED, torch.bool, torch.complex64]

shapes = st.lists(st.integers(0, 6), max_size=3).map(tuple)


def random_weight(dtype: torch.dtype, *shape: int, seed: int = 0) -> Tensor:
    """Any bits: among floats also subnormals, infinities and NaNs of every kind."""
    content = torch.randint(
        2 if dtype == torch.bool else 256,
        (math.prod(shape) * dtype.itemsize,),
        dtype=torch.uint8,
        generator=generator(seed, "test weight"),
    )
    return content.view(dtype).view(shape)


def full_weight(dtype: torch.dtype, *shape: int) -> Tensor:
    """No byte is zero."""
    byte = 1 if dtype == torch.bool else 255
    return torch.full((math.prod(shape) * dtype.itemsize,), byte, dtype=torch.uint8).view(dtype).view(shape)


def width(dtype: torch.dtype) -> int:
    """Bits of a weight that may flip."""
    return 1 if dtype == torch.bool else 8 * dtype.itemsize


def bytes_of(weight: Tensor) -> Tensor:
    """All bytes in a row."""
    return weight.contiguous().view(-1).view(torch.uint8)


def bits_of(weight: Tensor) -> Tensor:
    """One row a weight, the lowest bit first; bool."""
    bits = bytes_of(weight)[:, None] >> torch.arange(8) & 1
    return bits.view(weight.numel(), 8 * weight.element_size())[:, : width(weight.dtype)].bool()


def far_from_even(counts: Tensor) -> bool:
    """Whether counts are so uneven that cells of equal chances would give them less than once in a million times."""
    expected = counts.sum() / counts.numel()
    square = float(((counts - expected) ** 2 / expected).sum())
    freedom = counts.numel() - 1
    return square > freedom + 5 * math.sqrt(2 * freedom) + 15
