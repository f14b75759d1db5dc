"""Generic tests: every op against its reference, for every dtype, layout, thread count and transform."""

from __future__ import annotations

import pytest
import torch
from support.losses import DTYPES, assert_matches, gradients, samples, upstream_of
from support.opspecs import OPSPECS
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import opcheck

pytestmark = pytest.mark.parametrize("spec", OPSPECS, ids=lambda spec: spec.name)
on_every_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])


@on_every_device
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_matches_reference(spec, device, dtype, threads):
    # The reference's many small products take ten times as long when two busy cores share them. Our own bits do not
    # depend on the number of threads, as the test below holds.
    threads(1)
    for sample in samples(spec, dtype, device):
        outputs, grads = gradients(spec.op, sample)
        exact_outputs, exact_grads = gradients(spec.reference, sample.with_tensors(Tensor.double))
        assert_matches(outputs, grads, exact_outputs, exact_grads, dtype)


@on_every_device
def test_gradcheck(spec, device):
    for sample in (s for s in samples(spec, device=device) if s.small):
        tensors = [t.clone().requires_grad_() for t in sample.tensors]

        # A push's gradient stops at the earlier head, which finite differences know nothing of.
        kwargs = {k: (0.0 if k == "alpha" else v) for k, v in sample.kwargs.items()}
        assert torch.autograd.gradcheck(lambda *t, kwargs=kwargs: spec.loss(spec.op(*t, **kwargs)), tensors)


@on_every_device
def test_strided_inputs_give_the_same_bits(spec, device):
    def transposed(t: Tensor) -> Tensor:
        return t.transpose(-1, -2).contiguous().transpose(-1, -2)

    def sliced(t: Tensor) -> Tensor:
        return torch.stack([t, t + 1], dim=-1)[..., 0]

    def offset(t: Tensor) -> Tensor:
        return torch.cat([t.new_zeros(1), t.reshape(-1)])[1:].view(t.shape)

    for sample in samples(spec, torch.float32, device):
        want, want_grads = gradients(spec.op, sample)
        for change in (transposed, sliced, offset):
            outputs = spec.outputs(spec.op(*sample.with_tensors(change).tensors, **sample.kwargs))
            assert all(torch.equal(a, b) for a, b in zip(outputs, want, strict=True)), change.__name__
            tensors = [change(t).requires_grad_() for t in sample.tensors]
            loss = spec.loss(spec.op(*tensors, **sample.kwargs))
            grads = torch.autograd.grad(loss, tensors, upstream_of(loss))
            assert all(torch.equal(a, b) for a, b in zip(grads, want_grads, strict=True)), change.__name__


def test_same_bits_for_any_number_of_threads(spec, threads):
    for sample in samples(spec, torch.float32):
        results = []
        for count in (1, 2, 5, 1):
            threads(count)
            outputs, grads = gradients(spec.op, sample)
            results.append([*outputs, *grads])
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_one_thread_call_under_another_pool_gives_the_same_bits(spec):
    """Calls from several Python threads at once share nothing."""
    from concurrent.futures import ThreadPoolExecutor

    sample = samples(spec, torch.float32)[3]
    want = gradients(spec.op, sample)[1]
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: gradients(spec.op, sample)[1], range(16)):
            assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


@on_every_device
def test_opcheck(spec, device):
    for sample in samples(spec, torch.float32, device)[:4]:
        for op, args in spec.raw(sample):
            opcheck(op, args)


@on_every_device
def test_raw_ops_refuse_what_the_schema_allows_but_the_kernel_does_not(spec, device):
    integers = tuple(t.long() for t in samples(spec, device=device)[0].tensors)
    if not spec.raw(samples(spec, device=device)[0]):
        pytest.skip("made of other ops")
    op, args = spec.raw(samples(spec, device=device)[0])[0]
    with pytest.raises(RuntimeError, match=f"{spec.raw_name or spec.name}: "):
        op(*integers, *args[len(integers) :])


@on_every_device
def test_raw_backward_refuses_gradients_of_other_sizes(spec, device):
    """A smaller one would be read beyond its end."""
    ops = spec.raw(samples(spec, torch.float32, device)[0])
    if len(ops) < 2:
        pytest.skip("its forward pass returns the gradients")
    op, args = ops[1]
    saved = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.shape not in {t.shape for t in args[1:2]}]
    assert len(saved) >= 2
    for i in saved:
        for wrong in (args[i].new_zeros(0), args[i].new_zeros((*args[i].shape, 1)), args[i].double()):
            with pytest.raises(RuntimeError, match=f"{spec.name}_backward: '.*_(loss|grad)' must be"):
                op(*args[:i], wrong, *args[i + 1 :])


@on_every_device
def test_fake_shapes_match_real_ones(spec, device):
    from torch._subclasses.fake_tensor import FakeTensorMode

    for sample in samples(spec, torch.bfloat16, device):
        for op, args in spec.raw(sample):
            real = op(*args)
            with FakeTensorMode() as mode:
                fake = op(*(mode.from_tensor(a) if isinstance(a, Tensor) else a for a in args))
            pairs = zip(spec.outputs(real), spec.outputs(fake), strict=True)
            assert all((a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride()) for a, b in pairs)


@on_every_device
def test_torch_func_grad_and_vmap(spec, device):
    for sample in samples(spec, device=device):
        if sample.tensors[0].dim() == 3 or sample.tensors[0].numel() == 0 or sample.tensors[0].numel() > 1e5:
            continue
        argnums = tuple(range(len(sample.tensors)))

        def loss(*tensors, sample=sample):
            return spec.loss(spec.op(*tensors, **sample.kwargs)).sum()

        want = gradients(lambda *t, **k: spec.loss(spec.op(*t, **k)).sum(), sample, weight=1.0)[1]
        got = torch.func.grad(loss, argnums)(*sample.tensors)
        assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))

        batch = [torch.stack([t, t.flip(-1)], dim=1) for t in sample.tensors]
        mapped = torch.func.vmap(torch.func.grad(loss, argnums), in_dims=1)(*batch)
        for i in range(2):
            alone = torch.func.grad(loss, argnums)(*(b.select(1, i) for b in batch))
            for a, b in zip(mapped, alone, strict=True):
                torch.testing.assert_close(a[i], b, rtol=1e-12, atol=1e-15)


@on_every_device
def test_vmap_with_one_unbatched_input(spec, device):
    sample = samples(spec, device=device)[0]
    first, rest = sample.tensors[0], sample.tensors[1:]
    batch = torch.stack([first, first.flip(-1), first.flip(-2)])
    mapped = torch.func.vmap(lambda t: spec.loss(spec.op(t, *rest, **sample.kwargs)))(batch)
    alone = torch.stack([spec.loss(spec.op(t, *rest, **sample.kwargs)) for t in batch])
    torch.testing.assert_close(mapped, alone, rtol=1e-12, atol=1e-15)


@on_every_device
def test_vmap_over_nothing(spec, device):
    sample = samples(spec, device=device)[0]
    empty = [t.new_zeros(0, *t.shape) for t in sample.tensors]

    def loss(*tensors):
        return spec.loss(spec.op(*tensors, **sample.kwargs))

    assert torch.func.vmap(loss)(*empty).shape == (0, *loss(*sample.tensors).shape)
    summed = torch.func.grad(lambda *tensors: loss(*tensors).sum())
    assert torch.func.vmap(summed)(*empty).shape == empty[0].shape


def test_forward_mode_raises(spec):
    """A raw op would return no tangent, which reads as zero."""
    sample = samples(spec)[0]
    first, *rest = sample.tensors
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(first, torch.ones_like(first))
        with pytest.raises(NotImplementedError, match=f"{spec.name}: forward-mode .* deepclust_ext.reference"):
            spec.op(dual, *rest, **sample.kwargs)
    with pytest.raises(NotImplementedError, match=f"{spec.name}: forward-mode"):
        torch.func.jacfwd(lambda t: spec.loss(spec.op(t, *rest, **sample.kwargs)))(first)


@on_every_device
def test_second_derivative_raises(spec, device):
    sample = samples(spec, device=device)[0]
    tensors = [t.clone().requires_grad_() for t in sample.tensors]
    loss = spec.loss(spec.op(*tensors, **sample.kwargs)).sum()
    (grad,) = torch.autograd.grad(loss, tensors[0], create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        grad.square().sum().backward()


@on_every_device
def test_unneeded_gradients_and_detached_outputs(spec, device):
    sample = samples(spec, device=device)[0]
    first = sample.tensors[0].clone().requires_grad_()
    result = spec.outputs(spec.op(first, *sample.tensors[1:], **sample.kwargs))
    assert result[0].requires_grad
    assert not any(extra.requires_grad for extra in result[1:])
    with torch.no_grad():
        assert not spec.loss(spec.op(first, *sample.tensors[1:], **sample.kwargs)).requires_grad


@on_every_device
def test_autocast_keeps_float32_sums(spec, device):
    sample = samples(spec, torch.float32, device)[3]
    want = spec.loss(spec.op(*sample.tensors, **sample.kwargs))
    with torch.autocast(device, torch.bfloat16):
        got = spec.loss(spec.op(*sample.tensors, **sample.kwargs))
    assert got.dtype == torch.float32
    assert torch.equal(got, want)


@on_every_device
@pytest.mark.slow
def test_compile_fullgraph(spec, device):
    compiled = torch.compile(
        lambda *tensors, **kwargs: spec.loss(spec.op(*(t.softmax(-1) for t in tensors), **kwargs)),
        fullgraph=True,
    )
    sample = samples(spec, torch.float32, device)[3]
    outputs, grads = gradients(compiled, sample)
    want, want_grads = gradients(
        lambda *tensors, **kwargs: spec.loss(spec.op(*(t.softmax(-1) for t in tensors), **kwargs)), sample
    )
    torch.testing.assert_close(outputs[0], want[0])
    for a, b in zip(grads, want_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_compiled_torch_func_grad_is_refused_rather_than_zero(spec):
    """The tracer drops custom gradients inside torch.func (pytorch issue 193279)."""
    sample = samples(spec)[0]
    first, *rest = sample.tensors
    grad = torch.func.grad(lambda t: spec.loss(spec.op(t, *rest, **sample.kwargs)).sum())
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="drops custom gradients"):
        torch.compile(grad, backend="eager", fullgraph=True)(first)
