"""knn's kernels on the emulator, on numpy alone so that the sanitizers can watch them: ties, chunks, strips, edges.

The same kernels against the torch reference, for every sample of the op: test_cuda_emulated.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from support.emulator import SCHEDULES, load

emu = load()
METRICS = ["euclidean", "cosine", "inner"]


@pytest.fixture(autouse=True, params=SCHEDULES, ids=lambda s: f"{s[0]}-{s[1]}")
def schedule(request):
    emu.set_schedule(*request.param)
    yield
    emu.set_schedule("forward")


def points(*shape: int, dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def exact(x: np.ndarray, query: np.ndarray | None, metric: str) -> np.ndarray:
    """Values [batch, q, n] in float64; NaN where a point would be its own neighbour."""
    asked = (x if query is None else query).astype(np.float64)
    x = x.astype(np.float64)
    if metric == "cosine":
        x, asked = (t / np.maximum(np.linalg.norm(t, axis=-1, keepdims=True), 1e-300) for t in (x, asked))
    squared = metric == "euclidean"
    table = np.square(asked[:, :, None] - x[:, None]).sum(-1) if squared else asked @ x.swapaxes(-1, -2)
    if query is None:
        for values in table:
            np.fill_diagonal(values, np.nan)
    return table


def best(table: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The k best by value, then index; NaN is no candidate."""
    order = np.where(np.isnan(table), np.inf, table if metric == "euclidean" else -table)
    indices = np.argsort(order, axis=-1, kind="stable")[..., :k]
    return np.take_along_axis(table, indices, -1), indices


def check(x: np.ndarray, query: np.ndarray | None, k: int, metric: str, strip_bytes: int = 0) -> None:
    """The values are right up to rounding, belong to their indices, and are in order; no index comes twice."""
    values, indices = emu.knn(x, query, k, metric, strip_bytes)
    table = exact(x, query, metric)
    want, _ = best(table, k, metric)
    tolerance = (1e-13 if x.dtype == np.float64 else 1e-6) * max(1.0, np.nanmax(np.abs(table)))
    np.testing.assert_allclose(values, want, rtol=0, atol=tolerance)
    np.testing.assert_allclose(values, np.take_along_axis(table, indices, -1), rtol=0, atol=tolerance)
    steps = np.diff(values if metric == "euclidean" else -values, axis=-1)
    assert (steps >= 0).all()
    assert (np.diff(indices, axis=-1)[steps == 0] > 0).all()
    assert (np.diff(np.sort(indices, axis=-1), axis=-1) > 0).all()


# A warp a row, and the last block not full; all warps of a block for one, with a list more or less than they share out
# evenly; the last chunk shorter than k.
@pytest.mark.parametrize(
    ("batch", "n", "queries", "k"),
    [(2, 1100, 5, 3), (1, 1026, 9, 64), (2, 4610, 2, 32), (1, 6000, 1, 1), (1, 5200, 3, 64)],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
def test_lists_of_chunks_are_merged_in_the_total_order(batch, n, queries, k, dtype):
    """Whole numbers, so that the same value comes in every chunk and the index decides."""
    generator = np.random.default_rng(n)
    x = generator.integers(-40, 40, (batch, n, 1)).astype(dtype)
    query = generator.integers(-40, 40, (batch, queries, 1)).astype(dtype)
    k = min(k, 32) if dtype == np.float64 else k
    values, indices = emu.knn(x, query, k, "euclidean")
    want_values, want_indices = best(exact(x, query, "euclidean"), k, "euclidean")
    assert np.array_equal(indices, want_indices)
    assert np.array_equal(values, want_values)


# (batch, n, q or None, d, k), each around a bound: one tile and one more row; the lists' longest k and one more, in
# float32 and float64; two chunks of candidates with less than k in the last; slabs of 16; vectors of four; all points.
SIZES = [
    (2, 65, None, 3, 7),
    (1, 66, None, 17, 64),
    (1, 66, 3, 4, 65),
    (1, 40, 3, 1, 32),
    (1, 40, 3, 1, 33),
    (2, 520, 5, 2, 33),
    (1, 3, None, 5, 2),
    (3, 1, 2, 16, 1),
    (1, 130, 2, 2, 130),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_matches_the_definition(size, dtype):
    batch, n, queries, d, k = size
    metric = METRICS[n % 3]
    query = None if queries is None else points(batch, queries, d, dtype=dtype, seed=1)
    check(points(batch, n, d, dtype=dtype), query, k, metric)


@pytest.mark.parametrize("k", [3, 70])
def test_half_types_are_read_exactly(k):
    x = points(1, 80, 3, dtype=np.float16)
    wide = x.astype(np.float32)
    for got, want in zip(emu.knn(x, x[:, :2], k, "inner"), emu.knn(wide, wide[:, :2], k, "inner"), strict=True):
        assert np.array_equal(got, want)
    bits = wide.view(np.uint32) >> 16  # bfloat16's
    x, wide = bits.astype(np.uint16), (bits << 16).view(np.float32)
    for got, want in zip(emu.knn(x, x[:, :2], k, "inner"), emu.knn(wide, wide[:, :2], k, "inner"), strict=True):
        assert np.array_equal(got, want)


@pytest.mark.parametrize("metric", METRICS)
def test_ties_go_to_the_lowest_index_in_lists_chunks_and_strips(metric):
    """Small whole numbers: every value is exact, most of them tie, and there is one right answer."""
    grid = np.random.default_rng(0).integers(-1, 2, (1, 530, 2)).astype(np.float32)
    query = grid[:, :3].copy()
    if metric == "cosine":  # only then is the length of a row 1, or the row zero
        grid[np.abs(grid).sum(-1) == 2] = [[0, 1]]
        query[:] = [[0, 1], [0, 0], [-1, 0]]
    for k in (1, 9, 64, 65, 300, 530):
        values, indices = emu.knn(grid, query, k, metric)
        want_values, want_indices = best(exact(grid, query, metric), k, metric)
        assert np.array_equal(values, want_values)
        assert np.array_equal(indices, want_indices)
        assert not np.signbit(values[values == 0]).any()


@pytest.mark.parametrize("k", [5, 69])
def test_copies_are_found_in_order_and_a_point_is_never_its_own_neighbour(k):
    values, indices = emu.knn(np.full((1, 70, 3), 0.7, np.float32), None, k, "euclidean")
    i = np.arange(70)[:, None]
    want = np.arange(k)[None] + (np.arange(k)[None] >= i)
    assert np.array_equal(indices[0], want)
    assert not values.any()


@pytest.mark.parametrize("metric", METRICS)
def test_a_value_has_the_same_bits_whichever_way_it_is_found(metric):
    """In a list and in a strip, from a graph and from a query, as (i, j) and as (j, i)."""
    x = points(1, 67, 21)
    values, indices = emu.knn(x, None, 66, metric)
    table = np.zeros((67, 67), np.float32)
    np.put_along_axis(table, indices[0], values[0], 1)
    assert np.array_equal(table, table.T)
    for k in (2, 40):
        near_values, near_indices = emu.knn(x, None, k, metric)
        assert np.array_equal(near_values, values[..., :k])
        assert np.array_equal(near_indices, indices[..., :k])
    asked = emu.knn(x, x[:, 5:8].copy(), 67, metric)
    for row, (own_values, own_indices) in enumerate(zip(asked[0][0], asked[1][0], strict=True), 5):
        others = own_indices != row
        assert np.array_equal(own_values[others], values[0, row])
        assert np.array_equal(own_indices[others], indices[0, row])


@pytest.mark.parametrize("strip_bytes", [1, 3000, 90_000], ids=str)
def test_strips_of_any_size_give_the_same(strip_bytes):
    """One row at a time, a few, and a tile at a time; the last strip is not full, and items meet in one."""
    x, query = points(3, 70, 3), points(3, 5, 3, seed=1)
    whole = emu.knn(x, query, 66, "euclidean")
    pieces = emu.knn(x, query, 66, "euclidean", strip_bytes)
    assert all(np.array_equal(a, b) for a, b in zip(whole, pieces, strict=True))


@pytest.mark.parametrize("k", [1025, 2500])
def test_runs_of_neighbours_are_merged(k):
    check(points(1, 2500, 1), points(1, 1, 1, seed=1), k, "euclidean")


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize("k", [2, 66])
def test_cosine_of_huge_tiny_and_zero_rows(k, dtype):
    info = np.finfo(dtype)
    x = points(1, 70, 4, dtype=dtype)
    scaled = x.copy()
    scaled[:, ::3] *= info.max / 16
    scaled[:, 1::3] *= info.tiny * 16
    x[:, 7] = scaled[:, 7] = 0
    values, _ = emu.knn(x, x[:, :8].copy(), k, "cosine")
    scaled_values, _ = emu.knn(scaled, scaled[:, :8].copy(), k, "cosine")
    np.testing.assert_allclose(scaled_values, values, rtol=0, atol=8 * info.eps)
    assert not values[0, 7].any()


@pytest.mark.parametrize("k", [3, 70])
def test_what_overflows_comes_last(k):
    """Infinite squared distances, and products that are the difference of two infinities."""
    x = np.zeros((1, 70, 17), np.float32)
    x[0, 0], x[0, 1] = 1, -1
    x[0, 5, [0, 16]] = x[0, 7, [0, 16]] = [3e38, -3e38]  # far apart: in one chain the sum would stay infinite
    query = np.zeros((1, 1, 17), np.float32)
    query[0, 0, [0, 16]] = 3e38
    values, indices = emu.knn(x, query, k, "euclidean")
    assert np.isinf(values).all()
    assert np.array_equal(indices[0, 0], np.arange(k))
    values, indices = emu.knn(x, query, k, "inner")
    assert indices[0, 0, :3].tolist() == [0, 2, 3]
    if k == 70:
        assert values[0, 0, -3:].tolist() == [-np.inf] * 3
        assert indices[0, 0, -3:].tolist() == [1, 5, 7]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_row_that_is_not_finite_is_named(bad):
    x, query = points(2, 70, 33), points(2, 5, 33, seed=1)
    query[1, 2, 32] = x[0, 69, 0] = x[1, 3, 5] = bad
    with pytest.raises(RuntimeError, match="knn: 'x' must be finite, got NaN or infinity in row 69"):
        emu.knn(x, query, 3, "euclidean")
    x[0] = 0
    with pytest.raises(RuntimeError, match="knn: 'query' must be finite, got NaN or infinity in row 2"):
        emu.knn(x, query, 70, "cosine")
    with pytest.raises(RuntimeError, match="knn: 'x' must be finite, got NaN or infinity in row 3"):
        emu.knn(x.astype(np.float16), None, 3, "inner")


def test_nothing_to_ask():
    assert emu.knn(points(0, 5, 3), None, 3, "inner")[0].shape == (0, 5, 3)
    assert emu.knn(points(2, 5, 3), points(2, 0, 3), 4, "inner")[1].shape == (2, 0, 4)


def filtered(x, query, k, metric, first_tiles=1, entry_bytes=1 << 20) -> int:
    """The filter's result must have the plain kernels' bits; how many rows it left to these."""
    *found, again = emu.knn(x, query, k, metric, 0, (first_tiles, entry_bytes))
    plain = emu.knn(x, query, k, metric)
    assert all(np.array_equal(a, b) for a, b in zip(found, plain, strict=True))
    return again


# (batch, n, q or None, d, k, tiles of the first stage): two slabs with a remainder; a graph of three row tiles; rows
# that are no whole vectors; k beyond the lists; two items.
FILTERED = [
    (1, 520, 3, 40, 5, 1),
    (1, 260, None, 21, 4, 1),
    (1, 400, 2, 16, 70, 2),
    (2, 270, 1, 33, 3, 1),
]


# A graph has all pairs of its rows: by one metric, for the others differ in what is done with a product.
@pytest.mark.parametrize(
    ("size", "metric"),
    [(size, metric) for size in FILTERED for metric in METRICS if size[2] is not None or metric == "euclidean"],
    ids=str,
)
def test_the_filter_leaves_the_bits_as_they_are(size, metric):
    batch, n, queries, d, k, first = size
    query = None if queries is None else points(batch, queries, d, seed=1)
    assert filtered(points(batch, n, d), query, k, metric, first) == 0


def test_little_memory_gives_the_same():
    """Then a block walks over many tiles, and a graph has a strip for every tile of rows."""
    for metric in ("euclidean", "inner"):  # one kernel for both products
        assert filtered(points(1, 600, 40), points(1, 3, 40, seed=1), 5, metric, entry_bytes=1) == 0
    assert filtered(points(1, 260, 17), None, 3, "inner", entry_bytes=1) == 0


def test_rows_for_which_the_filter_has_no_room_are_searched_without_it():
    """Copies tie, so no bound tells them apart, and there are more than places; a point is never its own neighbour."""
    x = points(1, 384, 16)
    x[0, 100:] = x[0, 100]
    assert filtered(x, None, 3, "euclidean") == 284
    filtered(x, x[:, 99:101].copy(), 3, "inner")


@pytest.mark.parametrize("metric", ["euclidean", "inner"])
@pytest.mark.parametrize("kind", ["far", "outlier", "huge", "tiny", "halves"])
def test_the_filter_is_right_on_the_worst_data(kind, metric):
    """Far from the origin; beside rows 10^6 and 10^20 long; where squares underflow; on ties of the rounding."""
    x = points(1, 400, 16)
    if kind == "far":
        x = x / 16 + 1000
    elif kind == "outlier":
        x[0, 37] = 1e6
    elif kind == "huge":
        x[0, [5, 301]] *= 1e20
    elif kind == "tiny":
        x *= np.float32(1e-21)
    else:
        x = 1 + np.random.default_rng(0).integers(0, 9, x.shape).astype(np.float32) / 1024
    filtered(x, x[:, :3] + (0 if kind == "halves" else x[:, 1:4]), 5, metric)


def cut_rows(depth: int = 256) -> dict[str, np.ndarray]:
    """Rows on which a tensor core loses all products but the first: bfloat16 numbers, so codes know them exactly."""
    first = np.eye(1, depth, dtype=np.float32)[0]
    small = np.full(depth, 180 / 128 * 2.0**-12, np.float32)  # its square lies just below 2^-23
    small[0] = 0
    second = np.eye(2, depth, dtype=np.float32)[1]
    return {
        "row": first + small,
        "opposite": first - small,  # seems to lie at half of its squared distance
        "bare": first,  # at half of what a copy of the row seems to lie at
        "aside": first + 2.0**-7 * second,
        "longer": first + 179 / 128 * 2.0**-5 * second,  # a product between a copy's own and what it seems
    }


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("metric", "seeming", "nearest"),
    [("euclidean", "bare", "row"), ("euclidean", "opposite", "aside"), ("inner", "longer", "row")],
)
def test_the_bounds_leave_room_for_what_tensor_cores_cut_off(metric, seeming, nearest, late):
    """The nearest row seems to be the second: in one stage with the first, or in a later one."""
    n, rows = 512, cut_rows()
    stride = int(n * 0.6180339887498949)
    while np.gcd(stride, n) != 1:
        stride += 1
    x = np.zeros((n, 256), np.float32)
    places = np.arange(n) * stride % n  # in the order of the stages; the first takes 128
    filler = np.zeros((n // 2, 256), np.float32)
    filler[np.arange(n // 2), np.arange(n // 2) % 255 + 1] = 8
    x[places[0::2]], x[places[1::2]] = filler, -filler  # their mean is 0
    if metric == "inner":
        x = -np.abs(x)
    for place, name in ((10, seeming), (400 if late else 20, nearest)):
        x[places[place]], x[places[place + 1]] = rows[name], -rows[name]
    assert filtered(x[None], rows["row"][None, None], 1, metric) == 0
    assert emu.knn(x[None], rows["row"][None, None], 1, metric)[1] == places[400 if late else 20]


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize(("n", "k", "strip_bytes"), [(6200, 70, 0), (4500, 300, 60_000), (9001, 65, 1)])
def test_several_blocks_select_from_one_row(n, k, strip_bytes, dtype):
    """Whole numbers, with copies of the k-th in every part; a last part that is shorter; strips of 64, 1 and 3 rows.

    The last row is its own nearest neighbour, and the only one.
    """
    x = np.random.default_rng(n).integers(-30, 30, (1, n, 1)).astype(dtype)
    x[:, -1] = 31
    query = np.concatenate([x[:, 5:7], x[:, -1:]], 1)
    values, indices = emu.knn(x, query, k, "euclidean", strip_bytes)
    want_values, want_indices = best(exact(x, query, "euclidean"), k, "euclidean")
    assert np.array_equal(indices, want_indices)
    assert np.array_equal(values, want_values)
