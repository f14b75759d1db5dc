"""Generic tests of the ops without a gradient: against their references, for every dtype, layout and transform."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from opspecs import SEARCHSPECS, Sample, SearchSpec
from torch import Tensor
from torch.library import opcheck

# Relative to the largest value. Half inputs are rounded before both sides see them.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 2e-6, torch.bfloat16: 2e-6}
DTYPES = list(TOLERANCE)

pytestmark = pytest.mark.parametrize("spec", SEARCHSPECS, ids=lambda spec: spec.name)


def samples(spec: SearchSpec, dtype: torch.dtype = torch.float32) -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    return [s.with_tensors(lambda t: t.to(dtype)) for s in spec.samples(generator)]


def run(spec: SearchSpec, sample: Sample) -> tuple[Tensor, ...]:
    return spec.outputs(spec.op(*sample.tensors, **sample.kwargs))


def same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_matches_reference(spec, dtype, threads):
    threads(1)
    for sample in samples(spec, dtype):
        exact_sample = sample.with_tensors(Tensor.double)
        exact = spec.outputs(spec.reference(*exact_sample.tensors, **sample.kwargs))
        outputs = run(spec, sample)
        for output in outputs:
            floating = torch.float64 if dtype == torch.float64 else torch.float32
            assert output.dtype == (floating if output.is_floating_point() else torch.int64)
        spec.agree(outputs, exact, exact_sample, TOLERANCE[dtype])


def test_strided_inputs_give_the_same_bits(spec):
    def transposed(t: Tensor) -> Tensor:
        return t.transpose(-1, -2).contiguous().transpose(-1, -2)

    def sliced(t: Tensor) -> Tensor:
        return torch.stack([t, t + 1], dim=-1)[..., 0]

    def every_other_row(t: Tensor) -> Tensor:
        return torch.stack([t, t + 1], dim=-2)[..., 0, :]

    def offset(t: Tensor) -> Tensor:
        return torch.cat([torch.zeros(1, dtype=t.dtype), t.reshape(-1)])[1:].view(t.shape)

    for sample in samples(spec):
        want = run(spec, sample)
        for change in (transposed, sliced, every_other_row, offset):
            assert same(run(spec, sample.with_tensors(change)), want), change.__name__


def test_same_bits_for_any_number_of_threads(spec, threads):
    for sample in samples(spec):
        results = []
        for count in (1, 2, 5, 1):
            threads(count)
            results.append(run(spec, sample))
        assert all(same(results[0], other) for other in results[1:])


def test_calls_from_several_threads_share_nothing(spec):
    sample = samples(spec)[3]
    want = run(spec, sample)
    with ThreadPoolExecutor(4) as pool:
        assert all(same(got, want) for got in pool.map(lambda _: run(spec, sample), range(16)))


def test_opcheck(spec):
    for sample in samples(spec)[:7]:
        for op, args in spec.raw(sample):
            opcheck(op, args, test_utils=("test_schema", "test_autograd_registration", "test_faketensor"))


def test_raw_op_refuses_what_the_schema_allows_but_the_kernel_does_not(spec):
    op, args = spec.raw(samples(spec)[0])[0]
    with pytest.raises(RuntimeError, match=f"{spec.name}: "):
        op(*(a.long() if isinstance(a, Tensor) else a for a in args))


def test_fake_shapes_match_real_ones(spec):
    from torch._subclasses.fake_tensor import FakeTensorMode

    for sample in samples(spec, torch.bfloat16):
        for op, args in spec.raw(sample):
            real = op(*args)
            with FakeTensorMode() as mode:
                fake = op(*(mode.from_tensor(a) if isinstance(a, Tensor) else a for a in args))
            pairs = zip(spec.outputs(real), spec.outputs(fake), strict=True)
            assert all((a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride()) for a, b in pairs)


def test_vmap(spec):
    for sample in samples(spec)[:4]:
        batch = [torch.stack([t, t.flip(-1)], dim=1) for t in sample.tensors]
        mapped = torch.func.vmap(lambda *t, s=sample: spec.op(*t, **s.kwargs), in_dims=1)(*batch)
        for i in range(2):
            alone = spec.op(*(b.select(1, i) for b in batch), **sample.kwargs)
            assert same(tuple(m[i] for m in mapped), spec.outputs(alone))
        # One input mapped, the others shared.
        first, *rest = sample.tensors
        mapped = torch.func.vmap(lambda t, s=sample, r=rest: spec.op(t, *r, **s.kwargs))(torch.stack([first, -first]))
        assert same(tuple(m[1] for m in mapped), spec.outputs(spec.op(-first, *rest, **sample.kwargs)))


def test_vmap_over_nothing(spec):
    sample = samples(spec)[0]
    mapped = torch.func.vmap(lambda *t: spec.op(*t, **sample.kwargs))(*(t[None][:0] for t in sample.tensors))
    assert all(m.shape == (0, *alone.shape) for m, alone in zip(mapped, run(spec, sample), strict=True))


def test_no_gradient_passes(spec):
    sample = samples(spec)[0]
    wanted = sample.with_tensors(lambda t: t.requires_grad_())
    assert not any(output.requires_grad for output in run(spec, wanted))


def test_autocast_changes_nothing(spec):
    sample = samples(spec)[3]
    want = run(spec, sample)
    with torch.autocast("cpu", torch.bfloat16):
        assert same(run(spec, sample), want)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_fullgraph(spec, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda *t, **kwargs: spec.op(*(u * 2 for u in t), **kwargs), fullgraph=True, dynamic=dynamic
    )
    for sample in (samples(spec)[0], samples(spec)[3]):
        want = spec.outputs(spec.op(*(t * 2 for t in sample.tensors), **sample.kwargs))
        assert same(spec.outputs(compiled(*sample.tensors, **sample.kwargs)), want)
