"""Products and eigenvectors with the same bits for any number of threads, for ops that are made of them in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deepclust_ext.ops import _raw

__all__ = ["on_one_thread", "ordered_product"]


def ordered_product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply a^T b, summed in index order: a BLAS may split its sums by the number of threads.

    Parameters
    ----------
    a, b : Tensor, shapes (k, m) and (k, n), both float32 or both float64
        With any strides, so that a transposed matrix costs nothing.

    Returns
    -------
    Tensor, shape (m, n)
    """
    return _raw.ordered_product(a, b)


def on_one_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function` with torch on a single thread: LAPACK's eigenvectors and QR depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(*arguments)
    finally:
        torch.set_num_threads(threads)


@torch.library.register_fake("deepclust::ordered_product")
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[1], b.shape[1])


@torch.library.register_vmap("deepclust::ordered_product")
def _(info: Any, in_dims: tuple[int | None, int | None], a: Tensor, b: Tensor) -> tuple[Tensor, int]:
    a, b = (t if dim is None else t.movedim(dim, 0) for t, dim in zip((a, b), in_dims, strict=True))
    return a.mT @ b, 0
