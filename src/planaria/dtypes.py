"""The types of numbers that a model's file may hold, in one table."""

from typing import TYPE_CHECKING, NamedTuple

from planaria.errors import InvalidInput

if TYPE_CHECKING:  # files are read without PyTorch
    import torch
    from torch import Tensor


class Dtype(NamedTuple):
    """One type.

    Attributes:
        bits: of one number.
        torch: what torch calls it; "" if torch has none.
        mantissa: bits of a float's mantissa; None for others.
    """

    bits: int
    torch: str = ""
    mantissa: int | None = None


DTYPES = {  # by the names of safetensors
    "BOOL": Dtype(8, "bool"),
    "U8": Dtype(8, "uint8"),
    "I8": Dtype(8, "int8"),
    "F4": Dtype(4, "float4_e2m1fn_x2"),  # two share a byte, and torch counts the pairs
    "F6_E2M3": Dtype(6),
    "F6_E3M2": Dtype(6),
    "F8_E5M2": Dtype(8, "float8_e5m2", 2),
    "F8_E4M3": Dtype(8, "float8_e4m3fn", 3),
    "F8_E8M0": Dtype(8, "float8_e8m0fnu"),
    "F8_E5M2FNUZ": Dtype(8, "float8_e5m2fnuz", 2),
    "F8_E4M3FNUZ": Dtype(8, "float8_e4m3fnuz", 3),
    "I16": Dtype(16, "int16"),
    "U16": Dtype(16, "uint16"),
    "F16": Dtype(16, "float16", 10),
    "BF16": Dtype(16, "bfloat16", 7),
    "I32": Dtype(32, "int32"),
    "U32": Dtype(32, "uint32"),
    "F32": Dtype(32, "float32", 23),
    "I64": Dtype(64, "int64"),
    "U64": Dtype(64, "uint64"),
    "F64": Dtype(64, "float64", 52),
    "C64": Dtype(64, "complex64"),
}


def torch_dtypes() -> "dict[str, torch.dtype]":
    """Those that this torch has, by the names of safetensors."""
    import torch

    return {
        name: getattr(torch, dtype.torch)
        for name, dtype in DTYPES.items()
        if dtype.torch and hasattr(torch, dtype.torch)
    }


def integers(weight: "Tensor") -> "Tensor":
    """The same memory as integers of the same width: not every type can be indexed or compared bit for bit.

    Raises `InvalidInput` of a type of more than 8 bytes.
    """
    import torch

    widths = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    if weight.element_size() not in widths:
        raise InvalidInput(f"A weight has 1, 2, 4 or 8 bytes; {weight.dtype} has {weight.element_size()}. Convert it.")
    return weight.view(widths[weight.element_size()])
