"""ordered_product: a float64 product, edges of its tiles, any strides, the same bits for any number of threads."""

from __future__ import annotations

import pytest
import torch

from deepclust_ext.ops.ordered_product import on_one_thread, ordered_product

# Around the tiles: 8 rows, vectors of 8 and 16, panels of 24 and 48, tasks of 32 rows and 8 panels, pieces of 128.
SHAPES = [
    (1, 1, 1), (0, 3, 4), (5, 0, 4), (5, 3, 0), (127, 7, 23), (128, 8, 24), (129, 9, 25), (257, 33, 49),
    (40, 31, 191), (40, 32, 192), (40, 65, 193), (300, 70, 385), (1000, 84, 84),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("k", "m", "n"), SHAPES)
def test_matches_a_product_in_float64(k, m, n, dtype, generator):
    a, b = (torch.randn(k, width, generator=generator, dtype=dtype) for width in (m, n))
    found = ordered_product(a, b)
    assert found.shape == (m, n)
    assert found.dtype == dtype
    bound = 2 * (k + 1) * torch.finfo(dtype).eps * (a.double().abs().T @ b.double().abs())
    assert ((found.double() - a.double().T @ b.double()).abs() <= bound).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_strides_change_no_bit(dtype, generator):
    a, b = (
        torch.randn(150, 70, generator=generator, dtype=dtype),
        torch.randn(150, 90, generator=generator, dtype=dtype),
    )
    expected = ordered_product(a, b)
    wide = torch.full((300, 181), torch.nan, dtype=dtype)
    wide[::2, 1::2] = b
    assert torch.equal(ordered_product(a.T.contiguous().T, b.T.contiguous().T), expected)
    assert torch.equal(ordered_product(a, wide[::2, 1::2]), expected)
    once = torch.randn(150, 1, generator=generator, dtype=dtype)
    assert torch.equal(ordered_product(a, once.expand(150, 5)), ordered_product(a, once).expand(-1, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_threads_change_no_bit(dtype, generator):
    before = torch.get_num_threads()
    a, b = (
        torch.randn(700, 65, generator=generator, dtype=dtype),
        torch.randn(700, 400, generator=generator, dtype=dtype),
    )
    found = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            found.append(ordered_product(a, b))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found)


def test_vmap_and_compile(generator):
    a, b = torch.randn(3, 20, 4, generator=generator), torch.randn(20, 5, generator=generator)
    torch.testing.assert_close(torch.vmap(ordered_product, in_dims=(0, None))(a, b), a.mT @ b)
    compiled = torch.compile(ordered_product, fullgraph=True, backend="eager")
    assert torch.equal(compiled(a[0], b), ordered_product(a[0], b))


@pytest.mark.parametrize(
    ("a", "b", "argument"),
    [
        (torch.ones(2, 3, dtype=torch.float16), torch.ones(2, 3, dtype=torch.float16), "'a'"),
        (torch.ones(2), torch.ones(2, 3), "'a'"),
        (torch.ones(2, 3), torch.ones(2, 3).double(), "'b'"),
        (torch.ones(2, 3), torch.ones(3, 3), "'b'"),
    ],
)
def test_what_it_cannot_multiply_is_refused(a, b, argument):
    with pytest.raises(RuntimeError, match=argument):
        ordered_product(a, b)


def test_one_thread_is_given_back_even_after_an_error():
    before = torch.get_num_threads()

    def fail():
        assert torch.get_num_threads() == 1
        raise KeyError

    with pytest.raises(KeyError):
        on_one_thread(fail)
    assert torch.get_num_threads() == before
