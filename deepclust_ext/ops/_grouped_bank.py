r"""The bank's losses and update over ranks that hold rows of one bank, and samples of one batch.

The batch travels and the bank stays: each rank sums exponentials over its own rows, for the samples of all ranks, with
a maximum of its own. With m_r and s_r these two, M the largest m_r,

    log sum_j exp(l_ij) = M + log sum_r s_r exp(m_r - M)

added in rank order; entropies are combined alike, from t_r = sum exp(l - m_r) (l - m_r). A rank's part of a sample's
gradient is a sum over its own rows, weighed by what all ranks know then. The parts are added in rank order on the rank
that the sample came from, in the forward pass: backward passes communicate nothing.

A sample's own row is left out of the sums and added where it belongs, so that nothing cancels when it outweighs all
others. Of size B x N nothing exists.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deepclust_ext.distributed import Ranks
from deepclust_ext.ops import _raw
from deepclust_ext.ops.ordered_product import ordered_product

__all__ = ["check_rows", "losses_of_all", "update_of_all"]

# Logits at a time.
_TILE = 1 << 20
_NONE = -torch.inf


class _Sums(NamedTuple):
    """Of some logits l of each sample: their maximum m, and sums of exp(l - m) and exp(l - m) (l - m).

    `rows` and `steep` are the same sums times the rows of the bank that the logits belong to; None where not wanted.
    """

    top: Tensor  # [B], -inf where there are no logits
    mass: Tensor  # [B]
    depth: Tensor  # [B]
    rows: Tensor | None  # [B, d]
    steep: Tensor | None  # [B, d]


def check_rows(op: str, arg: str, index: Tensor, rows: int, least: int) -> None:
    """Refuse rows outside of the bank of all ranks, in the kernel's words."""
    wrong = index[(index < least) | (index >= rows)]
    if wrong.numel():
        bounds = f"between 0 and {rows - 1}" if least == 0 else f"-1 or between 0 and {rows - 1}"
        raise IndexError(f"{op}: '{arg}' must be {bounds}, got {int(wrong[0])}")


def losses_of_all(
    ranks: Ranks,
    v: Tensor,
    bank: Tensor,
    arg: str,
    index: Tensor,
    neighbors: Tensor,
    temperature: float,
    asked: tuple[bool, bool],
    gradient: bool,
    sizes: Sequence[tuple[int, ...]],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the raw op returns for this rank's samples v (B, d), from the rows of all ranks.

    `sizes` holds each rank's samples and rows, `asked` says whether the loss and the entropy are wanted, and `gradient`
    whether any rank wants gradients.
    """
    nll, entropy = asked
    batch, shards = [size[0] for size in sizes], [size[1] for size in sizes]
    check = torch.cat(ranks.gather(index, batch)), torch.cat(ranks.gather(neighbors, batch))
    total = sum(shards)
    check_rows(ranks.op, arg, check[0], total, 0 if nll else -1)
    check_rows(ranks.op, "neighbors", check[1], total, -1)
    start = sum(shards[: ranks.rank])
    own, others = (_local(each, start, len(bank)) for each in check)
    others = _once(others, own)
    everyone = torch.cat(ranks.gather(v.detach(), batch))

    rest = _over_bank(everyone, bank, own, temperature, gradient, entropy)
    right = _over_picks(everyone, bank, others, temperature, gradient) if nll else None
    own_logit = _logits_of(everyone, bank, own, temperature)
    told = [rest.top, rest.mass, rest.depth, own_logit, *([right.top, right.mass] if right is not None else [])]
    heard = torch.stack(ranks.gather(torch.stack([each.double() for each in told]), [len(told)] * ranks.size))
    tops, masses, depths, own_logits = heard[:, :4].unbind(1)

    # Over all rows but the sample's own, then with it.
    rest_log, rest_entropy = _combined(tops, masses, depths)
    every_own = own_logits.amax(0)  # -inf but on the rank that holds the row
    grads = everyone.new_zeros(len(everyone), nll + entropy, everyone.shape[1])
    losses = []
    if nll:
        assert right is not None
        all_log = torch.logaddexp(rest_log, every_own)
        right_log, _ = _combined(heard[:, 4], heard[:, 5], torch.zeros_like(tops))
        right_log = torch.logaddexp(right_log, every_own)
        losses.append(all_log - right_log)
        if gradient:
            here = (own_logit - all_log).exp() - (own_logit - right_log).exp()
            part = _weighed(rest.top - all_log, rest.rows) - _weighed(right.top - right_log, right.rows)
            grads[:, 0] = (part + here.to(part).unsqueeze(1) * _rows_of(bank, own, part)) / temperature
    if entropy:
        losses.append(rest_entropy)
        if gradient:
            # -p (log p + H) over this rank's rows, p within the softmax without the sample's own row.
            offset = torch.where(rest.top == _NONE, 0.0, rest.top - rest_log + rest_entropy)
            steep = _weighed(rest.top - rest_log, rest.steep)
            grads[:, -1] = -(steep + offset.to(steep).unsqueeze(1) * _weighed(rest.top - rest_log, rest.rows))
            grads[:, -1] /= temperature
    begin, end = sum(batch[: ranks.rank]), sum(batch[: ranks.rank + 1])
    none = v.new_empty(0)
    found = iter(loss[begin:end].to(v.dtype) for loss in losses)
    results = [next(found) if wanted else none for wanted in asked]
    if not gradient:
        return results[0], results[1], none, none
    rows = iter(ranks.sum_rows(grads, batch).unbind(1))
    gradients = [next(rows).contiguous() if wanted else none for wanted in asked]
    return results[0], results[1], gradients[0], gradients[1]


def update_of_all(
    ranks: Ranks, bank: Tensor, index: Tensor, features: Tensor, momentum: float, sizes: Sequence[tuple[int, ...]]
) -> None:
    """Update this rank's rows by the features of all ranks, in rank order."""
    batch, shards = [size[0] for size in sizes], [size[1] for size in sizes]
    every = torch.cat(ranks.gather(index, batch))
    check_rows(ranks.op, "index", every, sum(shards), 0)
    rows = torch.cat(ranks.gather(features, batch))
    own = _local(every, sum(shards[: ranks.rank]), len(bank))
    mine = own >= 0
    if mine.any():
        _raw.bank_update_(bank, own[mine], rows[mine], momentum)


def _local(index: Tensor, start: int, count: int) -> Tensor:
    """Rows of this rank's shard, -1 for those elsewhere."""
    return torch.where((index >= start) & (index < start + count), index - start, -1)


def _once(others: Tensor, own: Tensor) -> Tensor:
    """Neighbours (B, m) without repeats and without the sample's own row, which is counted apart."""
    others = torch.where(others == own.unsqueeze(1), -1, others).sort(1, descending=True).values
    repeats = torch.zeros_like(others, dtype=torch.bool)
    repeats[:, 1:] = others[:, 1:] == others[:, :-1]
    return others.masked_fill(repeats, -1)


def _rows_of(bank: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """[B, d]; zeros for -1."""
    if len(bank) == 0:
        return torch.zeros_like(like)
    return torch.where(index.unsqueeze(1) >= 0, bank[index.clamp(min=0)].to(like.dtype), 0.0)


def _logits_of(v: Tensor, bank: Tensor, index: Tensor, temperature: float) -> Tensor:
    """[B] logits of one row each; -inf for -1."""
    logits = (v * _rows_of(bank, index, v)).sum(1) / temperature
    return torch.where(index >= 0, logits, _NONE)


def _over_bank(v: Tensor, bank: Tensor, leave: Tensor, temperature: float, rows: bool, entropy: bool) -> _Sums:
    """The sums over all rows of `bank` but row `leave` [B] of each sample, a tile of logits after another."""
    count, dim = v.shape
    top = v.new_full((count,), _NONE)
    sums = v.new_zeros(2, count, (dim if rows else 0) + 1)
    tile = max(1, _TILE // max(1, count))
    for begin, end in itertools.pairwise([*range(0, len(bank), tile), len(bank)]):
        part = bank[begin:end].to(v.dtype)
        logits = ordered_product(v.mT, part.mT) / temperature
        at = _local(leave, begin, end - begin)
        hit = (at >= 0).nonzero().squeeze(1)
        logits[hit, at[hit]] = _NONE
        fresh = torch.maximum(top, logits.amax(1))
        at_all = torch.where(fresh == _NONE, 0.0, fresh)
        step = torch.where(top == _NONE, 0.0, top - at_all)
        shrink = torch.where(top == _NONE, 0.0, step.exp()).unsqueeze(1)
        logits -= at_all.unsqueeze(1)
        weights = logits.exp()
        one = part.new_ones(end - begin, 1)
        # A column of ones sums up what the others weigh, in the same order for any number of threads.
        factor = torch.cat([part, one], 1) if rows else one
        if entropy:
            sums[1] = shrink * (sums[1] + step.unsqueeze(1) * sums[0])
        sums[0] *= shrink
        sums[0] += ordered_product(weights.mT, factor)
        if entropy:
            weights *= logits.masked_fill_(logits == _NONE, 0.0)
            sums[1] += ordered_product(weights.mT, factor)
        top = fresh
    mass, depth = sums[..., -1]
    return _Sums(top, mass, depth, sums[0, :, :-1] if rows else None, sums[1, :, :-1] if rows and entropy else None)


def _over_picks(v: Tensor, bank: Tensor, picks: Tensor, temperature: float, rows: bool) -> _Sums:
    """The sums over the rows `picks` [B, m] of each sample, -1 for none."""
    logits = [_logits_of(v, bank, each, temperature) for each in picks.unbind(1)]
    top = torch.stack(logits).amax(0) if logits else v.new_full(v.shape[:1], _NONE)
    at = torch.where(top == _NONE, 0.0, top)
    mass, total = torch.zeros_like(top), torch.zeros_like(v)
    for each, logit in zip(picks.unbind(1), logits, strict=True):
        weight = (logit - at).exp()
        mass += weight
        if rows:
            total += weight.unsqueeze(1) * _rows_of(bank, each, v)
    return _Sums(top, mass, torch.zeros_like(top), total, None)


def _combined(tops: Tensor, masses: Tensor, depths: Tensor) -> tuple[Tensor, Tensor]:
    """Log of the sum, and entropy, of the logits of all ranks: [R, B] each, added in rank order."""
    top = tops.amax(0)
    at = torch.where(top == _NONE, 0.0, top)
    mass, depth = torch.zeros_like(at), torch.zeros_like(at)
    for own, s, t in zip(tops, masses, depths, strict=True):
        step = torch.where(own == _NONE, 0.0, own - at)
        weight = torch.where(own == _NONE, 0.0, step.exp())
        mass += weight * s
        depth += weight * (t + step * s)
    log = top + torch.where(top == _NONE, 1.0, mass).log()
    return log, torch.where(top == _NONE, 0.0, mass.log() - depth / mass)


def _weighed(log_weight: Tensor, rows: Tensor | None) -> Tensor:
    """Rows [B, d] times exp of their weights; zeros where the weight is."""
    assert rows is not None
    weight = torch.where(log_weight.isnan() & (rows == 0).all(1), _NONE, log_weight).exp()
    return weight.to(rows.dtype).unsqueeze(1) * rows
