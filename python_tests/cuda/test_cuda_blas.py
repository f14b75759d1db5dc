"""What goes through cuBLAS or cuDNN: the same bits for any view, and float32 whatever torch's switches for TF32 say."""

from __future__ import annotations

import functools

import pytest
import torch
from support.kernels import shifted
from support.losses import gradients
from support.opspecs import OPSPECS, Sample, rows

import deepclust_ext
from deepclust_ext.nn import Sobel
from deepclust_ext.ops.ordered_product import ordered_product

pytestmark = pytest.mark.cuda
MI_LOSS = next(spec for spec in OPSPECS if spec.name == "mi_loss")


def wide(dtype: torch.dtype, gpu: str) -> Sample:
    generator = torch.Generator().manual_seed(0)
    return Sample(tuple(rows(generator, 700, 512).to(gpu, dtype) for _ in range(2)))


def same(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip([*first[0], *first[1]], [*second[0], *second[1]], strict=True))


@pytest.fixture
def tf32():
    """`tf32(True)` lets torch's products and convolutions round float32; as it was after the test."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    def allow(matmul: bool, cudnn: bool | None = None) -> None:
        torch.backends.cuda.matmul.allow_tf32 = matmul
        torch.backends.cudnn.allow_tf32 = matmul if cudnn is None else cudnn

    yield allow
    allow(*before)


@pytest.mark.parametrize("by", [1, 8])  # 8: whole vectors of 16 bytes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_a_view_on_no_bound_gives_the_same_bits(dtype, by, gpu):
    sample = wide(dtype, gpu)
    moved = gradients(MI_LOSS.op, sample, place=functools.partial(shifted, by=by))
    assert same(gradients(MI_LOSS.op, sample), moved)


@pytest.mark.parametrize("by", [1, 8])
def test_an_ordered_product_of_views_on_no_bound_has_the_same_bits(by, gpu):
    a, b = (t.float().to(gpu) for t in (wide(torch.float64, "cpu").tensors))
    want, got = ordered_product(a, b), ordered_product(shifted(a, by), shifted(b, by))
    assert torch.equal(got, want)
    want, got = ordered_product(a.T, b.T), ordered_product(shifted(a, by).T, shifted(b, by).T)
    assert torch.equal(got, want)


def test_a_wide_joint_is_float32_under_either_switch(gpu, tf32):
    sample = wide(torch.float32, gpu)
    tf32(False)
    want = gradients(MI_LOSS.op, sample)
    tf32(True)
    assert same(gradients(MI_LOSS.op, sample), want)


def test_whitening_is_float32_under_either_switch(gpu, tf32):
    x = (torch.randn(5000, 96, generator=torch.Generator().manual_seed(0)) * torch.linspace(4, 0.1, 96)).to(gpu)
    tf32(False)
    want, transform = deepclust_ext.pca_whiten(x, 32)
    tf32(True)
    got, _ = deepclust_ext.pca_whiten(x, 32)
    assert torch.equal(got, want)
    assert torch.equal(transform(x), want)


def test_sobel_is_float32_under_either_switch(gpu, tf32):
    images = torch.rand(4, 3, 33, 31, generator=torch.Generator().manual_seed(0))
    tf32(True)
    got = Sobel().to(gpu)(images.to(gpu))
    torch.testing.assert_close(got.cpu(), Sobel()(images.double()).float(), rtol=0, atol=2e-6)
