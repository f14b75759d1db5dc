"""The CUDA kernels of the searches, on the emulator, against the reference: every sample, dtype and schedule."""

from __future__ import annotations

import pytest
import torch
from emu import SCHEDULES
from emulated import SEARCHES, emu
from opspecs import SEARCH_SPECS
from test_ops_search import DTYPES, run, same, samples
from torch import Tensor

from deepclust_ext.ops import _raw

SPECS = [spec for spec in SEARCH_SPECS if spec.name in SEARCHES]
every_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


@pytest.fixture(autouse=True)
def on_the_emulator(monkeypatch):
    """The public functions, with the emulator in the place of the dispatcher's ops."""
    for name, search in SEARCHES.items():
        monkeypatch.setattr(_raw, name, search)
    yield
    emu.set_schedule("forward")


@every_spec
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_matches_the_reference_and_gives_the_same_bits_in_any_order(spec, dtype):
    for sample in samples(spec, dtype):
        exact = spec.reference(*sample.with_tensors(Tensor.double).tensors, **sample.kwargs)
        first = None
        # Every schedule sees every kernel; the longest samples need not run in all of them.
        for schedule in SCHEDULES if sample.tensors[0].numel() < 1000 else SCHEDULES[2:3]:
            emu.set_schedule(*schedule)
            got = run(spec, sample)
            if first is None:
                spec.agrees(sample, got, exact)
                first = got
            assert same(first, got), schedule


@every_spec
def test_batched_is_one_after_another(spec):
    sample = next(s for s in samples(spec) if s.tensors[0].dim() > 2 and s.tensors[0].numel())
    batched, leading = run(spec, sample), sample.tensors[0].shape[:-2]
    index = tuple(n - 1 for n in leading)
    alone = run(spec, sample.with_tensors(lambda t: t[index]))
    pairs = [(a, b[index]) for a, b in zip(alone, batched, strict=True) if isinstance(a, Tensor)]
    assert all(torch.equal(a, b) for a, b in pairs)


@every_spec
def test_a_row_that_is_not_finite_is_named(spec):
    sample = samples(spec)[0]
    for value in (float("nan"), float("inf"), -float("inf")):
        first, *rest = (t.clone() for t in sample.tensors)
        first[11, 1] = first[29, 0] = value
        with pytest.raises(ValueError, match=f"{spec.name}: 'x' must be finite, got NaN or infinity in row 11; drop"):
            spec.op(first, *rest, **sample.kwargs)
