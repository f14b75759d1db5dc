"""The CUDA kernels of the searches, on the emulator, against the reference: every sample, dtype and schedule."""

from __future__ import annotations

import itertools

import pytest
import torch
from support.emulated import SEARCHES, emu
from support.emulator import schedules
from support.opspecs import SEARCH_SPECS
from support.searches import DTYPES, run, same, samples
from torch import Tensor

from deepclust_ext.ops import _raw

SPECS = SEARCH_SPECS
every_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


def test_every_search_is_emulated():
    """One that is not would run on the CPU below."""
    assert {spec.name for spec in SPECS} <= set(SEARCHES)


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
        if sample.tensors[0].shape[-2] * sample.tensors[-1].shape[-2] > 10**6:
            continue  # of a size for the CPU's tiles; here the others are many tiles, and it takes half a minute
        exact = spec.reference(*sample.with_tensors(Tensor.double).tensors, **sample.kwargs)
        first = None
        for schedule in schedules(dtype == torch.float32, sample.tensors[0].numel() > 1000):
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


def test_kmeans_agrees_with_the_cpu_to_the_bit():
    """The sums are the same integers; in float64 no two centroids tie up to rounding here."""
    for sample in samples(next(spec for spec in SPECS if spec.name == "kmeans"), torch.float64):
        if sample.kwargs.get("spherical") or not sample.tensors[0].numel():
            continue
        x, start = sample.tensors
        rule, iterations = ("split", "farthest", "keep").index(sample.kwargs.get("empty", "split")), 5
        weights = torch.arange(x[..., 0].numel(), dtype=torch.float64).remainder(7).view(x.shape[:-1]) / 7
        for own in (None, weights):
            arguments = (x, start, start.shape[-2], 0, iterations, 0.0, rule, False, own)
            want, got = torch.ops.deepclust.kmeans(*arguments), SEARCHES["kmeans"](*arguments)
            for index in (0, 1, 3, 5):
                assert torch.equal(got[index], want[index])
            torch.testing.assert_close(got[2], want[2], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(got[4], want[4], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("distinct", [1, 4, 60])
def test_plusplus_draws_the_cpus_seeds(distinct):
    """From the same generator. In float64 no draw falls within rounding of another point."""
    generator = torch.Generator().manual_seed(distinct)
    x = torch.randn(2, distinct, 3, generator=generator, dtype=torch.float64)
    x = x[:, torch.randint(distinct, (60,), generator=generator)] if distinct < 60 else x
    weights = torch.arange(120, dtype=torch.float64).remainder(5).view(2, 60) / 5
    for seed, own in itertools.product((0, -3, 2**62), (None, weights)):
        for clusters in (1, 2, 9, 60):
            want = torch.ops.deepclust.kmeans_plusplus(x, clusters, seed, own)
            assert torch.equal(SEARCHES["kmeans_plusplus"](x, clusters, seed, own), want)
