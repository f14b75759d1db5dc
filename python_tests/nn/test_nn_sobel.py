"""The Sobel layer: hand-computed gradients, channels, odd sizes, no parameters."""

from __future__ import annotations

import pytest
import torch

from deepclust_ext.nn import Sobel


def test_ramps_have_constant_gradients_inside():
    columns = torch.arange(7.0).expand(5, 7)[None, None]
    gradients = Sobel()(columns)
    assert (gradients[0, 0, 1:-1, 1:-1] == 8).all()
    assert (gradients[0, 1, 1:-1, 1:-1] == 0).all()
    gradients = Sobel()(columns.transpose(2, 3))
    assert (gradients[0, 0, 1:-1, 1:-1] == 0).all()
    assert (gradients[0, 1, 1:-1, 1:-1] == 8).all()


def test_one_bright_pixel_by_hand():
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0, 1, 1] = 1
    horizontal, vertical = Sobel()(image)[0]
    assert horizontal.tolist() == [[1, 0, -1], [2, 0, -2], [1, 0, -1]]
    assert vertical.tolist() == [[1, 2, 1], [0, 0, 0], [-1, -2, -1]]


def test_the_border_answers_to_zero_padding():
    gradients = Sobel()(torch.ones(1, 1, 4, 4))
    assert gradients[0, 0, 1, 0] == 4
    assert gradients[0, 0, 1, 3] == -4
    assert (gradients[0, :, 1:3, 1:3] == 0).all()


def test_colours_are_averaged(generator):
    images = torch.rand(2, 3, 9, 7, generator=generator)
    torch.testing.assert_close(Sobel()(images), Sobel()(images.mean(1, keepdim=True)))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 8), (1, 3, 33, 31), (0, 1, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_dtypes(shape, dtype):
    output = Sobel()(torch.zeros(shape, dtype=dtype))
    assert output.shape == (shape[0], 2, *shape[2:])
    assert output.dtype == dtype


def test_gradient_reaches_the_images_and_there_is_nothing_to_train(generator):
    layer = Sobel()
    images = torch.rand(1, 1, 5, 5, generator=generator, requires_grad=True)
    layer(images).square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert list(layer.parameters()) == []
    assert list(layer.buffers()) == []
    assert layer.state_dict() == {}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_it_is_the_convolution(dtype, generator):
    rows = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64)
    images = torch.rand(2, 3, 7, 9, generator=generator).to(dtype)
    kernel = torch.stack([rows, rows.T])[:, None]
    want = torch.nn.functional.conv2d(images.double().mean(1, keepdim=True), kernel, padding=1)
    error = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-6, torch.float64: 1e-14}[dtype]
    torch.testing.assert_close(Sobel()(images).double(), want, rtol=error, atol=error)


@pytest.mark.parametrize("shape", [(1, 2, 4, 4), (3, 4, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="Sobel: 'images' must have shape"):
        Sobel()(torch.zeros(shape))


def test_uint8_is_refused():
    with pytest.raises(TypeError, match=r"must be floating-point, got torch\.uint8; divide"):
        Sobel()(torch.zeros(1, 1, 4, 4, dtype=torch.uint8))
