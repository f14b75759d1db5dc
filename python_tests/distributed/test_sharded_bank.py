"""nn.MemoryBank with its rows on ranks: rows and Gram matrix of one process bit for bit, losses within rounding."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.nn.functional import normalize

from deepclust_ext.nn import MemoryBank, _shards, memory_bank
from deepclust_ext.ops import augmentation_loss as module

N, D = 53, 6


def batches(world):
    """Samples of every rank in three steps; the first has none in the second step."""
    generator = torch.Generator().manual_seed(3)
    steps = []
    for step in range(3):
        counts = [0 if rank == 0 and step == 1 and world > 1 else 5 + rank for rank in range(world)]
        steps.append(
            [(torch.randint(N, (n,), generator=generator), torch.randn(n, D, generator=generator)) for n in counts]
        )
    return steps


def made(group=None, n=N, **options):
    return MemoryBank(n, D, seed=4, momentum=0.3, temperature=0.2, group=group, **options)


def sharded(group, rank, gram, half):
    """What a rank has after three steps."""
    blocks = module.GRAM_ROWS
    module.GRAM_ROWS = _shards.GRAM_ROWS = memory_bank.GRAM_ROWS = 10  # some lie on two ranks
    try:
        bank = made(group, gram=gram)
        bank = bank.half() if half else bank
        for step in batches(group.size()):
            bank.update(*step[rank])
        again = made(group, gram=gram)
        again = again.half() if half else again
        again.load_state_dict(bank.state_dict())
        again = copy.deepcopy(again)
        kept = None if gram is False else again.gram.clone()
        again.refresh()
        v = normalize(step[rank][1], dim=1).requires_grad_()
        neighbors = (step[rank][0][:, None] + torch.arange(2)) % N
        nll, entropy = again.nll_entropy(v, step[rank][0], neighbors)
        (nll.sum() + entropy.sum()).backward()
        both = [again.nll(v, step[rank][0], neighbors), again.entropy(v, step[rank][0])]
        aug = again.augmentation_loss(v, v.flip(1)) if gram else None
        own = (again.share, again.bank, kept, again.gram, again.whole())
        return own, [t.detach() for t in (nll, entropy, v.grad, *both)], None if aug is None else aug.detach()
    finally:
        module.GRAM_ROWS = _shards.GRAM_ROWS = memory_bank.GRAM_ROWS = blocks


@pytest.mark.parametrize(("gram", "half"), [(True, False), (False, False), (True, True)])
def test_rows_and_gram_matrix_are_those_of_one_process(ranks, gram, half, monkeypatch):
    start = made().bank
    for each in (module, _shards, memory_bank):
        monkeypatch.setattr(each, "GRAM_ROWS", 10)
    assert torch.equal(made().bank, start)
    for world in (1, 2, 3):
        bank = made(gram=gram)
        bank = bank.half() if half else bank
        for step in batches(world):
            bank.update(torch.cat([index for index, _ in step]), torch.cat([rows for _, rows in step]))
        held = []
        for rank, (own, losses, aug) in enumerate(ranks(world, sharded, gram, half)):
            share, rows, kept, refreshed, whole = own
            held.append(share)
            assert torch.equal(rows, bank.bank[share])
            assert torch.equal(whole, bank.bank)
            index = step[rank][0]
            v = normalize(step[rank][1], dim=1).requires_grad_()
            neighbors = (index[:, None] + torch.arange(2)) % N
            expected = bank.nll_entropy(v, index, neighbors)
            sum(each.sum() for each in expected).backward()
            for a, b in zip(losses, (*expected, v.grad, *expected), strict=True):
                torch.testing.assert_close(a, b.detach(), rtol=1e-4, atol=1e-5)
            if gram:
                assert torch.equal(kept, bank.gram)
                fresh = copy.deepcopy(bank)
                fresh.refresh()
                assert torch.equal(refreshed, fresh.gram)
                # With the matrix of the last update and not of this rank's rows alone.
                torch.testing.assert_close(aug, fresh.augmentation_loss(v, v.flip(1)).detach(), rtol=1e-6, atol=1e-6)
        assert [each.start for each in held] == [N * rank // world for rank in range(world)]
        assert held[-1].stop == N


def few(group, rank):
    bank = made(group, n=2, gram=True)
    bank.update(torch.tensor([1]), torch.ones(1, D) * (rank + 1))
    return bank.whole(), bank.gram


def test_a_rank_may_have_no_rows(ranks):
    bank = made(n=2, gram=True)
    bank.update(torch.ones(3, dtype=torch.int64), torch.arange(1, 4)[:, None] * torch.ones(3, D))
    for whole, gram in ranks(3, few):
        assert torch.equal(whole, bank.bank)
        assert torch.equal(gram, bank.gram)


def wrong(group, rank, kind):
    bank = made(group, gram=kind != "gram")
    rows = torch.ones(2, D)
    if kind == "gram":
        return bank.augmentation_loss(rows, rows)
    if kind == "pickle":
        return pickle.dumps(bank)
    index = torch.tensor([0, N if kind == "row" and rank == 1 else 1])
    return bank.update(index.float() if kind == "dtype" and rank == 1 else index, rows)


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("gram", "ValueError", "MemoryBank: 'gram' must be True for augmentation_loss where there is a group"),
        ("pickle", "TypeError", "MemoryBank: 'group' must be None to pickle it; save its state_dict on every rank"),
        ("row", "IndexError", f"'index' must be between 0 and {N - 1}, got {N}"),
        ("dtype", "TypeError", "'index' must be"),
    ],
)
def test_wrong_use_is_an_error_on_every_rank(ranks, kind, error, words):
    for found in ranks.errors(2, wrong, kind):
        assert found[0] == error
        assert words in found[1]
