"""The memory bank's update: the public function, its fake kernel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from deepclust_ext import _checks as check
from deepclust_ext.distributed import kind_of, ranks_of
from deepclust_ext.ops import _raw
from deepclust_ext.ops._bank import check_bank, check_index
from deepclust_ext.ops._common import accumulator_dtype, check_floating, checked_by_value, refuse_vmap
from deepclust_ext.ops._grouped_bank import update_of_all

__all__ = ["bank_update_"]


def bank_update_(
    bank: Tensor, index: Tensor, features: Tensor, *, momentum: float = 0.5, group: ProcessGroup | None = None
) -> Tensor:
    r"""Move rows of a memory bank towards new embeddings, in place.

    .. math:: m_y \leftarrow \frac{u}{\lVert u \rVert}, \qquad u = \mu m_y + (1 - \mu) v

    Samples are taken one after another in the order of the batch, so that a row that is named twice is updated twice:
    the same bits on every run. A row with u = 0 becomes zero and no NaN. Call it after the optimizer's step; backward
    passes neither need nor change the bank.

    Parameters
    ----------
    bank : Tensor, shape (N, d), float16, bfloat16, float32 or float64
        Changed in place; sums are formed in higher precision, and rounded once. It may not require a gradient.
    index : Tensor, shape (B,), int64
        The rows.
    features : Tensor, shape (B, d)
        New embeddings, in any floating dtype; NaN or infinity goes into the row. No gradient flows into the bank.
    momentum : float, default 0.5
        mu in [0, 1]: 1 only normalises the rows.
    group : torch.distributed.ProcessGroup, optional
        Ranks that hold rows of one bank, as many each as they like (none, too), and samples of their own. Rows are
        counted over all ranks, in rank order: `index` names rows on any of them. A row is updated on its rank, by the
        samples of all ranks in rank order: the same bits as one rank with the whole bank and batch.

    Returns
    -------
    Tensor
        `bank`.

    Raises
    ------
    TypeError
        `bank` or `features` is not a floating-point tensor, or `index` is not int64.
    ValueError
        Shapes or devices do not fit together, `momentum` lies outside of [0, 1], or `bank` requires a gradient; or
        arguments differ between the ranks of a group, and what one rank refuses is an error on all.
    IndexError
        An index lies outside of the bank; no row has been changed then. Under torch.compile a RuntimeError. A CUDA
        graph cannot raise: it leaves the index aside.

    References
    ----------
    Wu, Xiong, Yu and Lin, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018,
    section 3.2.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import bank_update_
    >>> bank_update_(torch.eye(2), torch.tensor([0]), torch.tensor([[0.0, 1.0]]))
    tensor([[0.7071, 0.7071],
            [0.0000, 1.0000]])
    """
    if group is not None:
        ranks = ranks_of("bank_update_", group)

        def prepare() -> tuple[tuple[Tensor, ...], dict[str, object], tuple[int, int]]:
            *own, share = _check(bank, index, features, momentum, least=0)
            facts = {"bank": kind_of(own[0], 0), "features": kind_of(own[2], 0), "momentum": share}
            return tuple(own), facts, (len(own[2]), len(own[0]))

        (stored, index, features), sizes = ranks.agree(prepare)
        update_of_all(ranks, stored, index, features, float(momentum), sizes)
    else:
        stored, index, features, momentum = _check(bank, index, features, momentum)
        checked_by_value("bank_update_", _raw.bank_update_, stored, index, features, momentum, error=IndexError)
    if not torch.compiler.is_compiling():
        # A graph that saved the bank for its own backward pass must notice, as with torch's operations.
        torch.autograd.graph.increment_version(bank)
    return bank


def _check(
    bank: Tensor, index: Tensor, features: Tensor, momentum: float, least: int = 1
) -> tuple[Tensor, Tensor, Tensor, float]:
    """The raw op's arguments, of a bank with `least` rows or more."""
    op = "bank_update_"
    check_floating(op, "features", features)
    stored = check_bank(op, bank, "features", features, least)
    if bank.requires_grad:
        raise ValueError(f"{op}: 'bank' must not require a gradient, got one that does; pass bank.detach()")
    index = check_index(op, "index", index, "features", features)
    momentum = check.number(op, "momentum", momentum, at_least=0)
    if momentum > 1:
        raise ValueError(f"{op}: 'momentum' must be between 0 and 1, got {momentum:g}")
    for tensor in (bank, index, features):
        refuse_vmap(op, "update the bank outside of it", tensor)
    features = features.detach().to(accumulator_dtype(torch.promote_types(features.dtype, bank.dtype)))
    return stored, index, features, momentum


@torch.library.register_fake("deepclust::bank_update_")
def _(bank: Tensor, index: Tensor, features: Tensor, momentum: float) -> None:
    return None
