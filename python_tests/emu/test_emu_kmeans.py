"""The k-means kernels on the emulator, on numpy alone so that the sanitizers can watch them.

The same kernels against the torch reference, for every sample of the ops: test_cuda_emulated_search.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from support.emulator import SCHEDULES, load

emu = load()
SPLIT, FARTHEST, KEEP = range(3)


@pytest.fixture(autouse=True, params=SCHEDULES, ids=lambda s: f"{s[0]}-{s[1]}")
def schedule(request):
    emu.set_schedule(*request.param)
    yield
    emu.set_schedule("forward")


def points(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) + 3).astype(dtype)


def accumulated(x: np.ndarray) -> np.ndarray:
    return x if x.dtype == np.float64 else x.astype(np.float32)


def squared(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """All distances, in float64."""
    return np.square(x.astype(np.float64)[..., :, None, :] - centroids.astype(np.float64)[..., None, :, :]).sum(-1)


# (batch, n, d, K): odd sizes, each around a bound: one and two tiles of points and of centroids, narrow and wide; one
# slab of depth, two and a part; rows on vectors and not.
SIZES = [
    (1, 1, 1, 1),
    (2, 65, 16, 17),
    (1, 257, 20, 16),
    (2, 63, 33, 49),
    (1, 67, 4, 65),
    (1, 5, 130, 3),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16], ids=lambda d: d.__name__)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_assign(size, dtype):
    batch, n, d, clusters = size
    x, centroids = points(batch, n, d, dtype=dtype), accumulated(points(batch, clusters, d, dtype=dtype))
    labels, distances, bad_row, bad_centroid = emu.kmeans_assign(x, centroids)
    assert (bad_row, bad_centroid) == (-1, -1)
    every = squared(x, centroids)
    tolerance = 1e-13 if dtype == np.float64 else 1e-6
    np.testing.assert_allclose(distances, every.min(-1), rtol=tolerance)
    np.testing.assert_allclose(np.take_along_axis(every, labels[..., None], -1)[..., 0], every.min(-1), rtol=tolerance)


def test_a_distance_depends_on_its_pair_alone():
    """Through either tile, in any place of it, with and without vectors: the same bits."""
    x, centroids = points(1, 70, 20), points(1, 66, 20)
    wide = emu.kmeans_assign(x, centroids)
    alone = np.stack([emu.kmeans_assign(x[:, ::-1], centroids[:, k : k + 1])[1][0, ::-1] for k in range(66)], -1)
    assert np.array_equal(wide[1][0], alone.min(-1))
    assert np.array_equal(wide[0][0], alone.argmin(-1))


def test_ties_go_to_the_lowest_centroid_and_copies_are_at_0():
    x = points(1, 60, 7) + 1000
    centroids = np.concatenate([x, x, x[:, ::-1]], 1)  # each in several tiles, threads and columns
    labels, distances, _, _ = emu.kmeans_assign(x, centroids)
    assert np.array_equal(labels[0], np.arange(60))
    assert not distances.any()
    few = np.concatenate([x[:, :5] + 9, x[:, :3], x[:, :3]], 1)
    assert np.array_equal(emu.kmeans_assign(x[:, :3], few)[0][0], [5, 6, 7])


def test_the_first_row_that_is_not_finite_is_found():
    x, centroids = points(2, 70, 5), points(2, 3, 5)
    x[1, 3, 4] = np.inf
    x[1, 66, 0] = np.nan
    assert emu.kmeans_assign(x, centroids)[2:] == (73, -1)
    centroids[0, 2, 1] = np.nan
    assert emu.kmeans_assign(points(2, 70, 5), centroids)[2:] == (-1, 2)
    assert emu.kmeans(x, points(2, 3, 5), 3, 0, 1, 0.0, SPLIT, False) == (None, 73, -1)
    assert emu.kmeans(points(2, 70, 5), centroids, 3, 0, 1, 0.0, SPLIT, False) == (None, -1, 2)
    far = np.float32([[[-1e25], [1e25]]])  # finite, but not its square
    labels, distances, *bad = emu.kmeans_assign(far, np.float32([[[0.0]]]))
    assert bad == [-1, -1]
    assert np.array_equal(labels, [[0, 0]])
    assert np.isinf(distances).all()


def lloyd(x: np.ndarray, centroids: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Centroids, labels and objectives in float64, for data without an empty cluster."""
    x, centroids = x.astype(np.float64), centroids.astype(np.float64)
    objectives = []
    for _ in range(iterations):
        every = squared(x, centroids)
        labels = every.argmin(-1)
        objectives.append(every.min(-1).sum())
        centroids = np.stack([x[labels == k].mean(0) for k in range(len(centroids))])
    return centroids, squared(x, centroids).argmin(-1), objectives


# (n, d, K): several runs of events and one; columns in one slice, in two, and several runs to a block.
@pytest.mark.parametrize("size", [(150, 3, 4), (90, 300, 2), (300, 1, 5), (70, 20, 1)], ids=str)
def test_kmeans_is_lloyds_algorithm(size):
    n, d, clusters = size
    x = points(n, d) + 4 * (np.arange(n) % clusters)[:, None].astype(np.float32)
    (centroids, labels, inertia, n_iter, history, empties), *_ = emu.kmeans(
        x[None], x[None, :clusters], clusters, 0, 3, 0.0, SPLIT, False
    )
    want, want_labels, objectives = lloyd(x, x[:clusters], int(n_iter[0]))
    np.testing.assert_allclose(centroids[0], want, rtol=1e-6)
    assert np.array_equal(labels[0], want_labels)
    np.testing.assert_allclose(inertia[0], squared(x, want).min(-1).sum(), rtol=1e-5)
    np.testing.assert_allclose(history[0, : len(objectives), 0], objectives, rtol=1e-6)
    assert history[0, 0, 1] == 1
    if len(objectives) > 1:
        once = lloyd(x, x[:clusters], 1)[1]
        assert history[0, 1, 1] == (once != squared(x, x[:clusters]).argmin(-1)).mean()
    counts = np.bincount(squared(x, x[:clusters]).argmin(-1), minlength=clusters)
    assert history[0, 0, 2] == pytest.approx(clusters * np.square(counts / n).sum())
    assert not empties.any()


def test_sums_of_integers_are_exact_and_a_settled_matrix_waits_for_the_others():
    """Two matrices: one is settled from the start, and repeats its record while the other goes on."""
    rest = np.float32([0, 1, 2, 10, 30, 31]).reshape(6, 1)
    equal = np.full((6, 1), 7, np.float32)
    start = np.float32([[[0], [1]], [[7], [7]]])
    (centroids, labels, inertia, n_iter, history, empties), *_ = emu.kmeans(
        np.stack([rest, equal]), start, 2, 0, 7, 0.0, SPLIT, False
    )
    assert np.array_equal(centroids[0], [[3.25], [30.5]])
    assert np.array_equal(labels, [[0, 0, 0, 0, 1, 1], [0] * 6])
    assert inertia.tolist() == [63.25, 0]
    assert n_iter.tolist() == [4, 1]
    assert history[1].tolist() == [[0, 1, 2], *[[0, 0, 2]] * 6]
    assert empties.tolist() == [[0] * 7, [1] * 7]


def test_centroids_that_start_on_their_only_members_stay():
    """To the bit: the integers' own rounding is no step."""
    x = points(1, 40, 3, dtype=np.float64)
    (centroids, labels, inertia, n_iter, *_), *_ = emu.kmeans(x, x, 40, 0, 5, 0.0, SPLIT, False)
    assert np.array_equal(centroids, x)
    assert np.array_equal(labels[0], np.arange(40))
    assert (inertia[0], n_iter[0]) == (0, 1)


@pytest.mark.parametrize(
    ("rule", "want"), [(SPLIT, [[0], [55], [1]]), (FARTHEST, [[1 / 3], [50], [60]]), (KEEP, [[1 / 3], [55], [-1000]])]
)
def test_empty_clusters(rule, want):
    """Of 0, 0, 1 and 50, 60 the largest cluster's farthest is 1, and the farthest of all 60."""
    x, start = np.float32([[[0], [0], [1], [50], [60]]]), np.float32([[[0], [50], [-1000]]])
    (centroids, _, _, _, _, empties), *_ = emu.kmeans(x, start, 3, 0, 1, 0.0, rule, False)
    np.testing.assert_allclose(centroids[0], want, rtol=1e-6)
    assert empties.tolist() == [[1]]


@pytest.mark.parametrize("rule", [SPLIT, FARTHEST])
def test_the_only_member_of_a_cluster_is_not_taken(rule):
    x, start = np.float32([[[0], [1], [1], [50]]]), np.float32([[[0], [40], [1000]]])
    (centroids, *_), *_ = emu.kmeans(x, start, 3, 0, 1, 0.0, rule, False)
    assert np.array_equal(centroids[0], [[0.5], [50], [1]])


@pytest.mark.parametrize("rule", [SPLIT, FARTHEST])
def test_empty_clusters_are_seeded_in_order_as_long_as_there_are_points(rule):
    x, start = np.float32([[[0], [1], [3], [7]]]), np.float32([[[0], [100], [200], [300]]])
    (centroids, *_), *_ = emu.kmeans(x, start, 4, 0, 1, 0.0, rule, False)
    assert np.array_equal(centroids[0], [[0], [7], [3], [1]])
    start[0, 0] = 2
    (centroids, *_), *_ = emu.kmeans(np.float32([[[2], [2], [5]]]), start[:, :3], 3, 0, 1, 0.0, rule, False)
    assert np.array_equal(centroids[0], [[2], [5], [200]])  # what is left lies on its centroid


def test_more_clusters_than_a_scan_is_wide():
    x = np.random.default_rng(0).permutation(300).astype(np.float64).reshape(1, 300, 1)
    (centroids, labels, *_), *_ = emu.kmeans(x, np.arange(270.0).reshape(1, 270, 1), 270, 0, 1, 0.0, KEEP, False)
    assert np.array_equal(centroids[0, :269, 0], np.arange(269))
    assert centroids[0, 269, 0] == np.arange(269, 300).mean()
    moved = np.append(np.arange(269.0), centroids[0, 269, 0])
    assert np.array_equal(labels[0], np.abs(x[0] - moved).argmin(-1))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("clusters", [3, 1030])
def test_points_in_several_blocks_are_counted_and_placed_once(clusters, weighted):
    """Two matrices of three blocks each; more clusters than a block counts by itself; integers, so sums are exact."""
    generator = np.random.default_rng(clusters)
    x = generator.integers(-900, 900, (2, 4500, 1)).astype(np.float64)
    start = np.stack([generator.permutation(np.unique(each))[:clusters, None] for each in x])
    clusters = start.shape[1]
    weights = generator.integers(0, 5, x.shape[:2]) / 4 if weighted else None
    iterations = 3 if clusters == 3 else 1
    (centroids, _, _, _, history, _), *_ = emu.kmeans(
        x, start, clusters, 0, iterations, 0.0, KEEP, False, weights=weights
    )
    each = np.ones(x.shape[:2]) if weights is None else weights
    for item in range(2):
        want, before = start[item].copy(), np.full(4500, -1)
        for iteration in range(iterations):
            labels = squared(x[item], want).argmin(-1)
            assert history[item, iteration, 1] == (labels != before).mean()
            sums = np.bincount(labels, each[item] * x[item, :, 0], clusters)
            totals = np.bincount(labels, each[item], clusters)
            assert history[item, iteration, 2] == pytest.approx(clusters * np.square(totals / totals.sum()).sum())
            want[totals > 0, 0] = (sums / np.where(totals > 0, totals, 1))[totals > 0]
            before = labels
        np.testing.assert_allclose(centroids[item], want, rtol=1e-13, atol=1e-10)  # of integers of 2^-51


def test_the_sphere():
    x = points(1, 40, 6) - 3
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    (centroids, *_), *_ = emu.kmeans(x, x[:, :3], 3, 0, 4, 0.0, SPLIT, True)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=-1), 1, rtol=1e-6)
    opposite = np.float32([[[1, 0], [-1, 0]]])
    assert np.array_equal(emu.kmeans(opposite, opposite[:, :1], 1, 0, 2, 0.0, SPLIT, True)[0][0], opposite[:, :1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16], ids=lambda d: d.__name__)
def test_plusplus_draws_points_far_from_one_another(dtype):
    """Nine clusters over two blocks of weights: nine seeds, and the tenth by rejection of bounds that are stale."""
    centres = np.arange(9)[:, None] * [100, -50]
    x = (centres[np.arange(1100) % 9] + 0.1 * np.random.default_rng(0).standard_normal((1100, 2)))[None].astype(dtype)
    seeds, rows, more = emu.kmeans_plusplus(x, 12, 5)
    assert sorted(seeds[0, :9] % 9) == list(range(9))
    assert len(set(seeds[0].tolist())) == 12
    assert np.array_equal(rows[0], accumulated(x)[0, seeds[0]])
    assert more >= 1  # 32 rejections have asked for a pass


def test_plusplus_of_points_that_coincide():
    x = np.repeat(np.float32([[[1], [2]]]), 10, axis=1)
    for seed in range(3):
        seeds, _, _ = emu.kmeans_plusplus(x, 20, seed)
        assert sorted(seeds[0]) == list(range(20))
        assert len(np.unique(x[0, seeds[0, :2]])) == 2
    assert emu.kmeans_plusplus(x[:, :1], 1, 0)[0].tolist() == [[0]]


def test_nothing():
    none = np.zeros((0, 5, 3), np.float32)
    assert emu.kmeans_assign(none, none)[0].shape == (0, 5)
    assert emu.kmeans_assign(np.zeros((2, 0, 3), np.float32), points(2, 4, 3))[1].shape == (2, 0)
    assert emu.kmeans(none, none, 5, 0, 3, 0.0, SPLIT, False)[0][0].shape == (0, 5, 3)
    assert emu.kmeans(none, None, 5, 0, 3, 0.0, SPLIT, False)[0][1].shape == (0, 5)
    (centroids, labels, *_), *_ = emu.kmeans(points(1, 9, 3), points(1, 9, 3)[:, :2], 2, 0, 0, 0.0, SPLIT, False)
    assert np.array_equal(centroids, points(1, 9, 3)[:, :2])
    assert labels[0, :2].tolist() == [0, 1]


def filtered(x: np.ndarray, centroids: np.ndarray, strip_rows: int = 128) -> int:
    """The filter must leave the plain search's bits; how many tiles of points it left to that."""
    *found, again = emu.kmeans_assign(x, centroids, strip_rows)
    plain = emu.kmeans_assign(x, centroids)
    assert found[2:] == list(plain[2:])
    if found[2:] == [-1, -1]:
        assert all(np.array_equal(a, b) for a, b in zip(found[:2], plain[:2], strict=True))
    return again


# (batch, n, d, K): two strips; slabs with a remainder; two tiles of centroids and a part.
@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=lambda d: d.__name__)
@pytest.mark.parametrize("size", [(2, 150, 17, 70), (1, 100, 40, 260)], ids=str)
def test_the_filter_leaves_the_bits_as_they_are(size, dtype):
    batch, n, d, clusters = size
    assert filtered(points(batch, n, d, dtype=dtype), accumulated(points(batch, clusters, d, dtype=dtype))) == 0


def test_points_with_too_many_near_centroids_are_searched_without_the_filter():
    x, centroids = points(1, 200, 16), points(1, 64, 16)
    centroids[0, 20:] = x[0, 70]  # more copies than places, nearest for the second tile's points
    x[0, 64:128] = x[0, 70]
    again = filtered(x, centroids)
    assert 1 <= again < 4
    assert (emu.kmeans_assign(x, centroids, 128)[0][0, 64:128] == 20).all()


@pytest.mark.parametrize("kind", ["far", "outlier", "huge", "tiny", "halves", "nan", "far centroid"])
def test_the_filter_is_right_on_the_worst_data(kind):
    x, centroids = points(1, 130, 16), points(1, 64, 16)
    if kind == "far":
        x, centroids = x / 16 + 1000, centroids / 16 + 1000
    elif kind == "outlier":
        x[0, 37] = 1e6
    elif kind == "huge":
        x[0, [5, 101]] *= 1e20
    elif kind == "tiny":
        x, centroids = x * np.float32(1e-21), centroids * np.float32(1e-21)
    elif kind == "halves":
        x, centroids = (np.round(t * 9) / 1024 + 1 for t in (x, centroids))
    elif kind == "nan":
        x[0, 99, 3] = np.nan
    else:
        centroids[0, :5] *= 1e30
    filtered(x, centroids)


def test_kmeans_by_the_filter_is_the_same_and_leaves_settled_matrices_alone():
    x = np.stack([points(150, 16), np.repeat(points(75, 16), 2, 0)])  # the second settles at once
    start = x[:, ::2][:, :66].copy()
    plain, *_ = emu.kmeans(x, start, 66, 0, 4, 0.0, KEEP, False)
    found, *_ = emu.kmeans(x, start, 66, 0, 4, 0.0, KEEP, False, filtered=True)
    assert all(np.array_equal(a, b) for a, b in zip(found, plain, strict=True))


@pytest.mark.parametrize("other", ["bare", "opposite"])
def test_the_filter_leaves_room_for_what_tensor_cores_cut_off(other):
    """Products of all columns but the first are lost: of two centroids the farther one seems the nearer."""
    first, small = np.eye(1, 256, dtype=np.float32)[0], np.full(256, 180 / 128 * 2.0**-12, np.float32)
    small[0] = 0
    row = first + small
    aside = first.copy()
    aside[1] = 2.0**-7
    near, far = (row, first) if other == "bare" else (aside, first - small)
    x = np.stack([row, -row])[np.arange(128) % 2][None]  # their mean is 0
    centroids = np.eye(66, 256, 3, dtype=np.float32)[None] * 8
    centroids[0, 3], centroids[0, 40], centroids[0, 4], centroids[0, 41] = far, near, -far, -near
    assert filtered(x, centroids) == 0
    assert emu.kmeans_assign(x, centroids, 128)[0][0].tolist() == [40, 41] * 64
