"""The idx format in which MNIST and Fashion-MNIST are published."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor


def read_idx(path: Path, *, dimensions: int) -> Tensor:
    """Read an idx file of unsigned bytes.

    The header is two zero bytes, the type (8: uint8), the number of dimensions, and each size as a big-endian
    32-bit number; the values follow.

    Parameters
    ----------
    path : Path
        The file, gzip-compressed if it ends in `.gz`.
    dimensions : int
        How many dimensions it must have: 3 for images, 1 for labels.

    Returns
    -------
    Tensor
        uint8 of the shape in the header.

    Raises
    ------
    ValueError
        If the file is damaged or of another type.

    Examples
    --------
    >>> read_idx(Path("t10k-labels-idx1-ubyte.gz"), dimensions=1).shape  # doctest: +SKIP
    torch.Size([10000])
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"load_data: the file {str(path)!r} is damaged: {error}") from error
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes((0, 0, 8, dimensions)):
        raise ValueError(
            f"load_data: the file {str(path)!r} must be an idx file of bytes in {dimensions} dimensions, "
            f"got the header {content[:4].hex()}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"load_data: the file {str(path)!r} is damaged: {math.prod(shape)} values announced, "
            f"{len(content) - start} found"
        )
    # bytearray: torch wants memory it may write to.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(shape)
