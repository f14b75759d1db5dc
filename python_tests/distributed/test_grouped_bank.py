"""The bank's losses and update over ranks that hold its rows: those of one rank with the whole bank and batch."""

import pytest
import torch
from support.ranks import LAYOUTS, bounds

from deepclust_ext import bank_entropy, bank_nll, bank_nll_entropy, bank_update_

OPS = {"bank_nll": bank_nll, "bank_entropy": bank_entropy, "bank_nll_entropy": bank_nll_entropy}


def unit(n, d, seed, dtype=torch.float32):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=1).to(dtype)


def problem(rows=47, count=17, d=12, neighbors=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(7)
    bank, index = unit(rows, d, 1, dtype), torch.randint(rows, (count,), generator=generator)
    v = torch.nn.functional.normalize(bank[index] + 0.3 * unit(count, d, 2, dtype), dim=1)
    others = torch.randint(-1, rows, (count, neighbors), generator=generator)
    if neighbors > 2 and count:
        others[:, 2] = others[:, 0]  # repeats count once
        others[::2, 1] = index[::2]  # and so does the sample itself
    return v, bank, index, others


def run(op, v, bank, index, others, **options):
    found = OPS[op](v, bank, index, **({} if op == "bank_entropy" else {"neighbors": others}), **options)
    return found if isinstance(found, tuple) else (found,)


def shard(group, rank, op, v, bank, index, others, batch, rows, options):
    (begin, end), (first, last) = batch[rank], rows[rank]
    v = v[begin:end].clone().requires_grad_()
    own = None if index is None else index[begin:end]
    losses = run(op, v, bank[first:last], own, others[begin:end], group=group, **options)
    # Upstream gradients that differ from sample to sample, and from loss to loss.
    scales = torch.arange(begin + 1, end + 1)
    sum((loss * (scale * scales)).sum() for scale, loss in enumerate(losses, 1)).backward()
    return [loss.detach() for loss in losses], v.grad


def check(ranks, world, cuts, op, data, tolerance=2e-5, **options):
    v, bank = data[:2]
    batch, rows = bounds(len(v), world, cuts[0]), bounds(len(bank), world, cuts[1])
    losses, grad = shard(None, 0, op, *data, [(0, len(v))], [(0, len(bank))], options)
    found = ranks(world, shard, op, *data, batch, rows, options)
    for (begin, end), (own_losses, own_grad) in zip(batch, found, strict=True):
        assert len(own_losses) == len(losses)
        for own, whole in zip(own_losses, losses, strict=True):
            assert own.dtype == whole.dtype
            torch.testing.assert_close(own, whole[begin:end], rtol=tolerance, atol=tolerance)
        # A gradient is a difference of rows over the temperature, which rounding is as large as, where it vanishes.
        size = (grad.abs().max() if len(grad) else torch.tensor(1.0)).clamp(min=1 / options.get("temperature", 0.1))
        torch.testing.assert_close(own_grad / size, grad[begin:end] / size, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("world", "cut"), LAYOUTS)
@pytest.mark.parametrize("op", OPS)
def test_losses_and_gradients_are_those_of_the_whole_bank(ranks, world, cut, op):
    # The batch and the bank are cut in different ways.
    check(ranks, world, (cut, "even"), op, problem())
    check(ranks, world, ("even", cut), op, problem(dtype=torch.float64), tolerance=1e-11)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("temperature", [0.004, 0.07, 3.0])
def test_any_temperature(ranks, op, temperature):
    # At a low one the own row outweighs all others by far more than a float holds.
    check(ranks, 3, ("uneven", "uneven"), op, problem(), temperature=temperature, tolerance=1e-4)
    check(ranks, 3, ("uneven", "uneven"), op, problem(dtype=torch.float64), temperature=temperature, tolerance=1e-10)


def test_entropy_without_an_excluded_row(ranks):
    v, bank, index, others = problem()
    check(ranks, 3, ("even", "uneven"), "bank_entropy", (v, bank, None, others))
    check(ranks, 3, ("even", "uneven"), "bank_entropy", (v, bank, index.where(index % 2 == 0, -1), others))


@pytest.mark.parametrize("op", OPS)
def test_odd_sizes(ranks, op):
    check(ranks, 3, ("even", "uneven"), op, problem(rows=1, count=4, neighbors=1))
    check(ranks, 3, ("even", "uneven"), op, problem(rows=2, count=4, neighbors=0))
    check(ranks, 3, ("even", "uneven"), op, problem(rows=40, count=1))
    check(ranks, 3, ("even", "uneven"), op, problem(rows=40, count=0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_banks(ranks, dtype):
    v, bank, index, others = problem()
    check(ranks, 2, ("even", "uneven"), "bank_nll_entropy", (v, bank.to(dtype), index, others))
    check(
        ranks, 2, ("even", "uneven"), "bank_nll_entropy", (v.to(dtype), bank.to(dtype), index, others), tolerance=1e-2
    )


def in_tiles(group, rank, *args):
    import deepclust_ext.ops._grouped_bank as grouped_bank

    before, grouped_bank._TILE = grouped_bank._TILE, 64
    try:
        return shard(group, rank, *args)
    finally:
        grouped_bank._TILE = before


def test_a_bank_of_many_tiles(ranks):
    data = problem(rows=90, dtype=torch.float64)
    batch, rows = bounds(17, 3, "even"), bounds(90, 3, "uneven")
    _, grad = shard(None, 0, "bank_nll_entropy", *data, [(0, 17)], [(0, 90)], {})
    found = ranks(3, in_tiles, "bank_nll_entropy", *data, batch, rows, {})
    torch.testing.assert_close(torch.cat([own for _, own in found]), grad, rtol=1e-10, atol=1e-10)


def only_one_wants_gradients(group, rank, data):
    v, bank, index, others = data
    v = v.clone().requires_grad_(rank == 1)
    loss = bank_nll(v, bank[rank * 20 : rank * 20 + 20], index, others, group=group)
    if rank == 1:
        loss.sum().backward()
    return loss.detach(), v.grad


def test_only_one_rank_wants_gradients(ranks):
    v, bank, index, others = problem(rows=40)
    (first, none), (second, grad) = ranks(2, only_one_wants_gradients, (v, bank, index, others))
    whole = v.clone().requires_grad_()
    loss = bank_nll(whole, bank, index, others)
    loss.sum().backward()
    assert none is None
    torch.testing.assert_close(first, loss.detach())
    torch.testing.assert_close(second, loss.detach())
    torch.testing.assert_close(grad, whole.grad, rtol=1e-4, atol=1e-4)


def second_derivative(group, rank):
    v, bank, index, _ = problem()
    v.requires_grad_()
    loss = bank_nll(v, bank, index, group=group).sum()
    torch.autograd.grad(loss, v, create_graph=True)[0].sum().backward()


def test_a_second_derivative_is_refused(ranks):
    assert all("a second derivative is not implemented" in error[1] for error in ranks.errors(2, second_derivative))


# Update


def update(group, rank, bank, index, features, batch, rows, momentum):
    (begin, end), (first, last) = batch[rank], rows[rank]
    own = bank[first:last].clone()
    assert bank_update_(own, index[begin:end], features[begin:end], momentum=momentum, group=group) is own
    return own


@pytest.mark.parametrize(("world", "cut"), LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_an_update_has_the_bits_of_one_rank(ranks, world, cut, dtype):
    features, bank, index, _ = problem(rows=23, count=40, dtype=dtype)  # rows are named more than once
    whole = bank_update_(bank.clone(), index, features, momentum=0.6)
    for cuts in ((cut, "even"), ("even", cut)):
        batch, rows = bounds(40, world, cuts[0]), bounds(23, world, cuts[1])
        found = ranks(world, update, bank, index, features, batch, rows, 0.6)
        assert torch.equal(torch.cat(found), whole)


# Wrong use on one rank is an error on all.


def wrong(group, rank, op, kind):
    v, bank, index, others = problem(rows=20)
    options = {}
    if rank == 1:
        if kind == "columns":
            v, bank = v[:, :5], bank[:, :5]
        elif kind == "dtype":
            v, bank = v.double(), bank.double()
        elif kind == "index":
            index = index.clone()
            index[3] = 40
        elif kind == "no tensor":
            bank = None
        elif kind == "option":
            options = {"momentum" if op == "bank_update_" else "temperature": 0.9}
        elif kind == "shape":
            index = index[:4]
    if kind == "empty":
        bank = bank[:0]
    if op == "bank_update_":
        kept = bank
        before = None if bank is None else bank.clone()
        try:
            return bank_update_(bank, index, v, group=group, **options)
        finally:
            if kind == "index":
                assert torch.equal(kept, before)
    return run(op, v, bank, index, others, group=group, **options)


@pytest.mark.parametrize("op", [*OPS, "bank_update_"])
@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("columns", "ValueError", "must be the same on every rank, got shape (n, 12) float32 on cpu on rank 0"),
        ("dtype", "ValueError", "must be the same on every rank, got shape (n, 12) float32 on cpu on rank 0"),
        ("index", "IndexError", "between 0 and 39, got 40"),
        ("no tensor", "TypeError", "'bank' must be a torch.Tensor, got NoneType (on rank 1)"),
        ("option", "ValueError", "must be the same on every rank, got 0."),
        ("shape", "ValueError", "(17,) as "),
        ("empty", None, ""),
    ],
)
def test_wrong_use_on_one_rank_is_the_same_error_on_every_rank(ranks, op, kind, error, words):
    found = ranks.errors(2, wrong, op, kind)
    assert found[0] == found[1]
    assert found[0][0] == error or error is None
    assert found[0][1].startswith(f"{op}: ")
    assert words in found[0][1]
