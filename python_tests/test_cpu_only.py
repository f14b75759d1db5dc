"""Ops without a CUDA kernel say so themselves; the dispatcher's message would name neither argument nor mend."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from deepclust_ext import knn, knn_classify
from deepclust_ext.ops._common import check_on_cpu

CALLS = {
    "knn": ("x", lambda x: knn(x, 2)),
    "knn_classify": ("bank", lambda x: knn_classify(x, torch.zeros(5, dtype=torch.int64, device=x.device), x)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_tensor_of_a_gpu_is_refused_with_the_mend(name):
    """A fake tensor claims to be on a GPU, so that none is needed."""
    arg, call = CALLS[name]
    with (
        FakeTensorMode(),
        pytest.raises(
            NotImplementedError, match=rf"^{name}: '{arg}' must be on the CPU, got cuda:0: .* with \.cpu\(\)"
        ),
    ):
        call(torch.empty(5, 3, device="cuda"))


@pytest.mark.cuda
@pytest.mark.parametrize("name", CALLS)
def test_a_real_tensor_of_a_gpu_is_refused_too(name):
    with pytest.raises(NotImplementedError, match=f"^{name}: "):
        CALLS[name][1](torch.zeros(5, 3, device="cuda"))


def test_a_tensor_of_the_cpu_passes():
    check_on_cpu("knn", "x", torch.zeros(1))
