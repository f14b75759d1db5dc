"""bank_nll, bank_entropy and bank_nll_entropy: edges, properties, errors, memory."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import deepclust_ext
from deepclust_ext import bank_entropy, bank_nll, bank_nll_entropy, reference


def setting(generator, b=6, n=40, d=8, dtype=torch.float64):
    v, bank = (torch.nn.functional.normalize(torch.randn(k, d, generator=generator, dtype=dtype)) for k in (b, n))
    return v, bank, torch.randint(n, (b,), generator=generator)


def with_grads(call, v):
    """The losses of `call(v)`, and of each its gradient."""
    leaf = v.clone().requires_grad_()
    losses = call(leaf)
    losses = losses if isinstance(losses, tuple) else (losses,)
    return [(t.detach(), torch.autograd.grad(t.sum(), leaf, retain_graph=True)[0]) for t in losses]


def test_a_bank_of_one_row(generator):
    """p is 1, and without the row nothing is left: losses and gradients are 0, not NaN."""
    v, bank, index = setting(generator, n=1, dtype=torch.float32)
    for values in with_grads(lambda t: bank_nll_entropy(t, bank, index), v):
        assert all(torch.equal(value, torch.zeros_like(value)) for value in values)
    assert torch.equal(bank_entropy(v, bank), torch.zeros(6))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_a_temperature_of_a_hundredth(generator, dtype):
    """Logits of 100 overflow exp in float16 and float32; p of other rows underflows, its log does not."""
    v, bank, index = setting(generator)
    v, bank = v.to(dtype), bank.to(dtype)
    own = bank[index].clone()
    for queries in (v, own, -own):
        got = with_grads(lambda t: bank_nll_entropy(t, bank, index, temperature=0.01), queries)
        exact = with_grads(
            lambda t: reference.bank_nll_entropy(t, bank.double(), index, temperature=0.01), queries.double()
        )
        for (loss, grad), (want, want_grad) in zip(got, exact, strict=True):
            torch.testing.assert_close(loss.double(), want, rtol=1e-5, atol=2e-5 if dtype != torch.float64 else 1e-11)
            scale = want_grad.abs().max().item()
            torch.testing.assert_close(grad.double(), want_grad, rtol=0, atol=0.01 * scale + 1e-6)
    nll, _ = bank_nll_entropy(-own, bank, index, temperature=1e-4)
    assert nll.isfinite().all()
    assert (nll > 1e3).all()  # where p is 0 in every dtype, -log p is not infinite


def test_a_loss_near_zero_keeps_its_digits():
    """lse - l would be 0 or rounding here."""
    bank = torch.tensor([[1.0], [-1.0]])
    nll = bank_nll(torch.ones(1, 1), bank, torch.tensor([0]), temperature=0.05)
    assert nll.item() == pytest.approx(math.log1p(math.exp(-40)), rel=1e-5)


def test_the_left_out_row_is_out_of_the_maximum_too():
    """Its own logit is 400 above the others: their softmax must not underflow."""
    bank = torch.cat([torch.full((1, 2), 200.0), torch.eye(2), torch.zeros(1, 2)])
    v, index = torch.ones(1, 2), torch.tensor([0])
    got = bank_entropy(v, bank, index, temperature=1.0)
    torch.testing.assert_close(got.double(), reference.bank_entropy(v.double(), bank.double(), index, temperature=1.0))
    assert bank_entropy(v, bank, temperature=1.0).item() == 0.0


def test_whole_tiles_of_tiny_weights_and_a_late_maximum():
    """The largest logit comes last, after rows of any size: sums are rescaled, and what is tiny becomes 0."""
    logits = torch.cat([torch.linspace(-3e4, -200, 3000), torch.linspace(-90, 5, 1200), torch.tensor([7.0, 6.0])])
    bank = torch.stack([logits, torch.linspace(-1, 1, len(logits))], 1).double()
    v, index = torch.tensor([[1.0, 0.5], [-1.0, 0.5]], dtype=torch.float64), torch.tensor([4201, 4200])
    exact = with_grads(lambda t: reference.bank_nll_entropy(t, bank, index, temperature=1.0), v)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 3e-5)):
        got = with_grads(
            lambda t, dtype=dtype: bank_nll_entropy(t, bank.to(dtype), index, temperature=1.0), v.to(dtype)
        )
        for pair, want in zip(got, exact, strict=True):
            for a, b in zip(pair, want, strict=True):
                torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance * b.abs().max().item())


def test_every_row_can_be_left_out(generator):
    """The first and the last rows of tiles and chunks among them, in any order."""
    _, bank, _ = setting(generator, n=2200, d=3)
    index = torch.randperm(2200, generator=generator)
    got = with_grads(lambda t: bank_nll_entropy(t, bank, index, temperature=0.3), bank[index])
    want = with_grads(lambda t: reference.bank_nll_entropy(t, bank, index, temperature=0.3), bank[index])
    for pair, exact in zip(got, want, strict=True):
        for a, b in zip(pair, exact, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_neighbours_are_a_set(generator):
    """Repeats, the own row, and -1 change nothing; their order changes no bit."""
    v, bank, index = setting(generator, dtype=torch.float32)
    pair = torch.stack([index.roll(1), index.roll(2)], 1)
    want = with_grads(lambda t: bank_nll(t, bank, index, pair), v)[0]
    more = torch.stack([index, pair[:, 1], torch.full_like(index, -1), pair[:, 0], pair[:, 1]], 1)
    for neighbors in (more, more.flip(1)):
        got = with_grads(lambda t, neighbors=neighbors: bank_nll(t, bank, index, neighbors), v)[0]
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    alone = with_grads(lambda t: bank_nll(t, bank, index), v)[0]
    for neighbors in (torch.full((6, 2), -1), index.unsqueeze(1), torch.empty(6, 0, dtype=torch.int64)):
        got = with_grads(lambda t, neighbors=neighbors: bank_nll(t, bank, index, neighbors), v)[0]
        assert all(torch.equal(a, b) for a, b in zip(got, alone, strict=True))


def test_all_rows_as_neighbours_leave_no_loss(generator):
    v, bank, index = setting(generator, n=9, dtype=torch.float32)
    loss, grad = with_grads(lambda t: bank_nll(t, bank, index, torch.arange(9).expand(6, 9)), v)[0]
    assert (loss >= 0).all()
    assert loss.max() < 1e-6
    assert grad.abs().max() < 1e-5


def test_one_pass_and_two_give_the_same_bits(generator):
    v, bank, index = setting(generator, b=20, n=5000, d=17, dtype=torch.float32)
    both = with_grads(lambda t: bank_nll_entropy(t, bank, index), v)
    alone = [*with_grads(lambda t: bank_nll(t, bank, index), v), *with_grads(lambda t: bank_entropy(t, bank, index), v)]
    assert all(torch.equal(a, b) for x, y in zip(both, alone, strict=True) for a, b in zip(x, y, strict=True))
    with torch.no_grad():
        for loss, (kept, _) in zip(bank_nll_entropy(v, bank, index), both, strict=True):
            assert torch.equal(loss, kept)


def test_the_same_sample_twice_gives_the_same_bits(generator):
    """Wherever it stands in the batch, in whichever lane."""
    v, bank, index = setting(generator, b=1, n=300, dtype=torch.float32)
    rows = with_grads(lambda t: bank_nll_entropy(t, bank, index.expand(29)), v.expand(29, 8))
    assert all(torch.equal(t, t[:1].expand_as(t)) for pair in rows for t in pair)


def test_identical_rows_are_uniform():
    v, bank = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.ones(1000, 4)
    (nll, _), (entropy, slope) = with_grads(lambda t: bank_nll_entropy(t, bank, torch.tensor([0, 5, 999])), v)
    torch.testing.assert_close(nll, torch.full((3,), math.log(1000)))
    torch.testing.assert_close(entropy, torch.full((3,), math.log(999)))
    assert slope.abs().max() < 1e-4


def test_mixed_dtypes(generator):
    """The bank stays as it is: a float64 query of a float16 bank sums in float64."""
    v, bank, index = setting(generator)
    half = bank.half()
    want = reference.bank_nll_entropy(v, half.double(), index)
    for got, exact in zip(bank_nll_entropy(v, half, index), want, strict=True):
        assert got.dtype == torch.float64
        torch.testing.assert_close(got, exact, rtol=1e-12, atol=1e-12)
    assert bank_nll(v.bfloat16(), half, index).dtype == torch.float32
    assert bank_nll(v.half(), bank, index).dtype == torch.float64
    leaf = v.half().requires_grad_()
    bank_nll(leaf, bank.float(), index).sum().backward()
    assert leaf.grad.dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_half_types_of_every_value_are_read_right(dtype):
    """All 65536 numbers but infinities and NaN, subnormals among them, as rows of a bank."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    bank = bits.view(dtype if dtype != torch.float32 else torch.float16).to(dtype).unsqueeze(1)
    bank = bank[bank.isfinite().squeeze(1) & (bank.abs() < 1e30).squeeze(1)]
    spread = bank.float().abs().max().item()
    v = torch.tensor([[1.0], [-1.0]]) / spread
    exact = with_grads(lambda t: reference.bank_entropy(t, bank.double(), temperature=0.3), v.double())[0]
    got = with_grads(lambda t: bank_entropy(t, bank, temperature=0.3), v)[0]
    for a, b in zip(got, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)


def test_strides_of_the_bank_change_no_bit(generator):
    v, bank, index = setting(generator, n=300, dtype=torch.float32)
    want = with_grads(lambda t: bank_nll_entropy(t, bank, index), v)
    wide = torch.full((600, 17), torch.nan)
    wide[::2, 1::2] = bank
    for strided in (bank.T.contiguous().T, wide[::2, 1::2]):
        got = with_grads(lambda t, strided=strided: bank_nll_entropy(t, strided, index), v)
        assert all(torch.equal(a, b) for x, y in zip(got, want, strict=True) for a, b in zip(x, y, strict=True))


def test_nan_and_infinity_show(generator):
    v, bank, index = setting(generator, n=300, dtype=torch.float32)
    for bad in (torch.nan, torch.inf):
        spoilt = bank.clone()
        spoilt[200, 3] = bad
        for loss, grad in with_grads(lambda t, spoilt=spoilt: bank_nll_entropy(t, spoilt, index), v.abs()):
            assert loss.isnan().all()
            assert grad.isnan().any()
        queries = v.clone()
        queries[2, 1] = bad
        for loss, _ in with_grads(lambda t: bank_nll_entropy(t, bank, index), queries):
            assert loss[2].isnan()
            assert loss[[0, 1, 3, 4, 5]].isfinite().all()


def test_payloads_of_nan_survive():
    """A NaN with every bit set must not become a number on its way through 2^x."""
    bank = torch.zeros(120, 2)
    bank[50] = torch.tensor([0x7FFFFFFF, 0x7FFFFFFF], dtype=torch.int32).view(torch.float32)
    assert bank_entropy(torch.ones(3, 2), bank).isnan().all()


def test_powers_of_two_match_reference():
    """2^x within 2 ulp: one weight of a softmax is 2^x / (1 + 2^x), with the sum across two tiles in double."""
    x = torch.cat([-torch.rand(4000, generator=torch.Generator().manual_seed(0)) * 125.9, torch.tensor([-200.0, -1e4])])
    x = x.clamp_max(-0.01)
    filler = 1e6  # its weight is 0
    bank = torch.full((97, 2), filler)
    bank[:, 1] = 0
    bank[1], bank[96] = torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0])
    v = torch.stack([x, torch.zeros_like(x)], 1).requires_grad_()
    temperature = 1 / math.log(2)
    loss = bank_nll(v, bank, torch.zeros(len(x), dtype=torch.int64), temperature=temperature)
    (grad,) = torch.autograd.grad(loss.sum(), v)
    got, power = grad[:, 1].double() * temperature, torch.exp2(x.double())
    want = power / (1 + power)
    normal = x >= -126
    assert ((got - want).abs() <= 2 * 2.0**-23 * want)[normal].all()
    assert (got[~normal] == 0).all()


@settings(max_examples=40, deadline=None)
@given(
    b=st.integers(1, 20), n=st.integers(1, 300), d=st.integers(1, 20), m=st.integers(0, 4), seed=st.integers(0, 2**31),
    temperature=st.floats(0.02, 5),
)  # fmt: skip
def test_properties(b, n, d, m, seed, temperature):
    generator = torch.Generator().manual_seed(seed)
    v, bank, index = setting(generator, b, n, d)
    neighbors = torch.randint(-1, n, (b, m), generator=generator)
    nll, entropy = bank_nll_entropy(v, bank, index, neighbors, temperature=temperature)
    assert (nll >= 0).all()
    assert (nll <= bank_nll(v, bank, index, temperature=temperature) + 1e-12).all()  # more rows are right
    assert (entropy >= -1e-12).all()
    assert (entropy <= math.log(max(1, n - 1)) + 1e-12).all()
    order = torch.randperm(n, generator=generator)
    place = torch.empty_like(order)
    place[order] = torch.arange(n)
    moved = torch.where(neighbors < 0, neighbors, place[neighbors])
    again = bank_nll_entropy(v, bank[order], place[index], moved, temperature=temperature)
    torch.testing.assert_close(again, (nll, entropy), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("n", "b", "d"), [(4200, 33, 16), (97, 200, 5)])
def test_same_bits_for_any_number_of_threads(n, b, d, generator, threads):
    v, bank, index = setting(generator, b, n, d, dtype=torch.float32)
    found = []
    for count in (1, 2, 3):
        threads(count)
        found.append(with_grads(lambda t: bank_nll_entropy(t, bank.half(), index), v))
    for other in found[1:]:
        assert all(torch.equal(a, b) for x, y in zip(other, found[0], strict=True) for a, b in zip(x, y, strict=True))


def test_vmap_over_banks(generator):
    """A bank for each item of the batch, and one for all."""
    v, bank, index = setting(generator)
    banks, many = torch.stack([bank, bank.flip(0)]), torch.stack([v, v.flip(0)])
    mapped = torch.vmap(lambda t, rows: bank_nll_entropy(t, rows, index))(many, banks)
    alone = [bank_nll_entropy(t, rows, index) for t, rows in zip(many, banks, strict=True)]
    for i, name in enumerate(("nll", "entropy")):
        torch.testing.assert_close(mapped[i], torch.stack([pair[i] for pair in alone]), msg=name)
    shared = torch.vmap(lambda t, own: bank_nll(t, bank, own), in_dims=(0, 1))(many, torch.stack([index, index], 1))
    torch.testing.assert_close(shared, torch.stack([bank_nll(t, bank, index) for t in many]))


def test_a_bank_that_is_updated_before_backward_changes_no_gradient(generator):
    """Nothing of the bank is kept for the backward pass."""
    v, bank, index = setting(generator)
    want = with_grads(lambda t: bank_nll(t, bank, index), v)[0][1]
    leaf = v.clone().requires_grad_()
    loss = bank_nll(leaf, bank, index)
    deepclust_ext.bank_update_(bank, index, leaf)
    loss.sum().backward()
    assert torch.equal(leaf.grad, want)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"v": [[1.0]]}, TypeError, r"bank_nll: 'v' must be a torch.Tensor, got list"),
        ({"bank": torch.ones(3, 2, dtype=torch.int64)}, TypeError, r"'bank' must be float16, .* got torch.int64"),
        ({"bank": torch.ones(3)}, ValueError, r"'bank' must have shape \(N, d\)"),
        ({"bank": torch.ones(0, 2)}, ValueError, r"'bank' must have shape \(N, d\) with N >= 1"),
        ({"v": torch.ones(2, 3)}, ValueError, r"'v' must have shape \(B, 2\) as 'bank' has, got \(2, 3\)"),
        ({"index": torch.zeros(2)}, TypeError, r"'index' must be int64, got torch.float32"),
        ({"index": torch.zeros(3, dtype=torch.int64)}, ValueError, r"'index' must have shape \(2,\)"),
        ({"index": torch.tensor([0, 3])}, IndexError, r"bank_nll: 'index' must be between 0 and 2, got 3"),
        ({"index": torch.tensor([0, -1])}, IndexError, r"bank_nll: 'index' must be between 0 and 2, got -1"),
        ({"neighbors": torch.tensor([[0], [3]])}, IndexError, r"bank_nll: 'neighbors' must be .* 2, got 3"),
        ({"neighbors": torch.tensor([0, 3])}, ValueError, r"'neighbors' must have shape \(2, m\)"),
        ({"bank": torch.ones(3, 2, device="meta")}, ValueError, r"'bank' must be on v's device cpu, got meta"),
        ({"temperature": 0}, ValueError, r"'temperature' must be finite and above 0, got 0"),
        ({"temperature": -0.1}, ValueError, r"'temperature' must be"),
        ({"temperature": float("nan")}, ValueError, r"'temperature' must be"),
        ({"temperature": "warm"}, TypeError, r"'temperature' must be a number"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    given = {"v": torch.ones(2, 2), "bank": torch.ones(3, 2), "index": torch.tensor([0, 1]), "neighbors": None} | change
    for requires_grad in (False, True):
        if isinstance(given["v"], torch.Tensor):
            given["v"] = given["v"].clone().requires_grad_(requires_grad)
        with pytest.raises(error, match=message):
            bank_nll(**given)


def test_bank_entropy_names_exclude():
    v, bank = torch.ones(2, 2), torch.ones(3, 2)
    with pytest.raises(IndexError, match=r"bank_entropy: 'exclude' must be -1 or between 0 and 2, got 7"):
        bank_entropy(v, bank, torch.tensor([-1, 7]))
    with pytest.raises(IndexError, match=r"got -2"):
        bank_entropy(v, bank, torch.tensor([-2, 1]))
    assert torch.equal(bank_entropy(v, bank, torch.tensor([-1, -1])), bank_entropy(v, bank))


@pytest.mark.parametrize("number", [1, np.float32(1), np.int64(1)], ids=lambda x: type(x).__name__)
def test_any_real_number_is_a_temperature(number, generator):
    v, bank, index = setting(generator)
    assert torch.equal(bank_nll(v, bank, index, temperature=number), bank_nll(v, bank, index, temperature=1.0))


def test_nothing_of_size_b_n_is_allocated():
    """One B x N float32 matrix would be 256 MB here."""
    code = """
import resource, torch, deepclust_ext
bank, index = torch.empty(500_000, 128).uniform_(-0.15, 0.15), torch.arange(128)
v = bank[:128].clone().requires_grad_()
sum(loss.sum() for loss in deepclust_ext.bank_nll_entropy(v, bank[:200], index)).backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sum(loss.sum() for loss in deepclust_ext.bank_nll_entropy(v, bank, index)).backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(output) < 64
