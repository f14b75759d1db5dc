"""The model of what ops send, beside what they are seen to send."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from deepclust_ext import bank_nll_entropy, bank_update_, dhog_loss, kmeans, knn, mi_loss

sys.path.append(str(Path(__file__).resolve().parents[2]))
from benchmarks.scale import traffic

N, D, K, M = 96, 24, 7, 3


def rows(rank, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(rank))


def calls(group, rank):
    """One call of each op, by the name of its model, with the model's sizes."""
    x, bank = rows(rank, N, D), torch.nn.functional.normalize(rows(rank, N, D))
    v = torch.nn.functional.normalize(rows(rank, 10, D)).requires_grad_()
    index, neighbors = torch.arange(10), torch.randint(N, (10, M))
    joint = torch.softmax(rows(rank, N, 11), -1)
    wide = torch.softmax(rows(rank, 20, 200), -1)
    heads = torch.softmax(rows(rank, 3, 4, N, 5), -1)
    return {
        ("mi_loss", 11): lambda: mi_loss(joint, joint, group=group),
        ("mi_loss", 200): lambda: mi_loss(wide, wide, group=group),
        ("dhog_loss", 4, 5): lambda: dhog_loss(heads, group=group),
        ("knn", N, D): lambda: knn(x, 5, group=group),
        ("bank_nll_entropy", 10, M, D): lambda: bank_nll_entropy(v, bank, index, neighbors, group=group),
        ("bank_update", 10, D): lambda: bank_update_(bank, index, v.detach(), group=group),
    }


def counted(group, rank):
    found = {}
    for name, call in calls(group, rank).items():
        with traffic.counted() as seen:
            call()
        found[name] = (seen.calls, seen.received)
    return found


@pytest.mark.parametrize("world", [2, 3])
def test_the_model_is_what_is_counted(ranks, world):
    for found in ranks(world, counted):
        for (name, *sizes), (count, received) in found.items():
            expected = getattr(traffic, name)(world, *sizes)
            assert (count, received) == (expected.calls, expected.received), (name, sizes)


def iterations(group, rank):
    x, start = rows(rank, N, D), rows(9, K, D)
    seen = []
    for length in (1, 2):
        with traffic.counted() as each:
            found = kmeans(x, K, init=start, max_iter=length, tol=0.0, empty="keep", group=group)
        assert found.n_iter == length
        seen.append((each.calls, each.received))
    return seen


@pytest.mark.parametrize("world", [2, 3])
def test_an_iteration_of_kmeans(ranks, world):
    expected = traffic.kmeans_iteration(world, K, D)
    for one, two in ranks(world, iterations):
        assert two[0] - one[0] == expected.calls
        assert two[1] - one[1] == pytest.approx(expected.received)


def test_the_collectives_are_put_back():
    import torch.distributed as dist

    before = dist.all_gather
    with traffic.counted():
        assert dist.all_gather is not before
    assert dist.all_gather is before
