"""A network that forwards a share of a batch as it would within the whole: batch norm, and dropout's draws."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from deepclust_ext.training.team import Team

_DROPOUTS = (functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d)
_OTHERS = (functional.alpha_dropout, functional.feature_alpha_dropout)


def within_whole_batch(team: Team, n: int) -> contextlib.AbstractContextManager[Any]:
    """Within the block modules forward this process's share of n images; all processes must forward theirs.

    Batch norm takes mean and variance of all rows, as `torch.nn.SyncBatchNorm` does on GPUs alone; modules and the
    names of their weights stay as they are. Dropout draws for the whole batch. For one process nothing changes.
    """
    return contextlib.nullcontext() if team.size == 1 else _WholeBatch(team, n)


class _WholeBatch(TorchFunctionMode):
    """Sees every call of `torch.nn.functional` that a module makes, whoever wrote it."""

    def __init__(self, team: Team, n: int) -> None:
        super().__init__()
        self.team, self.n = team, n
        share = team.share(n)
        self.m = share.stop - share.start

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if func is functional.batch_norm:
            return self._batch_norm(*args, **options)
        if func in _DROPOUTS:
            return self._dropout(func, *args, **options)
        if func in _OTHERS:
            raise NotImplementedError(f"fit: on several ranks a network must be without {func.__name__}")
        return func(*args, **options)

    def _batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """`functional.batch_norm` of the rows of all ranks."""
        if not training:
            return functional.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
        if x.dtype == torch.bfloat16:
            # Under autocast a convolution's output is bfloat16, beside weights and statistics that are not.
            whole = self._batch_norm(x.float(), running_mean, running_var, weight, bias, True, momentum, eps)
            return whole.to(x.dtype)
        mean, variance, count = _statistics(x, self.team)
        if count == 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)}")
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.mul_(1 - momentum).add_(mean.to(running_mean.dtype), alpha=momentum)
                unbiased = variance * (count / (count - 1))
                running_var.mul_(1 - momentum).add_(unbiased.to(running_var.dtype), alpha=momentum)
        found: Tensor = _Normalise.apply(x, weight, bias, mean.to(x.dtype), variance.to(x.dtype), eps, count, self.team)
        return found

    def _dropout(
        self, func: Callable[..., Tensor], x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        """The whole batch's mask, of which this process takes its rows."""
        if not training or p == 0 or x.shape[0] % self.m:
            return func(x, p, training, inplace)
        mask = func(x.new_ones(x.shape[0] // self.m * self.n, *x.shape[1:]), p, True)
        return x * self.team.cut(mask, self.n)


@torch.no_grad()
def _statistics(x: Tensor, team: Team) -> tuple[Tensor, Tensor, float]:
    """Mean and variance (C,) float64 of every channel over the rows of all ranks, and how many values that is."""
    # The first half of batch norm: a fifth of the time of torch.var_mean.
    mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)
    own = torch.cat([mean.double(), variance.double(), mean.new_tensor([x.numel() // x.shape[1]]).double()])
    means, variances, counts = team.every(own).split([len(mean), len(mean), 1], dim=1)
    count = counts.sum()
    mean = (means * counts).sum(0) / count
    # About the common mean: no difference of large squares.
    variance = ((variances + (means - mean).square()) * counts).sum(0) / count
    return mean, variance, float(count)


class _Normalise(torch.autograd.Function):
    """Batch norm by given statistics, with the gradient that goes through them, summed over the ranks."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        count: float,
        team: Team,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.count, ctx.team, ctx.biased = eps, count, team, bias is not None
        return functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        # As if the statistics were constants: then what they add.
        along, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            grads[0].contiguous(), x, weight if weight is not None else torch.ones_like(mean),
            mean, variance, None, None, False, ctx.eps, [True, True, True],
        )  # fmt: skip
        sums = ctx.team.every(torch.cat([by_weight, by_bias]).double()).sum(0) / ctx.count
        slope, level = sums.split(len(mean))
        inverse = (variance.double() + ctx.eps).rsqrt()
        scale = inverse if weight is None else inverse * weight
        # scale * (level + slope * (x - mean) * inverse), as a x + b in each channel.
        a = scale * slope * inverse
        b = scale * level - a * mean
        shape = (1, -1, *[1] * (x.dim() - 2))
        along = along.sub_(torch.addcmul(b.to(x.dtype).view(shape), x, a.to(x.dtype).view(shape)))
        return along, by_weight if weight is not None else None, by_bias if ctx.biased else None, *[None] * 5
