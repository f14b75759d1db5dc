"""Near duplicates: every pair within the distance and no other, copies in a star, groups by connection."""

from __future__ import annotations

import pytest
import torch

from deepclust_ext.cluster.duplicates import groups_of, near_duplicates


def brute(x, distance, metric):
    """All pairs by their definition, in float64; without those of copies but the first."""
    x = x.double()
    if metric == "cosine":
        x = torch.nn.functional.normalize(x, dim=1)
        apart = ((x[:, None] - x[None]) ** 2).sum(2) / 2
    else:
        apart = ((x[:, None] - x[None]) ** 2).mean(2).sqrt()
    first = [next(j for j in range(len(x)) if torch.equal(x[j], x[i])) for i in range(len(x))]
    return {
        (i, j): apart[i, j].item()
        for i in range(len(x))
        for j in range(i + 1, len(x))
        if apart[i, j] <= distance and first[i] == i and first[j] in (i, j)
    }


def crowded(n=150, dim=6, seed=0, dtype=torch.float32):
    """A crowd of 60 near points, which takes several rounds, a few pairs, copies, zeros and the rest."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, dim, generator=generator)
    x[20:80] = x[20] + 0.02 * torch.randn(60, dim, generator=generator)
    x[100], x[101], x[149] = x[3] + 0.01, 2 * x[5], x[7]
    x[110:115] = x[7]
    x[120], x[121] = 0.0, -0.0
    return x[torch.randperm(n, generator=generator)].to(dtype)


@pytest.mark.parametrize("metric", ["cosine", "rms"])
@pytest.mark.parametrize("distance", [0.0, 0.001, 0.02, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_every_pair_within_the_distance(metric, distance, dtype):
    x = crowded(dtype=dtype)
    found = near_duplicates(x, distance, metric=metric)
    if distance == 0.0:
        copies = found.pairs
        assert found.distances.max() < 1e-6
        assert len(copies) >= 6
        return
    expected = brute(x, distance, metric)
    # Beside the limit itself, rounding decides.
    sure = {pair for pair, value in expected.items() if value < distance * 0.9999}
    possible = set(brute(x, distance * 1.0001, metric))
    pairs = [tuple(pair) for pair in found.pairs.tolist()]
    assert pairs == sorted(set(pairs))
    ours, star = set(pairs), {pair for pair, value in expected.items() if value < 1e-6}
    assert sure - ours <= star
    assert ours <= possible
    for pair, value in zip(pairs, found.distances.tolist(), strict=True):
        assert value == pytest.approx(brute_of(x, pair, metric), abs=2e-4)
    assert len(pairs) > 400 or distance < 0.02


def brute_of(x, pair, metric):
    a, b = x[list(pair)].double()
    if metric == "cosine":
        zero = not a.any() or not b.any()
        return (0.0 if not (a.any() or b.any()) else 0.5) if zero else 1 - (a @ b / a.norm() / b.norm()).item()
    return (a - b).square().mean().sqrt().item()


def test_copies_make_no_square_of_pairs():
    x = torch.cat([torch.ones(2000, 3), torch.eye(3)])
    found = near_duplicates(x, 0.01)
    assert found.pairs.tolist() == [[0, j] for j in range(1, 2000)]
    assert found.groups.tolist() == [0] * 2000 + [-1] * 3


def test_groups_are_what_pairs_connect_by_first_member():
    line = torch.arange(40, dtype=torch.float32)[:, None]
    line[[11, 30]] += torch.tensor([[1000.0], [2000.0]])
    groups = near_duplicates(line, 1.0, metric="rms").groups
    assert groups.tolist() == [0] * 11 + [-1] + [1] * 18 + [-1] + [2] * 9
    assert groups_of(torch.empty(0, 2, dtype=torch.int64), 3).tolist() == [-1] * 3


@pytest.mark.parametrize("n", [0, 1, 2, 9, 10])
def test_few_rows(n):
    found = near_duplicates(torch.arange(n, dtype=torch.float32)[:, None] + 1.0, 100.0, metric="rms")
    assert len(found.pairs) == n * (n - 1) // 2
    assert len(found.groups) == n


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(3), 0.1), ValueError, "'x' must have shape"),
        ((torch.zeros(3, 2, dtype=torch.int64), 0.1), TypeError, "'x' must be a floating-point tensor"),
        ((torch.full((3, 2), float("nan")), 0.1), ValueError, "'x' must be finite"),
        ((torch.zeros(3, 2), -0.1), ValueError, "'distance' must be finite and at least 0"),
        ((torch.zeros(3, 2), 0.1, "l1"), ValueError, "'metric' must be one of"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    x, distance, *metric = arguments
    with pytest.raises(error, match=message):
        near_duplicates(x, distance, **({"metric": metric[0]} if metric else {}))
