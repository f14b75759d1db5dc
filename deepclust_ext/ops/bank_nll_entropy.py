"""Instance discrimination against a memory bank, and its entropy: the public functions, gradient, fake kernel, vmap."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from deepclust_ext import _checks as check
from deepclust_ext.distributed import kind_of, ranks_of
from deepclust_ext.ops import _raw
from deepclust_ext.ops._bank import check_bank, check_index
from deepclust_ext.ops._common import (
    accumulator_dtype,
    batch_first,
    check_floating,
    checked_by_value,
    differentiable,
    first_derivative_only,
    wants_gradient,
)
from deepclust_ext.ops._grouped_bank import losses_of_all

__all__ = ["bank_entropy", "bank_nll", "bank_nll_entropy"]


def bank_nll(
    v: Tensor,
    bank: Tensor,
    index: Tensor,
    neighbors: Tensor | None = None,
    *,
    temperature: float = 0.1,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""Minus the log-probability of picking a sample's own row of the bank, or one of its neighbours'.

    With the logits :math:`l_{ij} = v_i^\top m_j / \tau` over all N rows and :math:`S_i` the set of `index[i]` and the
    non-negative entries of `neighbors[i]`:

    .. math:: L_i = -\log \sum_{j \in S_i} p_{ij}, \qquad p_i = \operatorname{softmax}(l_i)

    Without neighbours this is instance discrimination, with them AND's loss of anchors. The bank is read once, forward;
    nothing of size B x N exists, forward or backward. Same bits for any number of threads; levels of DEEPCLUST_SIMD
    agree to rounding.

    Parameters
    ----------
    v : Tensor, shape (B, d), float16, bfloat16, float32 or float64
        Embeddings, as a rule L2-normalised. Any strides.
    bank : Tensor, shape (N, d)
        One row per sample of the data set, in any of these dtypes; it gets no gradient.
    index : Tensor, shape (B,), int64
        The row of each sample; samples may repeat.
    neighbors : Tensor, shape (B, m), int64, optional
        More rows that count as right; -1 for none. Repeats, and the sample's own row, count once.
    temperature : float, default 0.1
        tau > 0.
    group : torch.distributed.ProcessGroup, optional
        Ranks that hold rows of one bank, as many each as they like (none, too), and samples of their own. Rows are
        counted over all ranks, in rank order: `index` and `neighbors` name rows on any of them. Each rank gets the
        losses and gradients of its own samples against the whole bank, within rounding of one rank that holds it.
        Samples travel and the bank stays. Plain products in tiles take the place of the kernel.

    Returns
    -------
    Tensor, shape (B,)
        In nats, float32 (float64 if `v` or `bank` is). Differentiable once, in `v`.

    Raises
    ------
    TypeError
        `v` or `bank` is not a floating-point tensor, or indices are not int64.
    ValueError
        Shapes or devices do not fit together, the bank is empty, or `temperature` is not above 0; or arguments differ
        between the ranks of a group, and what one rank refuses is an error on all.
    IndexError
        An index lies outside of the bank; under torch.compile a RuntimeError. A CUDA graph cannot raise: its sample's
        results are NaN.

    References
    ----------
    Wu, Xiong, Yu and Lin, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018,
    equation 2; Huang et al., "Unsupervised Deep Learning by Neighbourhood Discovery", ICML 2019, equation 7, with the
    sample itself among its neighbours.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import bank_nll
    >>> bank = torch.eye(4)
    >>> bank_nll(bank[:1], bank, torch.tensor([0]), temperature=1.0)  # log((e + 3) / e)
    tensor([0.7437])
    >>> bank_nll(bank[:1], bank, torch.tensor([0]), torch.tensor([[1, -1]]), temperature=1.0)  # log((e + 3) / (e + 1))
    tensor([0.4304])
    """
    return _run("bank_nll", v, bank, "index", index, neighbors, temperature, True, False, group)[0]


def bank_entropy(
    v: Tensor,
    bank: Tensor,
    exclude: Tensor | None = None,
    *,
    temperature: float = 0.1,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""Entropy of the softmax over the bank, without a sample's own row.

    .. math:: H_i = -\sum_{j \ne e_i} \tilde p_{ij} \log \tilde p_{ij}, \qquad
              \tilde p_{ij} = \frac{e^{l_{ij}}}{\sum_{k \ne e_i} e^{l_{ik}}}

    with :math:`l_{ij} = v_i^\top m_j / \tau` and :math:`e_i` = `exclude[i]`. Low: the sample knows its neighbours.

    Parameters
    ----------
    v : Tensor, shape (B, d), float16, bfloat16, float32 or float64
        Embeddings. Any strides.
    bank : Tensor, shape (N, d)
        One row per sample; it gets no gradient.
    exclude : Tensor, shape (B,), int64, optional
        The row that each sample leaves out; -1 for none.
    temperature : float, default 0.1
        tau > 0.
    group : torch.distributed.ProcessGroup, optional
        As in `bank_nll`; `exclude` names rows on any rank.

    Returns
    -------
    Tensor, shape (B,)
        In nats, in [0, ln N] up to rounding, float32 (float64 if `v` or `bank` is). 0 where no row is left.
        Differentiable once, in `v`.

    Raises
    ------
    TypeError, ValueError, IndexError
        As in `bank_nll`.

    References
    ----------
    Han et al., "Mitigating Embedding and Class Assignment Mismatch in Unsupervised Image Classification" (Super-AND),
    ECCV 2020, equation 12, to be minimised: the printed sign is wrong.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import bank_entropy
    >>> bank_entropy(torch.zeros(1, 3), torch.eye(3), torch.tensor([2]))  # two rows are left: ln 2
    tensor([0.6931])
    """
    return _run("bank_entropy", v, bank, "exclude", exclude, None, temperature, False, True, group)[1]


def bank_nll_entropy(
    v: Tensor,
    bank: Tensor,
    index: Tensor,
    neighbors: Tensor | None = None,
    *,
    temperature: float = 0.1,
    group: ProcessGroup | None = None,
) -> tuple[Tensor, Tensor]:
    """`bank_nll` and `bank_entropy` in one pass over the bank; the entropy leaves out the rows at `index`.

    Parameters
    ----------
    v, bank, index, neighbors, temperature, group
        As in `bank_nll`.

    Returns
    -------
    nll, entropy : Tensor, shape (B,)
        As the two functions return them. Both are differentiable once, in `v`.

    Raises
    ------
    TypeError, ValueError, IndexError
        As in `bank_nll`.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import bank_nll_entropy
    >>> bank_nll_entropy(torch.zeros(1, 3), torch.eye(3), torch.tensor([2]))  # ln 3 and ln 2
    (tensor([1.0986]), tensor([0.6931]))
    """
    nll, entropy, *_ = _run("bank_nll_entropy", v, bank, "index", index, neighbors, temperature, True, True, group)
    return nll, entropy


def _run(
    op: str,
    v: Tensor,
    bank: Tensor,
    arg: str,
    index: Tensor | None,
    neighbors: Tensor | None,
    temperature: float,
    nll: bool,
    entropy: bool,
    group: ProcessGroup | None,
) -> tuple[Tensor, ...]:
    checked = functools.partial(_check, op, v, bank, arg, index, neighbors, temperature, nll, entropy)
    if group is not None:
        return _run_of_all(op, arg, checked, group)
    inputs = checked()
    if wants_gradient(op, v):
        return checked_by_value(op, _differentiable, *inputs, op, error=IndexError, index=arg)
    return checked_by_value(op, _raw.bank_nll_entropy, *inputs, False, error=IndexError, index=arg)


def _check(
    op: str,
    v: Tensor,
    bank: Tensor,
    arg: str,
    index: Tensor | None,
    neighbors: Tensor | None,
    temperature: float,
    nll: bool,
    entropy: bool,
    least: int = 1,
) -> tuple[Tensor, Tensor, Tensor, Tensor, float, bool, bool]:
    """The raw op's arguments, of a bank with `least` rows or more."""
    check_floating(op, "v", v)
    bank = check_bank(op, bank, "v", v, least)
    if index is None and not nll:
        index = torch.full(v.shape[:1], -1, device=v.device)
    index = check_index(op, arg, index, "v", v)
    if neighbors is None:
        neighbors = index.new_empty(len(v), 0)
    neighbors = check_index(op, "neighbors", neighbors, "v", v, dim=2)
    temperature = check.number(op, "temperature", temperature, above=0)
    v = v.to(accumulator_dtype(torch.promote_types(v.dtype, bank.dtype)))
    return v, bank, index, neighbors, temperature, nll, entropy


def _run_of_all(op: str, arg: str, checked: Callable[..., tuple[Any, ...]], group: ProcessGroup) -> tuple[Tensor, ...]:
    def prepare() -> tuple[tuple[Any, ...], dict[str, object], tuple[int, int, int]]:
        own = checked(least=0)
        facts = {"v": kind_of(own[0], 0), "bank": kind_of(own[1], 0), "neighbors": kind_of(own[3], 0)}
        wanted = wants_gradient(op, own[0])
        return (*own, wanted), {**facts, "temperature": own[4]}, (len(own[0]), len(own[1]), int(wanted))

    ranks = ranks_of(op, group)
    (v, bank, index, neighbors, temperature, nll, entropy, wanted), sizes = ranks.agree(prepare)
    if sum(size[1] for size in sizes) < 1:
        raise ValueError(f"{op}: 'bank' must have a row on one rank at least, got none")
    anyone = any(size[2] for size in sizes)
    found = losses_of_all(ranks, v, bank, arg, index, neighbors, temperature, (nll, entropy), anyone, sizes)
    return _of_all(v, found, None, None, None, nll, entropy, op) if wanted else found


class _BankLoss(torch.autograd.Function):
    """The forward pass returns the gradients too, a row for each sample; backward only weighs them."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        v: Tensor,
        bank: Tensor,
        index: Tensor,
        neighbors: Tensor,
        temperature: float,
        nll: bool,
        entropy: bool,
        op: str,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _raw.bank_nll_entropy(v, bank, index, neighbors, temperature, nll, entropy, True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(inputs[0], *output[2:])
        ctx.asked = inputs[5:7]
        ctx.op = inputs[7]
        unasked = [loss for loss, asked in zip(output[:2], ctx.asked, strict=True) if not asked]
        ctx.mark_non_differentiable(*unasked, *output[2:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        v, *gradients = ctx.saved_tensors
        pairs = zip(upstream[:2], gradients, ctx.asked, strict=True)
        used = [(grad, rows) for grad, rows, asked in pairs if asked and grad is not None]
        if not used:
            return (None,) * 8
        run = _WEIGHED[ctx.op] if torch.is_grad_enabled() else _weigh
        return run(v, *(tensor for pair in used for tensor in pair)), *(None,) * 7


class _BankLossOfAll(_BankLoss):
    """The same of what all ranks have found: losses and gradients, a row for each of this rank's samples."""

    @staticmethod
    def forward(v: Tensor, found: tuple[Tensor, ...], *_: Any) -> tuple[Tensor, ...]:  # type: ignore[override]
        return found


def _weigh(_v: Tensor, *tensors: Tensor) -> Tensor:
    """Upstream gradients (B,) times gradients (B, d), added up over the losses; v, for its own derivative refuses."""
    total = tensors[0].unsqueeze(-1) * tensors[1]
    return total if len(tensors) == 2 else total + tensors[2].unsqueeze(-1) * tensors[3]


_differentiable = differentiable(_BankLoss)
_of_all = differentiable(_BankLossOfAll)
_WEIGHED = {
    op: differentiable(first_derivative_only(op, _weigh)) for op in ("bank_nll", "bank_entropy", "bank_nll_entropy")
}


@torch.library.register_fake("deepclust::bank_nll_entropy")
def _(
    v: Tensor,
    bank: Tensor,
    index: Tensor,
    neighbors: Tensor,
    temperature: float,
    nll: bool,
    entropy: bool,
    gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    asked = (nll, entropy, nll and gradient, entropy and gradient)
    shapes = (v.shape[:1], v.shape[:1], v.shape, v.shape)
    made = [v.new_empty(shape if wanted else (0,)) for wanted, shape in zip(asked, shapes, strict=True)]
    return made[0], made[1], made[2], made[3]


@torch.library.register_vmap("deepclust::bank_nll_entropy")
def _(
    info: Any,
    in_dims: tuple[Any, ...],
    v: Tensor,
    bank: Tensor,
    index: Tensor,
    neighbors: Tensor,
    temperature: float,
    nll: bool,
    entropy: bool,
    gradient: bool,
) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    count, bank_dim = info.batch_size, in_dims[1]
    v, index, neighbors = (
        batch_first(count, t, d) for t, d in zip((v, index, neighbors), (in_dims[0], *in_dims[2:4]), strict=True)
    )
    options = (temperature, nll, entropy, gradient)
    found: list[Tensor]
    if bank_dim is None:
        # One bank: its pass serves all.
        flat = _raw.bank_nll_entropy(v.flatten(0, 1), bank, index.flatten(), neighbors.flatten(0, 1), *options)
        found = [t.unflatten(0, v.shape[:2]) if t.numel() or not len(v) else t for t in flat]
    else:
        each = [
            _raw.bank_nll_entropy(v[i], bank.select(bank_dim, i), index[i], neighbors[i], *options)
            for i in range(count)
        ]
        found = [torch.stack(tensors) for tensors in zip(*each, strict=True)]
    return tuple(found), (0,) * 4
