"""The memory bank's ops on the CUDA kernels: updates, refusals, mixed dtypes, and what a CUDA graph records."""

from __future__ import annotations

import pytest
import torch
from support.rehearsal import REHEARSED
from support.searches import DTYPES

import deepclust_ext
from deepclust_ext import reference

G = torch.Generator().manual_seed(0)
INDEX = torch.randint(11, (40,), generator=G)  # every row several times
STEP = {torch.float64: 1e-14, torch.float32: 3e-7, torch.float16: 1e-3, torch.bfloat16: 8e-3}  # about one unit


def unit(*shape: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=G), dim=-1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("columns", [False, True])
def test_an_update_is_the_references(dtype, columns, kernels):
    bank, features = unit(13, 37).to(dtype), unit(40, 37)
    want = reference.bank_update_(bank.clone(), INDEX, features.to(dtype), momentum=0.7)
    mine = kernels.put(bank.t().contiguous().t() if columns else bank.clone())
    got = deepclust_ext.bank_update_(mine, kernels.put(INDEX), kernels.put(features.to(dtype)), momentum=0.7)
    assert got is mine
    torch.testing.assert_close(got.cpu(), want, rtol=0, atol=STEP[dtype])
    assert torch.equal(got.cpu()[11:], bank[11:])


def test_an_update_takes_float64_features_and_keeps_zeros(kernels):
    bank, features = torch.zeros(3, 5), torch.stack([torch.zeros(5), torch.arange(5.0), torch.full((5,), 1e38)])
    want = reference.bank_update_(bank.clone(), torch.arange(3), features.double(), momentum=0.5)
    mine = kernels.put(bank.clone())
    deepclust_ext.bank_update_(mine, kernels.put(torch.arange(3)), kernels.put(features.double()))
    torch.testing.assert_close(mine.cpu(), want, rtol=1e-6, atol=0)
    assert not mine[0].any()


@pytest.mark.parametrize("bad", [-1, 13, 2**40])
def test_an_index_outside_of_the_bank_is_refused_before_a_row_changes(bad, kernels):
    bank, index = kernels.put(unit(13, 6)), INDEX.clone()
    index[33] = bad
    before, place, features = bank.clone(), kernels.put(index), kernels.put(unit(40, 6))
    with pytest.raises(IndexError, match=rf"bank_update_: 'index' must be between 0 and 12, got {bad}"):
        deepclust_ext.bank_update_(bank, place, features)
    assert torch.equal(bank, before)
    with pytest.raises(IndexError, match=rf"bank_nll: 'index' must be between 0 and 12, got {bad}"):
        deepclust_ext.bank_nll(features, bank, place)
    neighbors = kernels.put(torch.stack([INDEX, index], 1))
    if bad < 0:
        assert deepclust_ext.bank_nll(features, bank, kernels.put(INDEX), neighbors).isfinite().all()
        assert deepclust_ext.bank_entropy(features, bank, place).isfinite().all()
        return
    with pytest.raises(IndexError, match=rf"bank_nll: 'neighbors' must be -1 or between 0 and 12, got {bad}"):
        deepclust_ext.bank_nll(features, bank, kernels.put(INDEX), neighbors)
    with pytest.raises(IndexError, match=rf"bank_entropy: 'exclude' must be -1 or between 0 and 12, got {bad}"):
        deepclust_ext.bank_entropy(features, bank, place)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("wide", [torch.float32, torch.float64], ids=str)
def test_queries_may_be_of_a_higher_dtype_than_the_bank(dtype, wide, kernels):
    bank, v, index = unit(90, 12).to(dtype), unit(5, 12).to(wide), torch.arange(5)
    got = deepclust_ext.bank_nll_entropy(kernels.put(v), kernels.put(bank), kernels.put(index), temperature=0.2)
    want = reference.bank_nll_entropy(v.double(), bank.double(), index, temperature=0.2)
    tolerance = 1e-12 if wide == torch.float64 else 5e-6
    for a, b in zip(got, want, strict=True):
        assert a.dtype == wide
        torch.testing.assert_close(a.cpu().double(), b, rtol=tolerance, atol=tolerance)


def test_a_bank_by_columns_gives_the_same_bits(kernels):
    bank, v, index = kernels.put(unit(90, 12)), kernels.put(unit(5, 12)), kernels.put(torch.arange(5))
    want = deepclust_ext.bank_nll_entropy(v, bank, index)
    assert all(
        torch.equal(a, b)
        for a, b in zip(deepclust_ext.bank_nll_entropy(v, bank.t().contiguous().t(), index), want, strict=True)
    )


@pytest.mark.cuda
def test_a_cuda_graph_records_losses_and_update():
    """An index beyond the bank cannot be told then: its sample is NaN, and no row changes."""
    if REHEARSED:
        pytest.skip("a graph needs a GPU")
    bank, features = unit(400, 20).cuda(), unit(6, 20).cuda().requires_grad_()
    index, neighbors = torch.arange(6).cuda(), torch.tensor([[7, -1]] * 6).cuda()

    def step():
        nll, entropy = deepclust_ext.bank_nll_entropy(features, bank, index, neighbors)
        grad = torch.autograd.grad(nll.sum() + 0.5 * entropy.sum(), features)[0]
        deepclust_ext.bank_update_(bank, index, features)
        return nll, entropy, grad

    before = bank.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step()
    for new in (torch.arange(6), torch.tensor([9, 9, 3, 399, 9, 3])):
        index.copy_(new)
        bank.copy_(before)
        want, after = step(), bank.clone()
        bank.copy_(before)
        graph.replay()
        assert all(torch.equal(a, b) for a, b in zip(recorded, want, strict=True))
        assert torch.equal(bank, after)
    index.copy_(torch.tensor([0, 400, 2, -1, 4, 5]))
    bank.copy_(before)
    graph.replay()
    bad = torch.tensor([False, True, False, True, False, False])
    assert torch.equal(recorded[0].isnan().cpu(), bad)
    assert torch.equal((bank != before).any(1).cpu(), torch.zeros(400).index_fill(0, torch.tensor([0, 2, 4, 5]), 1) > 0)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("depth", [128, 300])
def test_a_large_bank(depth, dtype, gpu):
    """Many ranges, more tiles of queries than one, a panel and more; no memory that grows with queries x rows."""
    rows, queries = (3_000, 70) if REHEARSED else (400_001, 200)
    generator = torch.Generator(gpu).manual_seed(0)
    normal = [torch.randn(n, depth, generator=generator, device=gpu) for n in (rows, queries)]
    bank, v = torch.nn.functional.normalize(normal[0]).to(dtype), torch.nn.functional.normalize(normal[1])
    v.requires_grad_()
    index = torch.randint(rows, (queries,), generator=generator, device=gpu)
    neighbors = torch.randint(-1, rows, (queries, 3), generator=generator, device=gpu)
    if not REHEARSED:
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    nll, entropy = deepclust_ext.bank_nll_entropy(v, bank, index, neighbors)
    got = torch.autograd.grad(nll.sum() + 2 * entropy.sum(), v)[0]
    if not REHEARSED:
        assert torch.cuda.max_memory_allocated() - held < 64 << 20
    some = slice(0, 20)
    exact = v.detach()[some].double().requires_grad_()
    want = reference.bank_nll_entropy(exact, bank.double(), index[some], neighbors[some])
    grad = torch.autograd.grad(want[0].sum() + 2 * want[1].sum(), exact)[0]
    for a, b in zip((nll, entropy), want, strict=True):
        torch.testing.assert_close(a[some].double(), b, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got[some].double(), grad, rtol=0, atol=1e-4 * grad.abs().max().item())
    again = deepclust_ext.bank_nll_entropy(v, bank, index, neighbors)
    assert torch.equal(again[0], nll)
    assert torch.equal(again[1], entropy)
