"""A word to those who pass logits: a look at the sums of rows, once per shape, and never where it would cost."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from deepclust_ext._warnings import DeepclustWarning

# Rounding of half types stays below, logits do not.
TOLERANCE = 0.02
# Shapes that were looked at; a caller with ever new ones is left alone in the end.
_MOST = 256
_seen: set[tuple[str, torch.Size, torch.Size]] = set()
_warned: set[str] = set()


def look_at_rows(op: str, first: str, p: Tensor, second: str, q: Tensor) -> None:
    """Warn, once in a process, if rows are no probabilities: the loss would mean nothing, and look like one.

    Nothing is read under torch.compile, torch.func, tracing or the capture of a CUDA graph, and a call with shapes
    that were seen costs a look-up.

    Parameters
    ----------
    op : str
        The public function.
    first, second : str
        What it calls `p` and `q`.
    p, q : Tensor, shape (..., C)

    Warns
    -----
    DeepclustWarning
        If a row of the first call with these shapes has a negative entry or does not sum to 1.
    """
    if torch.compiler.is_compiling() or (op, p.shape, q.shape) in _seen or op in _warned:
        return
    if len(_seen) >= _MOST or not (_readable(p) and _readable(q)):
        return
    _seen.add((op, p.shape, q.shape))
    for arg, value in ((first, p), (second, q)):
        count = _count_wrong(value)
        if count:
            _warned.add(op)
            warnings.warn(
                f"{op}: '{arg}' must have rows that are probabilities, got {count} of {value[..., 0].numel()} that are "
                "negative or do not sum to 1; pass logits.softmax(-1)",
                DeepclustWarning,
                stacklevel=3,
            )
            return


def _count_wrong(value: Tensor) -> int:
    """How many rows are no probabilities."""
    rows = value.detach().float()
    sums = rows.sum(-1)
    # A row of zeros is a sample that should not count.
    return int((((sums - 1.0).abs() > TOLERANCE) & (sums != 0) | (rows < -TOLERANCE).any(-1)).sum())


def _readable(value: Tensor) -> bool:
    """Whether values are there, and reading them disturbs nothing."""
    if value.is_meta or torch._C._are_functorch_transforms_active() or torch._C._get_tracing_state() is not None:
        return False
    if torch._C._len_torch_dispatch_stack() > 0 or type(value) not in (Tensor, torch.nn.Parameter):
        return False
    return not (value.is_cuda and torch.cuda.is_current_stream_capturing())
