"""nn.MemoryBank: its start, state, conversions, and the Gram matrix that it keeps."""

from __future__ import annotations

import copy

import pytest
import torch

from deepclust_ext import augmentation_loss, bank_entropy, bank_nll, bank_nll_entropy
from deepclust_ext.nn import MemoryBank
from deepclust_ext.ops.augmentation_loss import bank_gram


def trained(generator, steps=6, **options):
    bank = MemoryBank(60, 8, seed=3, **options)
    for _ in range(steps):
        bank.update(torch.randint(60, (16,), generator=generator), torch.randn(16, 8, generator=generator))
    return bank


def test_starts_from_its_seed_and_leaves_the_global_state_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    bank = MemoryBank(4000, 48, seed=1).bank
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(bank, MemoryBank(4000, 48, seed=1).bank)
    assert not torch.equal(bank, MemoryBank(4000, 48, seed=2).bank)
    scale = (3 / 48) ** 0.5
    assert bank.abs().max() <= scale
    assert bank.abs().max() > 0.99 * scale
    assert bank.norm(dim=1).mean().item() == pytest.approx(1.0, abs=0.01)


def test_default_dtype_and_device_do_not_reach_it():
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(MemoryBank(5, 3).bank, MemoryBank(5, 3).bank.float())
        assert MemoryBank(5, 3).bank.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_methods_are_the_functions(generator):
    bank = MemoryBank(20, 8, temperature=0.3, momentum=0.9)
    v, w = torch.randn(2, 5, 8, generator=generator)
    index, neighbors = torch.tensor([0, 3, 3, 19, 7]), torch.tensor([[1], [-1], [2], [0], [7]])
    rows = bank.bank
    assert torch.equal(bank.nll(v, index, neighbors), bank_nll(v, rows, index, neighbors, temperature=0.3))
    assert torch.equal(bank.entropy(v), bank_entropy(v, rows, temperature=0.3))
    assert torch.equal(bank.entropy(v, index), bank_entropy(v, rows, index, temperature=0.3))
    both = zip(bank.nll_entropy(v, index), bank_nll_entropy(v, rows, index, temperature=0.3), strict=True)
    assert all(torch.equal(a, b) for a, b in both)
    want = augmentation_loss(v, w, rows, temperature=0.3, negative_weight=2)
    assert torch.equal(bank.augmentation_loss(v, w, negative_weight=2), want)


@pytest.mark.parametrize("gram", [False, True])
def test_survives_state_dict_and_copies(gram, generator):
    bank = trained(generator, gram=gram)
    other = MemoryBank(60, 8, gram=gram)
    other.load_state_dict(bank.state_dict())
    for twin in (other, copy.deepcopy(bank)):
        assert all(torch.equal(a, b) for a, b in zip(bank.buffers(), twin.buffers(), strict=True))
        index, v = torch.tensor([1, 1, 5]), torch.randn(3, 8, generator=generator)
        mine = copy.deepcopy(bank)
        mine.update(index, v)
        twin.update(index, v)
        assert all(torch.equal(a, b) for a, b in zip(mine.buffers(), twin.buffers(), strict=True))
    assert list(bank.state_dict()) == (["bank", "gram"] if gram else ["bank"])
    assert not list(bank.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_conversions_keep_the_gram_matrix_right(dtype, generator):
    bank = trained(generator, gram=True).to(dtype)
    assert bank.bank.dtype == dtype
    assert bank.gram.dtype == torch.float64
    assert torch.equal(bank.gram, bank_gram(bank.bank))
    bank.update(torch.tensor([2, 4]), torch.randn(2, 8, generator=generator))
    torch.testing.assert_close(bank.gram, bank.bank.double().T @ bank.bank.double(), rtol=1e-6, atol=1e-5)
    assert bank.nll(torch.randn(2, 8, generator=generator), torch.tensor([0, 1])).dtype == (
        torch.float64 if dtype == torch.float64 else torch.float32
    )


def test_the_gram_matrix_follows_updates(generator):
    """Duplicates count once, with their last row."""
    bank = trained(generator, steps=200, gram=True)
    torch.testing.assert_close(bank.gram, bank.bank.double().T @ bank.bank.double(), rtol=1e-5, atol=1e-4)
    bank.update(torch.tensor([7, 7, 7]), torch.randn(3, 8, generator=generator))
    torch.testing.assert_close(bank.gram, bank.bank.double().T @ bank.bank.double(), rtol=1e-5, atol=1e-4)
    bank.bank[3] = 100.0
    bank.refresh()
    assert torch.equal(bank.gram, bank_gram(bank.bank))
    with pytest.raises(IndexError, match="got 60"):
        bank.update(torch.tensor([60]), torch.ones(1, 8))
    assert torch.equal(bank.gram, bank_gram(bank.bank))
    bank.update(torch.empty(0, dtype=torch.int64), torch.empty(0, 8))


def test_updates_keep_no_graph(generator):
    bank = MemoryBank(10, 4, gram=True)
    v = torch.randn(2, 4, generator=generator, requires_grad=True)
    bank.update(torch.tensor([0, 1]), v * 2)
    assert not any(t.requires_grad for t in bank.buffers())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 0}, ValueError, "MemoryBank: 'size' must be"),
        ({"dim": 2.5}, TypeError, "MemoryBank: 'dim' must be"),
        ({"momentum": 1.1}, ValueError, "MemoryBank: 'momentum' must be between 0 and 1"),
        ({"temperature": 0}, ValueError, "MemoryBank: 'temperature' must be finite and above 0"),
        ({"seed": -1}, ValueError, "MemoryBank: 'seed' must be"),
        ({"gram": 1}, TypeError, "MemoryBank: 'gram' must be True or False"),
    ],
)
def test_errors_name_the_argument(options, error, message):
    with pytest.raises(error, match=message):
        MemoryBank(**({"size": 4, "dim": 2} | options))
