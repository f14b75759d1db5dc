"""knn at the edges: copies, ties, far from the origin, tiles, batches, and errors."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import paths

from deepclust_ext import kmeans_assign, knn, knn_classify, reference
from deepclust_ext.ops.knn_classify import count_votes

METRICS = ["euclidean", "cosine", "inner"]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def points(n, d, seed=0, dtype=torch.float32):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def complete(x, metric="euclidean", query=None):
    """All pairs' values as the op computes them: row i, column j."""
    n, both = len(x), query is not None
    values, indices = knn(x, n if both else n - 1, query=query, metric=metric)
    table = torch.full((len(query) if both else n, n), torch.nan, dtype=values.dtype)
    return table.scatter_(1, indices, values)


def by_definition(table, k, largest):
    """The k best of a table of values by (value, index); NaN stands for the row itself."""
    worst = -torch.inf if largest else torch.inf
    filled = table.nan_to_num(nan=worst)
    indices = filled.sort(dim=1, stable=True, descending=largest).indices[:, :k]
    return table.gather(1, indices), indices


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("n", "d"), [(2, 1), (3, 2), (47, 5), (97, 16), (193, 33), (961, 7), (1021, 129)])
def test_the_k_best_of_the_computed_values(n, d, metric):
    x = points(n, d)
    table = complete(x, metric)
    for k in {1, 2, min(20, n - 1), n // 2, n - 1} - {0} if n > 2 else {1}:
        values, indices = knn(x, k, metric=metric)
        want_values, want_indices = by_definition(table, k, metric != "euclidean")
        assert torch.equal(values, want_values)
        assert torch.equal(indices, want_indices)


@pytest.mark.parametrize("metric", METRICS)
def test_a_pair_has_the_same_bits_both_ways_and_from_a_query(metric):
    x = points(1300, 37)
    table = complete(x, metric)
    assert torch.equal(table, table.T) or torch.equal(table.nan_to_num(), table.T.nan_to_num())
    asked = complete(x, metric, query=x)
    inside = ~torch.eye(len(x), dtype=torch.bool)
    assert torch.equal(asked[inside], table[inside])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 400), st.integers(1, 40), st.integers(0, 2**31), st.sampled_from(METRICS), st.booleans())
def test_a_permutation_of_the_points_permutes_the_result(n, d, seed, metric, coarse):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    x = x.round() if coarse else x  # many ties
    k = 1 + seed % (n - 1) if n > 2 else 1
    order = torch.randperm(n, generator=generator)
    values, _ = knn(x, k, metric=metric)
    permuted_values, permuted_indices = knn(x[order], k, metric=metric)
    assert torch.equal(permuted_values, values[order])
    # By value: among equal ones a permutation changes which index is the lowest.
    pair_values = complete(x, metric).gather(1, order[permuted_indices][order.argsort()])
    assert torch.equal(pair_values, values)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([95, 96, 97, 191, 192, 193, 479, 480, 481, 960, 961, 1009]),
    st.sampled_from([1, 3, 15, 16, 17, 31, 64, 65, 161]),
    st.integers(0, 2**31),
    st.sampled_from(METRICS),
)
def test_agrees_with_the_reference_around_the_edges_of_tiles(n, d, seed, metric):
    x = points(n, d, seed)
    k = 1 + seed % 30
    values, indices = knn(x, k, metric=metric)
    exact, _ = reference.knn(x.double(), k, metric=metric)
    scale = exact.abs().max().item()
    torch.testing.assert_close(values.double(), exact, rtol=0, atol=2e-6 * scale)
    chosen = reference.knn(x.double(), n - 1, metric=metric)
    lookup = torch.zeros(n, n, dtype=torch.float64).scatter_(1, chosen[1], chosen[0])
    torch.testing.assert_close(lookup.gather(1, indices), exact, rtol=0, atol=2e-6 * scale)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 700), st.integers(1, 3000), st.integers(1, 20), st.integers(0, 2**31))
def test_queries_do_not_depend_on_how_they_are_cut(q, n, d, seed):
    generator = torch.Generator().manual_seed(seed)
    x, query = torch.randn(n, d, generator=generator), torch.randn(q, d, generator=generator)
    k = 1 + seed % min(n, 60)
    whole = knn(x, k, query=query)
    cut = seed % q
    for part, rows in ((query[: cut + 1], slice(0, cut + 1)), (query[cut:], slice(cut, q))):
        values, indices = knn(x, k, query=part)
        assert torch.equal(values, whole.values[rows])
        assert torch.equal(indices, whole.indices[rows])


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_copies_are_at_distance_zero_however_far_out(offset, dtype):
    base = points(300, 24, dtype=dtype) + offset
    x = torch.cat([base, base, base])
    values, indices = knn(x, 2)
    assert (values == 0).all()
    i = torch.arange(900)
    assert torch.equal(indices, torch.stack([(i + 300) % 900, (i + 600) % 900], 1).sort(1).values)


@pytest.mark.parametrize("offset", [1e2, 1e4])
def test_near_points_far_from_the_origin_keep_their_digits(offset):
    x = points(500, 8) * 0.1 + offset  # rounded: compare with what is really there
    values, _ = knn(x, 10)
    exact, _ = reference.knn(x.double(), 10)
    torch.testing.assert_close(values.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_the_order_holds_where_the_filter_sees_nothing(metric, dtype):
    """Two clusters so far apart that the rounding of their norms exceeds the distances within."""
    x = points(700, 12, dtype=dtype) * 1e-3
    x[::2] += 1e4 if dtype == torch.float32 else 1e8
    table = complete(x, metric)
    values, indices = knn(x, 9, metric=metric)
    want_values, want_indices = by_definition(table, 9, metric != "euclidean")
    assert torch.equal(values, want_values)
    assert torch.equal(indices, want_indices)


def test_distant_clusters_keep_their_digits():
    # No centre serves both: norms of 1e8 against distances of 1e-2.
    x = points(400, 8) * 0.03
    x[::2] += 1e4
    values, _ = knn(x, 10)
    exact, _ = reference.knn(x.double(), 10)
    torch.testing.assert_close(values.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", [2, 50, 97, 700, 2100])
def test_all_points_equal(n, metric):
    x = torch.full((n, 3), 0.7)
    k = min(n - 1, 70)
    values, indices = knn(x, k, metric=metric)
    assert (values == values[0, 0]).all()
    i = torch.arange(n).unsqueeze(1)
    want = torch.arange(k).expand(n, k)
    assert torch.equal(indices, want + (want >= i))


def test_ties_go_to_the_lowest_index():
    grid = torch.cartesian_prod(torch.arange(25.0), torch.arange(25.0))
    order = torch.randperm(625, generator=torch.Generator().manual_seed(0))
    x = grid[order]
    values, indices = knn(x, 12)
    exact, exact_indices = reference.knn(x.double(), 12)
    assert torch.equal(values.double(), exact)
    assert torch.equal(indices, exact_indices)


def test_a_point_is_left_out_by_its_index_and_its_copies_stay():
    x = torch.tensor([[1.0, 1.0], [1.0, 1.0], [5.0, 5.0]])
    values, indices = knn(x, 2)
    assert indices.tolist() == [[1, 2], [0, 2], [0, 1]]
    assert values[0].tolist() == [0.0, 32.0]
    assert knn(x, 1, query=x[:1]).indices.tolist() == [[0]]


def test_zero_rows_have_cosine_zero_with_everything():
    x = torch.cat([torch.zeros(2, 4), points(20, 4)])
    values, indices = knn(x, 21, metric="cosine")
    assert (values[:2] == 0).all()
    assert indices[0].tolist() == list(range(1, 22))
    assert indices[1].tolist() == [0, *range(2, 22)]
    assert values.abs().max() <= 1 + 1e-6


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [
        (1e-30, torch.float32),
        (1e-20, torch.float32),
        (1e30, torch.float32),
        *((s, torch.float64) for s in (1e-200, 1e300)),
    ],
)
def test_cosine_knows_no_scale(scale, dtype):
    x = points(60, 5, dtype=dtype)
    exact, exact_indices = knn(x, 5, metric="cosine")
    values, indices = knn(x * scale, 5, metric="cosine")
    torch.testing.assert_close(values, exact, rtol=0, atol=1e-6)
    assert torch.equal(indices, exact_indices)


@pytest.mark.parametrize("metric", ["euclidean", "inner"])
@pytest.mark.parametrize("scale", [1e-25, 1e-18, 1e15, 1e18, 1e25])
def test_squares_that_leave_the_range_of_float32(scale, metric):
    """They become 0, lose digits or become infinite, and are ordered as that."""
    x = points(150, 6) * scale
    table = complete(x, metric)
    values, indices = knn(x, 7, metric=metric)
    want_values, want_indices = by_definition(table, 7, metric != "euclidean")
    assert torch.equal(values, want_values)
    assert torch.equal(indices, want_indices)
    if 1e-18 <= scale <= 1e15:
        exact, _ = reference.knn(x.double(), 7, metric=metric)
        torch.testing.assert_close(values.double(), exact, rtol=2e-5, atol=1e-37)


def test_one_far_point_among_near_ones():
    x = points(3000, 10)
    x[1234] = 1e6
    values, indices = knn(x, 5)
    exact, exact_indices = reference.knn(x.double(), 5)
    torch.testing.assert_close(values.double(), exact, rtol=1e-5, atol=0)
    assert (indices != exact_indices).float().mean() < 1e-3


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_dimension_two_points(dtype):
    values, indices = knn(torch.tensor([[1.0], [4.0]], dtype=dtype), 1)
    assert values.tolist() == [[9.0], [9.0]]
    assert indices.tolist() == [[1], [0]]


def test_batches_are_apart():
    x, query = points(6 * 70, 5).view(2, 3, 70, 5), points(3 * 9, 5, 1).view(3, 9, 5)
    graph, asked = knn(x, 6), knn(x, 6, query=query)
    assert asked.values.shape == (2, 3, 9, 6)
    for a in range(2):
        for b in range(3):
            for got, alone in ((graph, knn(x[a, b], 6)), (asked, knn(x[a, b], 6, query=query[b]))):
                assert torch.equal(got.values[a, b], alone.values)
                assert torch.equal(got.indices[a, b], alone.indices)


@pytest.mark.parametrize("shape", [(0, 7, 3), (2, 0, 7, 3)])
def test_empty_batches(shape):
    values, indices = knn(torch.zeros(shape), 2)
    assert values.shape == indices.shape == (*shape[:-1], 2)
    assert knn(torch.zeros(5, 3), 2, query=torch.zeros(0, 3)).values.shape == (0, 2)


def test_large_batch_items_use_the_threads_and_small_ones_too(threads):
    x = points(2 * 2200, 20).view(2, 2200, 20)
    threads(1)
    want = knn(x, 8)
    threads(2)
    assert torch.equal(knn(x, 8).indices, want.indices)
    assert torch.equal(knn(x[1], 8).indices, want.indices[1])


def test_mixed_dtypes_are_promoted():
    x, query = points(40, 3), points(5, 3, 1, torch.float64)
    assert knn(x, 2, query=query).values.dtype == torch.float64
    assert knn(x.half(), 2, query=query.half()).values.dtype == torch.float32


def test_the_threads_do_not_matter_where_lists_overflow(threads):
    # Rounded coordinates: ties that the bounds cannot tell apart, so the exact costs decide inside of lists too.
    x = (points(2500, 4) * 2).round()
    threads(1)
    want = knn(x, 30)
    for count in (2, 3):
        threads(count)
        got = knn(x, 30)
        assert torch.equal(got.values, want.values)
        assert torch.equal(got.indices, want.indices)
    exact, exact_indices = reference.knn(x.double(), 30)
    assert torch.equal(want.values.double(), exact)
    assert torch.equal(want.indices, exact_indices)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("metric", METRICS)
def test_features_must_be_finite(bad, metric):
    x, query = points(30, 4), points(6, 4)
    broken = x.clone()
    broken[17, 2] = bad
    with pytest.raises(ValueError, match=r"^knn: 'x' must be finite, got NaN or infinity in row 17; drop or mend"):
        knn(broken, 3, metric=metric)
    with pytest.raises(ValueError, match="knn: 'x' must be finite"):
        knn(broken, 3, query=query, metric=metric)
    with pytest.raises(ValueError, match="knn: 'query' must be finite, got NaN or infinity in row 17"):
        knn(x, 3, query=broken, metric=metric)
    batch = torch.stack([x, x, x, broken]).repeat(5, 1, 1)  # items side by side on the threads
    with pytest.raises(ValueError, match=r"got NaN or infinity in row 17; drop or mend such rows$"):
        knn(batch, 29, metric=metric)
    knn(torch.full((4, 2), 3e38), 2, metric=metric)  # large is not infinite
    knn(torch.full((4, 2), 1.7e308, dtype=torch.float64), 2, metric=metric)


def test_what_knn_refuses():
    x = points(6, 3)
    for k, query in ((6, None), (0, None), (-1, None), (7, x), (0, x)):
        with pytest.raises(ValueError, match=rf"knn: 'k' must be at least 1 and at most .*{5 if query is None else 6}"):
            knn(x, k, query=query)
    with pytest.raises(
        ValueError, match="knn: 'k' must be at least 1 and at most the number of other points, 0, got 1"
    ):
        knn(x[:1], 1)
    for k in (2.0, True, None, "3"):
        with pytest.raises(TypeError, match="knn: 'k' must be a whole number"):
            knn(x, k)
    with pytest.raises(ValueError, match="knn: 'metric' must be one of 'euclidean', 'cosine', 'inner', got 'l2'"):
        knn(x, 2, metric="l2")
    with pytest.raises(TypeError, match="knn: 'x' must be float16"):
        knn(x.long(), 2)
    with pytest.raises(TypeError, match=r"knn: 'query' must be a torch\.Tensor, got list"):
        knn(x, 2, query=[[1.0]])
    for shape in ((6,), (6, 0)):
        with pytest.raises(ValueError, match=r"knn: 'x' must have shape \(\.\.\., N, d\)"):
            knn(torch.zeros(shape), 1)
    for shape in ((3,), (4, 2)):
        with pytest.raises(ValueError, match=r"knn: 'query' must have shape \(\.\.\., Q, 3\)"):
            knn(x, 1, query=torch.zeros(shape))
    with pytest.raises(ValueError, match="knn: 'query' must have leading dimensions that broadcast"):
        knn(torch.zeros(2, 6, 3), 1, query=torch.zeros(3, 6, 3))
    with pytest.raises(ValueError, match="knn: 'query' must be on x's device cpu, got meta"):
        knn(x, 1, query=torch.zeros(2, 3, device="meta"))


def test_what_the_raw_op_refuses():
    x, op = points(6, 3), torch.ops.deepclust.knn
    for args, arg in (
        ((x, None, 6, "euclidean"), "k"),
        ((x, x, 7, "euclidean"), "k"),
        ((x, None, 0, "euclidean"), "k"),
        ((x, None, 1, "l2"), "metric"),
        ((x, x.double(), 1, "euclidean"), "query"),
        ((x, x[:, :2], 1, "euclidean"), "query"),
        ((x[0], None, 1, "euclidean"), "x"),
        ((x[:, :0], None, 1, "euclidean"), "x"),
    ):
        with pytest.raises(RuntimeError, match=f"knn: '{arg}' must be"):
            op(*args)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (7, 0.1), (7, 2.0), (200, 0.5)])
def test_classifier_is_its_definition(k, temperature, generator):
    bank, query = points(80, 6), points(30, 6, 1)
    labels = torch.randint(4, (80,), generator=generator)
    found, scores = knn_classify(bank, labels, query, k=k, temperature=temperature)
    want, want_scores = reference.knn_classify(
        bank.double(), labels, query.double(), k=k, temperature=temperature, n_classes=4
    )
    assert torch.equal(found, want)
    torch.testing.assert_close(scores.double(), want_scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(scores.sum(-1), torch.ones(30))


def test_classifier_at_its_edges():
    bank, labels = torch.eye(3), torch.tensor([2, 0, 1])
    found, scores = knn_classify(bank, labels, torch.zeros(1, 3), n_classes=5)  # similarity 0 with all: a tie
    assert found.tolist() == [0]
    assert scores.tolist() == [pytest.approx([1 / 3, 1 / 3, 1 / 3, 0, 0])]
    assert knn_classify(bank, labels, bank, temperature=1e-6).labels.tolist() == [2, 0, 1]
    scores = knn_classify(bank, labels, bank, temperature=1e-300).scores  # 0 in float32
    assert scores.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert knn_classify(bank.half(), labels, bank.double(), k=1).scores.dtype == torch.float64
    assert knn_classify(bank, labels, torch.zeros(0, 3)).scores.shape == (0, 3)
    batched = knn_classify(bank.expand(2, 3, 3), torch.stack([labels, labels.flip(0)]), bank.expand(2, 3, 3), k=1)
    assert batched.labels.tolist() == [[2, 0, 1], [1, 0, 2]]


def test_votes_in_turn_give_the_same_bits():
    weights = points(50, 40).exp()
    votes = torch.randint(7, (50, 40), generator=torch.Generator().manual_seed(1))
    both = [count_votes(votes, weights, 9, in_turn=in_turn) for in_turn in (False, True)]
    assert torch.equal(*both)
    assert not both[0][:, 7:].any()


def test_what_the_classifier_refuses():
    bank, labels = torch.eye(3), torch.tensor([2, 0, 1])
    with pytest.raises(ValueError, match="knn_classify: 'temperature' must be positive, got 0"):
        knn_classify(bank, labels, bank, temperature=0)
    with pytest.raises(ValueError, match="knn_classify: 'k' must be at least 1, got 0"):
        knn_classify(bank, labels, bank, k=0)
    with pytest.raises(TypeError, match=r"knn_classify: 'labels' must be an int64 tensor, got torch\.float32"):
        knn_classify(bank, labels.float(), bank)
    with pytest.raises(ValueError, match=r"knn_classify: 'labels' must have shape \(3,\)"):
        knn_classify(bank, labels[:2], bank)
    with pytest.raises(ValueError, match="knn_classify: 'labels' must be between 0 and 2147483646, got -1"):
        knn_classify(bank, labels - 1, bank)
    with pytest.raises(ValueError, match="knn_classify: 'labels' must be between 0 and n_classes - 1 = 1, got 2"):
        knn_classify(bank, labels, bank, n_classes=2)
    with pytest.raises(ValueError, match="knn_classify: 'bank' must have shape"):
        knn_classify(bank[:0], labels[:0], bank)
    with pytest.raises(ValueError, match="knn_classify: 'query' must have shape"):
        knn_classify(bank, labels, bank[:, :2])
    with pytest.raises(ValueError, match=r"^knn_classify: 'query' must be finite, got NaN or infinity in row 0; drop"):
        knn_classify(bank, labels, bank * torch.nan)
    with pytest.raises(ValueError, match=r"^knn_classify: 'bank' must be finite, got NaN or infinity in row 0; drop"):
        knn_classify(bank / 0, labels, bank)
    with pytest.raises(ValueError, match="knn_classify: 'query' must be on bank's device cpu, got meta; move it with"):
        knn_classify(bank, labels, bank.to("meta"))
    with pytest.raises(
        ValueError, match=r"'query' must have leading dimensions that broadcast with bank's \(2,\), got"
    ):
        knn_classify(bank.expand(2, 3, 3), labels, bank.expand(5, 3, 3))
    with pytest.raises(ValueError, match="knn_classify: 'n_classes' must be at most 2147483647, got"):
        knn_classify(bank, labels, bank, n_classes=2**70)
    with pytest.raises(ValueError, match="knn_classify: 'labels' must be between 0 and 2147483646, got"):
        knn_classify(bank, labels + 2**50, bank)


def low_rank(n, d=128, seed=0):
    """Clusters in few directions and a little noise: codes of 8 bits tell their neighbours apart."""
    mix, members = points(6, d, 1) * 2, points(n, 6, seed)
    return members @ mix + 0.05 * points(n, d, seed + 1)


@pytest.mark.parametrize("k", [1, 20])
@pytest.mark.parametrize(
    "kind", ["plain", "far", "tiny", "tinier", "large", "spikes", "copies", "two scales", "odd d", "hub"]
)
def test_the_filter_in_8_bits_gives_the_same_bits(kind, k, monkeypatch):
    # Squares below the smallest normal number take Intel's a hundred times as long: few rows, and just enough of them.
    x = low_rank(1030, 800) if kind == "tinier" else low_rank(7000, 150 if kind == "odd d" else 128)
    if kind == "far":
        x += 1e3
    elif kind in ("tiny", "tinier", "large"):
        x *= {"tiny": 1e-14, "tinier": 1e-20, "large": 1e16}[kind]
    elif kind == "spikes":  # rows whose codes are coarse
        x[::50, 3] += 300
    elif kind == "copies":
        x[3000:6000] = x[:3000]
    elif kind == "two scales":
        x[::2] *= 1e-3
    elif kind == "hub":  # a few rows to which all others are equally far, to within less than their codes err
        x = torch.nn.functional.normalize(x, dim=1) * (8 + 1e-3 * points(7000, 1, 2))
        x[:12] = 1e-3 * points(12, 128, 3)
    query = x[::3] * 1.01  # 2,334 of them
    first, *others = ([*knn(x, k), *knn(x, k, query=query)] for _ in paths.each(monkeypatch))
    for other in others:
        assert all(map(torch.equal, first, other))


@pytest.mark.parametrize(("d", "k"), [(24, 20), (40, 1), (63, 5), (128, 200)])
def test_few_dimensions_and_long_lists_go_through_codes(d, k, monkeypatch):
    x = low_rank(850_000 // d, d)
    first, *others = (knn(x, k) for _ in paths.each(monkeypatch))
    for other in others:
        assert all(map(torch.equal, first, other))


def turned_back(y):
    """Rows that the coding turns into y (n, 64): signs and a Hadamard transform, as in csrc/cpu/codes/row_codes.h."""
    hadamard = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(6):
        hadamard = torch.cat([torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)])

    def mix(word):
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
        return word ^ (word >> 31)

    signs = torch.tensor([-1.0 if mix(j // 16 * 16) >> (j % 16) & 1 else 1.0 for j in range(64)], dtype=torch.float64)
    return (y.double() @ hadamard / 8 * signs).float()


@pytest.mark.parametrize("steps", [1, 38])
@pytest.mark.parametrize("place", [0, 500, 6000])
def test_the_filter_in_codes_allows_for_the_worst_ones(place, steps, monkeypatch):
    """Every term of the bound is needed: codes that err by all they can, in the least favourable directions.

    Row i's nearest is j, which by codes is four code errors farther away than the many rows m, `steps` away. With 38
    of them an error's share of the distance is the one that the limit is made for. Codes of 16 bits are longer, and so
    many more steps are.
    """
    generator = torch.Generator().manual_seed(place)
    largest = 127 if paths.eight_bits() else 5792  # 5792^2 * 64 < 2^31
    steps = steps if steps == 1 else steps * largest // 127
    spread, near = 120 * largest // 127, 80 * largest // 127
    background = torch.randint(-spread, spread + 1, (6400, 64), generator=generator).double()
    groups = []
    for _ in range(6):
        base = torch.randint(-near, near + 1, (64,), generator=generator).double()
        way = torch.randint(0, 2, (64,), generator=generator).double() * 2 - 1
        far = steps + torch.where(torch.arange(64) < 60, 2.0, 1.0)
        i, m, j = base - 0.49 * way, base + (steps + 0.49) * way, base - (far - 0.49) * way
        groups.append(torch.stack([i, *[m] * 60, j]))
    y = torch.cat([background[:place], *groups, background[place:]])
    y[:, 0] = largest  # one scale for all
    # Every background row has a near copy, so that codes pay; and mirrored rows, so that the mean is 0.
    y = torch.cat([y, background + torch.where(torch.arange(64) == 0, 0.0, 0.01)])
    y[-6400:, 0] = largest
    x = turned_back(torch.cat([y, -y]))
    rows = place + 62 * torch.arange(6)
    exact = (y[rows, None] - y).square().sum(-1)
    exact[torch.arange(6), rows] = torch.inf
    assert torch.equal(exact.argmin(1), rows + 61)  # j, by construction
    found = [knn(x, 1) for _ in paths.each(monkeypatch)]
    for result in found:
        assert torch.equal(result.indices[rows, 0], rows + 61)
        assert torch.equal(result.indices, found[-1].indices)
        assert torch.equal(result.values, found[-1].values)


@pytest.mark.parametrize("depth", [9001, 65_536])
def test_rows_of_many_entries(depth, monkeypatch):
    """Up to as many as codes may have. Groups far from the origin, in which neighbours are close."""
    generator = torch.Generator().manual_seed(depth)
    centres = torch.randn(20, depth, generator=generator) + 100
    x = centres[torch.arange(1030) % 20] + torch.randn(1030, depth, generator=generator) / 10
    asked = x[:64] + 0.01
    first, *others = (knn(x, 3, query=asked) for _ in paths.each(monkeypatch))
    exact = torch.cdist(asked.double(), x.double()).square()
    # Two that are nearer to each other than float32 tells apart may change places; ranks are 1e-4 apart as a rule.
    torch.testing.assert_close(exact.gather(1, first.indices), exact.sort(1).values[:, :3], rtol=1e-6, atol=0)
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


def test_the_filter_in_bfloat16_and_in_float32_give_the_same_bits():
    """Some runs are the same where an instruction is missing. By tiles, a graph's last columns are half a block."""
    code = """
import hashlib, torch, deepclust_ext
digest = hashlib.sha256()
x = torch.randn(1450, 99, generator=torch.Generator().manual_seed(0)) * torch.linspace(2, 0.1, 99) + 1
for metric in ("euclidean", "cosine", "inner"):
    for query in (None, x[:200] + 0.1):
        for k in (1, 150, 300):
            for part in deepclust_ext.knn(x, k, query=query, metric=metric):
                digest.update(part.numpy().tobytes())
print(digest.hexdigest())
"""
    digests = set()
    for environment in ({}, {"DEEPCLUST_NO_AMX": "1"}, {"DEEPCLUST_NO_BF16": "1"}):
        run = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
        )
        digests.add(run.stdout)
    assert len(digests) == 1


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's peak memory counter")
@pytest.mark.parametrize("k", [1, 200])
def test_memory_beyond_inputs_and_outputs(k):
    x = points(60_000, 16)
    knn(x[:100], 1)

    def megabytes(name):
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1024

    with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
        file.write("5")  # forgets the peak
    before = megabytes("VmRSS")
    values, indices = knn(x, k)
    outputs = (values.nbytes + indices.nbytes) / 2**20
    assert megabytes("VmHWM") - before - outputs < 200


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [1, 15, 16, 31, 48, 50, 64, 80, 96, 112, 128, 200])
def test_kmeans_assign_has_the_same_order_of_summation(d, dtype):
    """One distance: what knn finds between a row and its centroid has the bits that kmeans_assign gives it."""
    generator = torch.Generator().manual_seed(d)
    x = torch.randn(300, d, generator=generator, dtype=dtype)
    centroids = torch.randn(40, d, generator=generator, dtype=dtype)
    assigned = kmeans_assign(x, centroids)
    found = knn(centroids, 1, query=x)
    assert torch.equal(found.values[:, 0], assigned.squared_distances)
    assert torch.equal(found.indices[:, 0], assigned.labels)


@pytest.mark.parametrize("metric", ["cosine", "inner"])
@pytest.mark.parametrize("d", [32, 64, 130])
@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_similarities_through_codes_are_those_of_the_plain_filter(metric, d, spread, monkeypatch):
    """Norms that differ widely, rows far from the origin, copies and near copies: the filter must not show."""
    generator = torch.Generator().manual_seed(d)
    n = 850_000 // d  # enough that codes of 8 bits are tried
    x = 0.5 * low_rank(n, d) + 5
    x *= torch.exp(spread * torch.randn(n, 1, generator=generator))
    x[700:900] = x[:200]  # ties
    x[900:1000] = x[:100] * (1 + 1e-6)
    query = x.flip(0) + 1e-3 * torch.randn(n, d, generator=generator)
    for asked in (None, query):
        first, *others = (knn(x, 12, query=asked, metric=metric) for _ in paths.each(monkeypatch))
        for other in others:
            assert all(map(torch.equal, first, other))


def far_apart(kind):
    """Rows that one centre does not suit, or copies: enough for the searches by group and without copies."""
    x = points(2100, 40)
    rows = torch.arange(len(x))
    if kind == "bad rows":
        x[137], x[1999], x[2000] = 1e6, -1e5, -1e5
    elif kind == "two groups":
        x[::2] += 30
        x[30], x[50], x[70] = 34.25, 33.5, 32.75  # the stray is as near to row 50 as a member, and comes first
    elif kind == "three groups and strays":
        x += 25 * (rows % 3).unsqueeze(1)
        x[[5, 700, 701]] += 200
        x[9] = x[10] + 9  # far for its group, and nearer to others' rows than they are
    elif kind == "groups that meet":
        x += 9 * (rows % 2).unsqueeze(1)
        x[[20, 420]], x[[21, 421]] = 3.6 + 0.1 * points(2, 40, 5), 5.4 + 0.1 * points(2, 40, 6)  # members, face to face
    elif kind == "zero rows":
        x[::2] = 0
    elif kind == "copies":
        x = x[:70].repeat(30, 1)[points(2100, 1).flatten().argsort()]
    elif kind == "copies in groups":
        x[::3] = 50
        x[1::3] += 30
        x[7] = 1e7
    return x


KINDS = ["bad rows", "two groups", "three groups and strays", "groups that meet", "zero rows", "copies"]


def one_search(x, query, k, metric):
    """Too few queries at a time for a look at groups or copies."""
    parts = [knn(x, k, query=part, metric=metric) for part in query.split(200)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


@pytest.mark.parametrize("kind", [*KINDS, "copies in groups"])
@pytest.mark.parametrize(
    ("metric", "dtype"), [("euclidean", torch.float32), ("cosine", torch.float32), ("inner", torch.float64)]
)
def test_groups_strays_and_copies_change_nothing(kind, metric, dtype):
    """A row finds in a graph what it finds as one of few queries, less itself."""
    x = far_apart(kind).to(dtype)
    asked_values, asked = one_search(x, x, 80, metric)
    others = asked != torch.arange(len(x)).unsqueeze(1)
    for k in (1, 20) if metric == "euclidean" else (20,):
        values, indices = knn(x, k, metric=metric)
        kept = others & (others.int().cumsum(1) <= k)
        assert torch.equal(indices, asked[kept].view(-1, k))
        assert torch.equal(values, asked_values[kept].view(-1, k))


@pytest.mark.parametrize("kind", [*KINDS, "copies in groups"])
@pytest.mark.parametrize(
    ("metric", "dtype"), [("euclidean", torch.float32), ("cosine", torch.float32), ("inner", torch.float64)]
)
def test_groups_strays_and_copies_change_nothing_for_queries(kind, metric, dtype):
    """Many queries at once find what few do: rows themselves, rows nearby, rows of another kind, copies."""
    x = far_apart(kind).to(dtype)
    near = x[points(2000, 1, 3).flatten().argsort() % len(x)] + 0.3 * points(2000, 40, 4).to(dtype)
    far = points(300, 40, 5).to(dtype) * 15 + 10
    query = torch.cat([x[::2], near, far, x[:40].repeat(20, 1)])
    for k in (1, 20) if metric == "euclidean" else (20,):
        values, indices = knn(x, k, query=query, metric=metric)
        few_values, few = one_search(x, query, k, metric)
        assert torch.equal(indices, few)
        assert torch.equal(values, few_values)


def test_the_query_that_is_not_finite_among_copies():
    x = far_apart("zero rows")
    query = x.flip(0)
    query[1001, 3] = query[1777, 0] = torch.nan
    with pytest.raises(ValueError, match="knn: 'query' must be finite, got NaN or infinity in row 1001"):
        knn(x, 5, query=query)
    x[1999, 7] = torch.inf
    with pytest.raises(ValueError, match="knn: 'x' must be finite, got NaN or infinity in row 1999"):
        knn(x, 5, query=query.nan_to_num())


def test_the_row_that_is_not_finite_among_copies():
    x = far_apart("zero rows")
    x[1001, 3] = x[1777, 0] = torch.nan
    with pytest.raises(ValueError, match="knn: 'x' must be finite, got NaN or infinity in row 1001; drop"):
        knn(x, 5)


@pytest.mark.timing
@pytest.mark.parametrize("kind", ["one bad row", "two groups", "zero rows"])
@pytest.mark.parametrize("asked", ["graph", "query"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner"])
def test_rows_that_are_hard_to_tell_apart_cost_little(kind, asked, metric, threads):
    """A row of 1e6 cost a graph five times as much, groups 30 apart three and a half, and queries up to twelve."""
    plain = points(8192, 64)  # of even steps through them, all would fall into one of two groups in turns
    hard = plain.clone()
    if kind == "one bad row":
        hard[137] = 1e6
    else:
        hard[::2] = 0 if kind == "zero rows" else hard[::2] + 30
    threads(1)
    fastest = {"plain": math.inf, "hard": math.inf}
    for _ in range(20):  # on a machine with neighbours one lucky call of the plain rows is not held against the others
        for name, x in (("plain", plain), ("hard", hard)):
            start = time.thread_time()
            knn(x, 20, query=x if asked == "query" else None, metric=metric)
            fastest[name] = min(fastest[name], time.thread_time() - start)
        if fastest["hard"] < 1.8 * fastest["plain"]:
            return
    assert fastest["hard"] < 1.8 * fastest["plain"]
