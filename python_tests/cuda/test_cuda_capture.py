"""Under the capture of a CUDA graph, an op that must wait for the device says so in a sentence. No GPU is needed."""

from __future__ import annotations

import pytest
import torch
from support.captures import REFUSED, SENTENCE
from torch._subclasses.fake_tensor import FakeTensorMode

WAITS_IN_PYTHON = ["kmeans", "kmeans random", "knn_classify", "pca_whiten"]


@pytest.mark.parametrize("name", WAITS_IN_PYTHON)
def test_an_op_that_waits_for_values_refuses_a_capture(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with FakeTensorMode():
        x = torch.empty(40, 6, device="cuda")
        labels = torch.empty(40, dtype=torch.int64, device="cuda")
    with pytest.raises(RuntimeError, match=SENTENCE.format(name.split()[0])):
        REFUSED[name](x, labels)


@pytest.mark.parametrize("name", REFUSED)
def test_the_cpu_has_no_captures(name, monkeypatch, generator):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    REFUSED[name](torch.randn(40, 6, generator=generator), torch.arange(40) % 3)
