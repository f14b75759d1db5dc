"""mi_loss and dhog_loss over ranks: losses and gradients are those of the whole batch."""

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from support.ranks import LAYOUTS, bounds

from deepclust_ext import dhog_loss, iic_loss, mi_loss


def probabilities(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(*shape, generator=generator)).softmax(-1).to(dtype)


def mi_shard(group, rank, p, q, spans, options):
    begin, end = spans[rank]
    p, q = p[..., begin:end, :].requires_grad_(), q[..., begin:end, :].requires_grad_()
    loss = mi_loss(p, q, group=group, **options)
    (loss * torch.arange(1, loss.numel() + 1).view(loss.shape)).sum().backward()
    return loss.detach(), p.grad, q.grad


def mi_whole(p, q, options):
    return mi_shard(None, 0, p.clone(), q.clone(), [(0, p.shape[-2])], options)


@pytest.mark.parametrize(("world", "cut"), LAYOUTS)
def test_mi_loss_is_that_of_the_whole_batch(ranks, world, cut):
    p, q = probabilities(61, 7), probabilities(61, 7, seed=1)
    check_mi(ranks, world, cut, p, q, {"lamb": 1.3})


@pytest.mark.parametrize(
    ("p", "q", "options"),
    [
        (probabilities(2, 3, 40, 5), probabilities(2, 3, 40, 4), {"symmetric": False}),
        (probabilities(30, 5, dtype=torch.float64), probabilities(30, 5, seed=2), {}),
        (probabilities(30, 5, dtype=torch.bfloat16), probabilities(30, 5, seed=2, dtype=torch.bfloat16), {}),
        (torch.eye(6).repeat(5, 1), torch.eye(6).repeat(5, 1), {}),
        (torch.zeros(9, 4), torch.zeros(9, 4), {}),
        (torch.zeros(0, 4), torch.zeros(0, 4), {}),
        (torch.ones(9, 1), torch.ones(9, 1), {}),
    ],
    ids=["batches", "float64", "bfloat16", "one-hot", "zeros", "no samples", "one class"],
)
def test_mi_loss_of_odd_batches(ranks, p, q, options):
    check_mi(ranks, 3, "uneven", p, q, options)


def check_mi(ranks, world, cut, p, q, options):
    spans = bounds(p.shape[-2], world, cut)
    loss, grad_p, grad_q = mi_whole(p, q, options)
    found = ranks(world, mi_shard, p, q, spans, options)
    tolerance = {torch.float64: 1e-12, torch.bfloat16: 1e-2}.get(p.dtype, 1e-5)
    for (begin, end), (own_loss, own_p, own_q) in zip(spans, found, strict=True):
        assert torch.equal(own_loss, found[0][0])
        assert own_loss.dtype == loss.dtype
        torch.testing.assert_close(own_loss, loss, rtol=tolerance, atol=tolerance)
        for own, whole in ((own_p, grad_p), (own_q, grad_q)):
            torch.testing.assert_close(own, whole[..., begin:end, :], rtol=tolerance, atol=tolerance / 10)


def mi_of_long(group, rank, classes):
    p = probabilities(20, classes, seed=rank)
    return mi_loss(p, p, group=group)


def test_a_large_joint_goes_round_in_pieces(ranks):
    found = ranks(3, mi_of_long, 200)
    whole = torch.cat([probabilities(20, 200, seed=rank) for rank in range(3)])
    assert all(torch.equal(loss, found[0]) for loss in found)
    torch.testing.assert_close(found[0], mi_loss(whole, whole))


def iic_shard(group, rank, p):
    return iic_loss(p[rank::2], p[rank::2], group=group)


def test_iic_loss_takes_a_group(ranks):
    p = probabilities(20, 3)
    torch.testing.assert_close(ranks(2, iic_shard, p)[1], iic_loss(p, p))


def dhog_shard(group, rank, probs, spans, options):
    begin, end = spans[rank]
    probs = probs[:, :, begin:end].requires_grad_()
    result = dhog_loss(probs, group=group, **options)
    (2.5 * result.loss).backward()
    return result.loss.detach(), result.pull, result.push, probs.grad


@pytest.mark.parametrize(("world", "cut"), LAYOUTS)
@pytest.mark.parametrize("pooling", ["pooled", "mean"])
def test_dhog_loss_is_that_of_the_whole_batch(ranks, world, cut, pooling):
    check_dhog(ranks, world, cut, probabilities(4, 3, 45, 6), {"pooling": pooling, "alpha": 0.7, "lamb": 1.2})


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 1, 20, 5), {}),
        ((3, 4, 20, 5), {"push_norm": "count", "alpha": 0.3, "pooling": "mean"}),
        ((5, 2, 20, 1), {}),
        ((2, 3, 0, 4), {}),
    ],
)
def test_dhog_loss_of_odd_batches(ranks, shape, options):
    check_dhog(ranks, 3, "uneven", probabilities(*shape, dtype=torch.float64), options)


def check_dhog(ranks, world, cut, probs, options):
    spans = bounds(probs.shape[2], world, cut)
    whole = dhog_shard(None, 0, probs.clone(), [(0, probs.shape[2])], options)
    found = ranks(world, dhog_shard, probs, spans, options)
    tolerance = 1e-11 if probs.dtype == torch.float64 else 1e-5
    for (begin, end), own in zip(spans, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(own[:3], found[0][:3], strict=True))
        for a, b in zip(own[:3], whole[:3], strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(own[3], whole[3][:, :, begin:end], rtol=tolerance, atol=tolerance / 10)


def second_derivative(group, rank, name):
    probs = probabilities(2, 2, 8, 3).requires_grad_()
    loss = mi_loss(probs, probs, group=group).sum() if name == "mi" else dhog_loss(probs, group=group).loss
    torch.autograd.grad(loss, probs, create_graph=True)[0].sum().backward()


@pytest.mark.parametrize("name", ["mi", "dhog"])
def test_a_second_derivative_is_refused(ranks, name):
    assert all(
        "a second derivative is not implemented" in error[1] for error in ranks.errors(2, second_derivative, name)
    )


# Wrong use on one rank is an error on all.


def wrong(group, rank, where, kind):
    p = probabilities(8, 4)
    options = {}
    if rank == where:
        if kind == "columns":
            p = probabilities(8, 5)
        elif kind == "dtype":
            p = p.double()
        elif kind == "no tensor":
            return mi_loss([[1.0]], p, group=group)
        elif kind == "lamb":
            options = {"lamb": 2.0}
        elif kind == "another op":
            return dhog_loss(p.expand(2, 1, 8, 4), group=group)
        elif kind == "rows":
            return mi_loss(p, p[:3], group=group)
    return mi_loss(p, p, group=group, **options)


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("columns", "ValueError", "mi_loss: 'p' must be the same on every rank, got shape (n, "),
        ("dtype", "ValueError", "mi_loss: 'p' must be the same on every rank, got shape (n, 4) float"),
        ("lamb", "ValueError", "mi_loss: 'lamb' must be the same on every rank, got "),
        ("no tensor", "TypeError", "mi_loss: 'p' must be a torch.Tensor, got list (on rank "),
        ("rows", "ValueError", "mi_loss: 'q' must have p's 8 samples, got 3 (on rank "),
        ("another op", "ValueError", "loss: 'group' must be the same on every rank, got "),
    ],
)
def test_wrong_use_on_one_rank_is_the_same_error_on_every_rank(ranks, kind, error, words):
    for world, where in ((2, 1), (3, 0)):
        found = ranks.errors(world, wrong, where, kind)
        assert len(set(found)) == 1
        assert found[0][0] == error
        assert words in found[0][1]
    # And the group is fit for use afterwards.
    assert ranks.errors(3, wrong, -1, "") == [None] * 3


def test_all_wrong_alike_is_a_plain_sentence(ranks):
    found = ranks.errors(2, both_wrong)
    assert found == [("ValueError", "mi_loss: 'q' must have p's 8 samples, got 3")] * 2


def both_wrong(group, rank):
    mi_loss(probabilities(8, 4), probabilities(3, 4), group=group)


def one_stays_away(group, rank):
    group = dist.new_group(timeout=timedelta(seconds=1))
    if rank > 0:
        mi_loss(probabilities(8, 4), probabilities(8, 4), group=group)


def test_a_rank_that_stays_away_is_an_error_after_the_groups_timeout(ranks):
    found = ranks.errors(3, one_stays_away, timeout=20)
    assert found[0] is None
    assert all(error is not None for error in found[1:])


def not_a_member(group, rank):
    others = dist.new_group([0, 1])
    if rank == 2:
        mi_loss(probabilities(8, 4), probabilities(8, 4), group=others)


def test_a_process_outside_of_the_group_is_refused(ranks):
    found = ranks.errors(3, not_a_member)
    assert found[:2] == [None, None]
    assert "mi_loss: 'group' must hold this process" in found[2][1]


@pytest.mark.parametrize("group", ["gloo", 0, object()])
def test_a_group_must_be_one(group):
    with pytest.raises(TypeError, match="'group' must be a torch"):
        mi_loss(probabilities(8, 4), probabilities(8, 4), group=group)
