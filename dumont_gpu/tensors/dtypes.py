"""The element types of tensors, under the names of safetensors; what each framework calls them."""

from __future__ import annotations

from typing import Final, NamedTuple

from dumont_gpu.errors import UnsupportedError
from dumont_gpu.format.paths import shown


class ElementType(NamedTuple):
    """An element type.

    Args:
        size: bytes of an element.
        numpy: NumPy's name; None if NumPy has no such type.
        torch: the name within `torch`.
        words: NumPy's name of the raw words, which stand for elements that NumPy has no type for.
        ml_dtypes: the name within `ml_dtypes`, for element types that NumPy lacks.
    """

    size: int
    numpy: str | None
    torch: str
    words: str
    ml_dtypes: str | None = None


ELEMENT_TYPES: Final = {
    "F64": ElementType(8, "float64", "float64", "uint64"),
    "F32": ElementType(4, "float32", "float32", "uint32"),
    "F16": ElementType(2, "float16", "float16", "uint16"),
    "BF16": ElementType(2, None, "bfloat16", "uint16", "bfloat16"),
    "F8_E4M3": ElementType(1, None, "float8_e4m3fn", "uint8", "float8_e4m3fn"),
    "F8_E5M2": ElementType(1, None, "float8_e5m2", "uint8", "float8_e5m2"),
    "F8_E4M3FNUZ": ElementType(1, None, "float8_e4m3fnuz", "uint8", "float8_e4m3fnuz"),
    "F8_E5M2FNUZ": ElementType(1, None, "float8_e5m2fnuz", "uint8", "float8_e5m2fnuz"),
    "F8_E8M0": ElementType(1, None, "float8_e8m0fnu", "uint8", "float8_e8m0fnu"),
    "C64": ElementType(8, "complex64", "complex64", "uint64"),
    "C128": ElementType(16, "complex128", "complex128", "complex128"),  # of torch and NumPy only
    "I64": ElementType(8, "int64", "int64", "uint64"),
    "I32": ElementType(4, "int32", "int32", "uint32"),
    "I16": ElementType(2, "int16", "int16", "uint16"),
    "I8": ElementType(1, "int8", "int8", "uint8"),
    "U64": ElementType(8, "uint64", "uint64", "uint64"),
    "U32": ElementType(4, "uint32", "uint32", "uint32"),
    "U16": ElementType(2, "uint16", "uint16", "uint16"),
    "U8": ElementType(1, "uint8", "uint8", "uint8"),
    "BOOL": ElementType(1, "bool", "bool", "uint8"),
}

BY_TORCH_NAME: Final = {known.torch: name for name, known in ELEMENT_TYPES.items()}


def item_size(dtype: str) -> int:
    """Returns the bytes of an element of a type of ELEMENT_TYPES.

    Raises:
        UnsupportedError: the type is not among them.
    """
    if dtype not in ELEMENT_TYPES:
        raise UnsupportedError(f"tensors of element type {shown(dtype)} are not known: read the file's bytes instead")
    return ELEMENT_TYPES[dtype].size


def is_numpy(dtype: str) -> bool:
    """Tells whether a record's dtype is NumPy's description: one that `numpy.dtype` takes, or a list of fields.

    A list of fields begins with "[": it is a Python literal for `numpy.lib.format.descr_to_dtype`.
    """
    return dtype[:1] in ("<", ">", "|", "[")
