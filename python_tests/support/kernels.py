"""The CUDA kernels wherever they run, so that one test holds for a GPU and for the emulator."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from deepclust_ext.ops import _raw
from support.losses import gradients, upstream_of
from support.opspecs import OpSpec, Sample
from support.rehearsal import GPU


class OnGPU:
    """The public functions on a GPU's tensors."""

    emulated = False

    def put(self, tensor: Tensor) -> Tensor:
        return tensor.to(GPU)

    def loss(self, spec: OpSpec, sample: Sample, *, offset: bool = False) -> tuple[list[Tensor], list[Tensor]]:
        """Outputs and gradients of a sample on the CPU, there again; `offset`: of views that start on no bound."""
        place = shifted if offset else torch.clone
        outputs, grads = gradients(spec.op, sample.with_tensors(self.put), place=place)
        return [t.cpu() for t in outputs], [t.cpu() for t in grads]

    @contextmanager
    def offset(self) -> Iterator[None]:
        """Searches are given views that start on no bound; see `put_offset`."""
        yield

    def put_offset(self, tensor: Tensor) -> Tensor:
        return shifted(self.put(tensor))


class Emulated:
    """The same by the emulator; skips where it is not built."""

    emulated = True

    def __init__(self, monkeypatch: Any) -> None:
        self._module = importlib.import_module("support.emulated")
        for name, search in self._module.SEARCHES.items():
            monkeypatch.setattr(_raw, name, search)

    def put(self, tensor: Tensor) -> Tensor:
        return tensor

    put_offset = put

    def loss(self, spec: OpSpec, sample: Sample, *, offset: bool = False) -> tuple[list[Tensor], list[Tensor]]:
        dtype = torch.float64 if sample.tensors[0].dtype == torch.float64 else torch.float32
        shape = sample.tensors[0].shape
        leading = () if spec.name == "dhog_loss" else shape[:-1] if spec.name.startswith("bank_") else shape[:-2]
        upstream = upstream_of(torch.zeros(leading, dtype=dtype))
        with self.offset() if offset else _nothing():
            outputs, grads = self._module.call(spec.name, sample.tensors, sample.kwargs, upstream)
        return list(outputs), list(grads)

    @contextmanager
    def offset(self) -> Iterator[None]:
        self._module.emu.set_input_offset(1)
        try:
            yield
        finally:
            self._module.emu.set_input_offset(0)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def shifted(tensor: Tensor, by: int = 1) -> Tensor:
    """The same values in a view that starts `by` elements behind a bound."""
    return torch.cat([tensor.new_zeros(by), tensor.reshape(-1)])[by:].view(tensor.shape)
