"""Generic tests of the ops without a gradient: reference, dtypes, layouts, threads, transforms, every path."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from support import paths
from support.opspecs import SEARCH_SPECS, SearchSpec
from support.searches import DTYPES, run, same, samples, tensors
from torch import Tensor
from torch.library import opcheck


def over(specs: list[SearchSpec]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("spec", specs, ids=lambda spec: spec.name)


every_spec = over(SEARCH_SPECS)
transformed = over([spec for spec in SEARCH_SPECS if spec.transforms])
with_paths = over([spec for spec in SEARCH_SPECS if spec.paths])


def ways(spec: SearchSpec, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The ways to the result, one after another."""
    return paths.each(monkeypatch) if spec.paths else iter(["best"])


@every_spec
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_matches_reference(spec, dtype, monkeypatch):
    floating = torch.float64 if dtype == torch.float64 else torch.float32
    for sample in samples(spec, dtype):
        exact = spec.reference(*sample.with_tensors(Tensor.double).tensors, **sample.kwargs)
        for _ in ways(spec, monkeypatch):
            got = run(spec, sample)
            spec.agrees(sample, got, exact)
            for output in (t for t in got if isinstance(t, Tensor)):
                assert output.dtype == (floating if output.is_floating_point() else torch.int64)


@with_paths
def test_all_paths_give_the_same_bits(spec, monkeypatch):
    """The filter only proposes; the decision is the same arithmetic either way."""
    for sample in samples(spec):
        first, *others = (run(spec, sample) for _ in ways(spec, monkeypatch))
        assert all(same(first, other) for other in others)


@every_spec
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


@every_spec
def test_same_bits_for_any_number_of_threads(spec, threads, monkeypatch):
    for sample in samples(spec):
        for _ in ways(spec, monkeypatch):
            results = []
            for count in (1, 2, 5, 1):
                threads(count)
                results.append(run(spec, sample))
            assert all(same(results[0], other) for other in results[1:])


@every_spec
def test_calls_from_several_threads_share_nothing(spec):
    sample = samples(spec)[3]
    want = run(spec, sample)
    with ThreadPoolExecutor(4) as pool:
        assert all(same(got, want) for got in pool.map(lambda _: run(spec, sample), range(16)))


@every_spec
def test_batched_is_one_after_another(spec):
    sample = next(s for s in samples(spec) if s.tensors[0].dim() > 2 and s.tensors[0].numel())
    batched, leading = run(spec, sample), sample.tensors[0].shape[:-2]
    for index in (tuple(0 for _ in leading), tuple(n - 1 for n in leading)):
        alone = run(spec, sample.with_tensors(lambda t, i=index: t[i]))
        pairs = [(a, b[index]) for a, b in zip(alone, batched, strict=True) if isinstance(a, Tensor)]
        assert all(torch.equal(a, b) for a, b in pairs)


@every_spec
def test_opcheck(spec):
    for sample in samples(spec)[:7]:
        for op, args in spec.raw(sample):
            opcheck(op, args)


@every_spec
def test_raw_ops_refuse_what_the_schema_allows_but_the_kernel_does_not(spec):
    for sample in samples(spec)[:2]:
        for op, args in spec.raw(sample):
            name = op._schema.name.split("::")[1]
            with pytest.raises(RuntimeError, match=f"{name}: 'x' must be"):
                op(*(a.long() if isinstance(a, Tensor) else a for a in args))
            if isinstance(args[1], Tensor):
                for wrong in (args[1][:, :-1], args[1].unsqueeze(0), args[1].double()):
                    with pytest.raises(RuntimeError, match=rf"{name}: '\w+' must"):
                        op(args[0], wrong, *args[2:])


@every_spec
def test_fake_shapes_match_real_ones(spec):
    from torch._subclasses.fake_tensor import FakeTensorMode

    for sample in samples(spec, torch.bfloat16):
        for op, args in spec.raw(sample):
            real = tensors(op(*args))
            with FakeTensorMode() as mode:
                fake = tensors(op(*(mode.from_tensor(a) if isinstance(a, Tensor) else a for a in args)))
            pairs = zip(real, fake, strict=True)
            assert all((a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride()) for a, b in pairs)


@every_spec
def test_no_gradient_passes_and_the_inputs_stay(spec):
    sample = samples(spec)[0]
    leaves = sample.with_tensors(lambda t: t.clone().requires_grad_())
    assert not any(t.requires_grad for t in tensors(run(spec, leaves)))
    assert all(torch.equal(a, b) for a, b in zip(leaves.tensors, sample.tensors, strict=True))


@every_spec
def test_autocast_changes_nothing(spec):
    sample = samples(spec)[3]
    want = run(spec, sample)
    with torch.autocast("cpu", torch.bfloat16):
        assert same(run(spec, sample), want)


@transformed
def test_vmap(spec):
    for sample in samples(spec)[:4]:
        batch = [torch.stack([t, t.flip(-1)], dim=1) for t in sample.tensors]
        mapped = torch.func.vmap(lambda *t, s=sample: spec.op(*t, **s.kwargs), in_dims=1)(*batch)
        for i in range(2):
            alone = spec.op(*(b.select(1, i) for b in batch), **sample.kwargs)
            assert same(tuple(m[i] for m in mapped), alone)
        # One input mapped, the others shared.
        first, *rest = sample.tensors
        mapped = torch.func.vmap(lambda t, s=sample, r=rest: spec.op(t, *r, **s.kwargs))(torch.stack([first, -first]))
        assert same(tuple(m[1] for m in mapped), spec.op(-first, *rest, **sample.kwargs))


@transformed
def test_vmap_over_nothing(spec):
    sample = samples(spec)[0]
    mapped = torch.func.vmap(lambda *t: spec.op(*t, **sample.kwargs))(*(t[None][:0] for t in sample.tensors))
    assert all(m.shape == (0, *alone.shape) for m, alone in zip(mapped, run(spec, sample), strict=True))


@transformed
@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_fullgraph(spec, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda *t, **kwargs: spec.op(*(u * 2 for u in t), **kwargs), fullgraph=True, dynamic=dynamic
    )
    for sample in (samples(spec)[0], samples(spec)[3]):
        want = spec.op(*(t * 2 for t in sample.tensors), **sample.kwargs)
        assert same(compiled(*sample.tensors, **sample.kwargs), want)
