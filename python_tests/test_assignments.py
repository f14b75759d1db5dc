"""Generic tests of ops that return labels: reference, dtypes, layouts, threads, and both roads of the search."""

from __future__ import annotations

import pytest
import torch
from opspecs import ASSIGNMENT_SPECS, AssignmentSpec, Sample
from torch import Tensor
from torch.library import opcheck

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]

pytestmark = pytest.mark.parametrize("spec", ASSIGNMENT_SPECS, ids=lambda spec: spec.name)


@pytest.fixture(params=["int8", "float"])
def road(request, monkeypatch):
    """With 8-bit codes where the processor has the instruction, and without."""
    if request.param == "float":
        monkeypatch.setenv("DEEPCLUST_NO_INT8", "1")
    return request.param


def samples(spec: AssignmentSpec, dtype: torch.dtype = torch.float64) -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    return [s.with_tensors(lambda t: t.to(dtype)) for s in spec.samples(generator)]


def tensors(result) -> list[Tensor]:
    """Every tensor of a result, those of its history included."""
    if isinstance(result, Tensor):
        return [result]
    return [t for part in result for t in tensors(part)] if isinstance(result, list | tuple) else []


def same(first, second) -> bool:
    pairs = list(zip(tensors(first), tensors(second), strict=True))
    assert pairs
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_matches_reference(spec, dtype, road):
    for sample in samples(spec, dtype):
        exact = spec.reference(*sample.with_tensors(Tensor.double).tensors, **sample.kwargs)
        got = spec.op(*sample.tensors, **sample.kwargs)
        spec.agrees(sample, got, exact)
        floats = [t for t in got if isinstance(t, Tensor) and t.is_floating_point()]
        assert {t.dtype for t in floats} == {torch.float64 if dtype == torch.float64 else torch.float32}


def test_both_roads_give_the_same_bits(spec, monkeypatch):
    """The filter only proposes; the decision is the same arithmetic either way."""
    for sample in samples(spec, torch.float32):
        monkeypatch.delenv("DEEPCLUST_NO_INT8", raising=False)
        first = spec.op(*sample.tensors, **sample.kwargs)
        monkeypatch.setenv("DEEPCLUST_NO_INT8", "1")
        assert same(first, spec.op(*sample.tensors, **sample.kwargs))


def test_strided_inputs_give_the_same_bits(spec):
    def transposed(t: Tensor) -> Tensor:
        return t.transpose(-1, -2).contiguous().transpose(-1, -2)

    def sliced(t: Tensor) -> Tensor:
        return torch.stack([t, t + 1], dim=-1)[..., 0]

    def offset(t: Tensor) -> Tensor:
        return torch.cat([torch.zeros(1, dtype=t.dtype), t.reshape(-1)])[1:].view(t.shape)

    for sample in samples(spec, torch.float32):
        want = spec.op(*sample.tensors, **sample.kwargs)
        for change in (transposed, sliced, offset):
            assert same(want, spec.op(*sample.with_tensors(change).tensors, **sample.kwargs)), change.__name__


def test_same_bits_for_any_number_of_threads(spec, threads, road):
    for sample in samples(spec, torch.float32):
        results = []
        for count in (1, 2, 5, 1):
            threads(count)
            results.append(spec.op(*sample.tensors, **sample.kwargs))
        assert all(same(results[0], other) for other in results[1:])


def test_batched_is_one_after_another(spec):
    sample = next(s for s in samples(spec, torch.float32) if s.tensors[0].dim() == 4)
    batched = spec.op(*sample.tensors, **sample.kwargs)
    for index in ((0, 0), (1, 1)):
        alone = spec.op(*(t[index] for t in sample.tensors), **sample.kwargs)
        for name in ("labels", "squared_distances", "centroids", "inertia", "n_iter", "n_empty"):
            if hasattr(alone, name):
                assert torch.equal(getattr(alone, name), getattr(batched, name)[index]), name


def test_opcheck(spec):
    for sample in samples(spec, torch.float32)[:4]:
        for op, args in spec.raw(sample):
            opcheck(op, args, test_utils=("test_schema", "test_autograd_registration", "test_faketensor"))


def test_fake_shapes_match_real_ones(spec):
    from torch._subclasses.fake_tensor import FakeTensorMode

    for sample in samples(spec, torch.bfloat16):
        for op, args in spec.raw(sample):
            real = tensors(op(*args))
            with FakeTensorMode() as mode:
                fake = tensors(op(*(mode.from_tensor(a) if isinstance(a, Tensor) else a for a in args)))
            pairs = zip(real, fake, strict=True)
            assert all((a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride()) for a, b in pairs)


def test_raw_ops_refuse_what_the_schema_allows_but_the_kernel_does_not(spec):
    sample = samples(spec, torch.float32)[0]
    for op, args in spec.raw(sample):
        name = op._schema.name.split("::")[1]
        with pytest.raises(RuntimeError, match=f"{name}: 'x' must be a floating-point tensor"):
            op(*(a.long() if isinstance(a, Tensor) else a for a in args))
        if isinstance(args[1], Tensor):
            for wrong in (args[1][:, :-1], args[1].unsqueeze(0), args[1][:0], args[1].double()):
                with pytest.raises(RuntimeError, match=f"{name}: '(centroids|n_clusters)' must"):
                    op(args[0], wrong, *args[2:])


def test_results_are_detached_and_the_inputs_stay(spec):
    sample = samples(spec, torch.float32)[0]
    leaves = [t.clone().requires_grad_() for t in sample.tensors]
    assert not any(t.requires_grad for t in tensors(spec.op(*leaves, **sample.kwargs)))
    assert all(torch.equal(a, b) for a, b in zip(leaves, sample.tensors, strict=True))


def test_several_python_threads_at_once_share_nothing(spec):
    from concurrent.futures import ThreadPoolExecutor

    sample = samples(spec, torch.float32)[3]
    want = spec.op(*sample.tensors, **sample.kwargs)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: spec.op(*sample.tensors, **sample.kwargs), range(8)):
            assert same(want, got)
