"""all_finite: sums say whether a tensor has NaN or infinity, and an overflow of sums does not pass for one."""

import math

import pytest
import torch

from deepclust_ext.ops._common import all_finite

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [[math.nan], [math.inf], [-math.inf], [math.inf, -math.inf]])
def test_finds_what_is_not_finite_at_either_end(dtype, bad):
    x = torch.ones(37, 5, dtype=dtype)
    assert all_finite(x)
    x.view(-1)[: len(bad)] = torch.tensor(bad, dtype=dtype)
    assert not all_finite(x)
    assert not all_finite(x.flip(0, 1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_numbers_are_finite(dtype):
    x = torch.full((9, 9), torch.finfo(dtype).max, dtype=dtype)
    assert all_finite(x)
    assert all_finite(-x)


def test_nothing_is_finite():
    assert all_finite(torch.empty(0, 3))
