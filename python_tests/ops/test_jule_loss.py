"""jule_loss: what is drawn, known values, degenerate batches, and errors."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepclust_ext import jule_loss, reference
from deepclust_ext.reference import sample_triplets
from deepclust_ext.reference.jule_loss import triplet_loss


def loss_and_grad(z, labels, **kwargs):
    z = z.clone().requires_grad_()
    loss = jule_loss(z, labels, **kwargs)
    return loss.detach(), torch.autograd.grad(loss, z)[0]


def test_by_hand():
    z = torch.tensor([[0.0], [1.0], [1.2]], dtype=torch.float64)
    labels = torch.tensor([3, 3, -8])
    loss, grad = loss_and_grad(z, labels)  # 2 * 1 - 1.44 + .2
    assert loss.item() == pytest.approx(0.76)
    torch.testing.assert_close(grad.flatten(), torch.tensor([-1.6, 4.0, -2.4], dtype=torch.float64))
    # gamma 1, where the published code scaled its anchor in place: 1 - 1.44 + .5
    loss, grad = loss_and_grad(z, labels, gamma=1.0, margin=0.5)
    assert loss.item() == pytest.approx(0.06)
    torch.testing.assert_close(grad.flatten(), torch.tensor([0.4, 2.0, -2.4], dtype=torch.float64))
    loss, grad = loss_and_grad(z, labels, gamma=1.0, margin=0.4)  # below 0
    assert loss.item() == 0
    assert not grad.any()


@pytest.mark.parametrize("labels", [[4] * 6, list(range(6)), [], [7]], ids=["one", "singletons", "empty", "alone"])
def test_without_triplets_loss_and_gradient_are_zero(labels):
    loss, grad = loss_and_grad(torch.randn(len(labels), 3), torch.tensor(labels, dtype=torch.int64))
    assert loss.item() == 0
    assert torch.equal(grad, torch.zeros(len(labels), 3))


def test_a_triplet_at_zero_passes_no_gradient():
    z = torch.tensor([[0.0], [1.0], [-1.0]])
    loss, grad = loss_and_grad(z, torch.tensor([0, 0, 1]), gamma=1.0, margin=0.0)
    assert loss.item() == 0
    assert not grad.any()


def test_nan_shows():
    z = torch.randn(6, 3)
    z[2, 1] = float("nan")
    loss, grad = loss_and_grad(z, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert loss.isnan()
    assert grad.isnan().any()


def test_negatives_are_the_reference_s():
    """With gamma 0 and one-hot rows the gradient counts how often two samples are anchor and negative."""
    for seed, clusters, n_negatives in itertools.product((0, 1, 2**62 + 12345), (2, 5, 30), (1, 20, 1000)):
        labels = torch.arange(50) * 7919 % 101 % clusters
        z = torch.eye(50, dtype=torch.float64)
        _, grad = loss_and_grad(z, labels, gamma=0.0, margin=3.0, n_negatives=n_negatives, generator=seed)
        anchors, _, negatives = sample_triplets(labels, seed, n_negatives)
        counts = torch.zeros(50, 50, dtype=torch.float64).index_put_(
            (anchors, negatives), torch.tensor(1.0).double(), True
        )
        weights = counts + counts.T
        # d/dz of -sum |z_a - z_n|^2 / T, where the rows are unit vectors
        want = 2 / len(anchors) * (weights - torch.diag(weights.sum(1)))
        torch.testing.assert_close(grad, want, rtol=1e-12, atol=1e-15)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 6), max_size=24), st.integers(0, 2**63 - 1), st.integers(1, 30))
def test_triplets_are_what_they_should_be(labels, seed, n_negatives):
    labels = torch.tensor(labels, dtype=torch.int64)
    anchors, positives, negatives = sample_triplets(labels, seed, n_negatives)
    k = max(0, min(n_negatives, len(labels.unique()) - 1))
    pairs = [(a, p) for a, p in itertools.combinations(range(len(labels)), 2) if labels[a] == labels[p]]
    assert list(zip(anchors.tolist(), positives.tolist(), strict=True)) == [pair for pair in pairs for _ in range(k)]
    assert (labels[anchors] != labels[negatives]).all()
    for chosen in negatives.view(len(pairs), k) if k else ():
        assert len(set(chosen.tolist())) == k
    z = torch.randn(len(labels), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed % 2**31))
    want = triplet_loss(z, anchors, positives, negatives, gamma=1.3)
    got = jule_loss(z, labels, gamma=1.3, n_negatives=n_negatives, generator=seed)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-15)


def test_every_set_of_negatives_is_equally_likely():
    """Sets of 2 of 5 others, for two pairs at once: chi square over the 10 sets, and over the 100 pairs of sets."""
    labels = torch.tensor([0, 1, 0, 2, 3, 3, 0])
    draws = 4000
    sets: Counter[frozenset[int]] = Counter()
    both: Counter[tuple[frozenset[int], frozenset[int]]] = Counter()
    for seed in range(draws):
        negatives = sample_triplets(labels, seed, 2)[2].view(-1, 2).tolist()
        first, second = frozenset(negatives[0]), frozenset(negatives[1])  # of the pairs (0, 2) and (0, 6)
        sets[first] += 1
        both[first, second] += 1
    everything = [frozenset(c) for c in itertools.combinations((1, 3, 4, 5), 2)]
    assert set(sets) == set(everything)
    expected = draws / len(everything)
    # 5 and 35 degrees of freedom: the probabilities of more are 1e-4.
    assert sum((n - expected) ** 2 / expected for n in sets.values()) < 25.7
    expected /= len(everything)
    assert sum((both[x, y] - expected) ** 2 / expected for x in everything for y in everything) < 76.4


def test_generators_and_seeds():
    z, labels = torch.randn(40, 8), torch.arange(40) % 7

    def loss(generator):
        return jule_loss(z, labels, generator=generator).item()

    assert loss(5) == loss(5) != loss(6)
    generator = torch.Generator().manual_seed(3)
    first, second = loss(generator), loss(generator)
    assert first != second
    assert [first, second] == [loss(generator.manual_seed(3)), loss(generator)]
    torch.manual_seed(3)
    assert loss(None) == first  # torch's default generator, and the same stream
    seed = int(torch.randint(2**63 - 1, (), generator=generator.manual_seed(3)))
    assert loss(seed) == first
    assert reference.jule_loss(z, labels, generator=generator.manual_seed(3)).item() == pytest.approx(first, rel=1e-6)


def test_vmap_asks_for_a_kind_of_randomness_where_it_must_draw():
    z, labels = torch.randn(3, 20, 4), torch.arange(20) % 4
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(lambda t: jule_loss(t, labels))(z)
    different = torch.func.vmap(lambda t: jule_loss(t, labels), randomness="different")(z[:1].expand(3, 20, 4))
    assert len(set(different.tolist())) == 3
    same = torch.func.vmap(lambda t: jule_loss(t, labels), randomness="same")(z[:1].expand(3, 20, 4))
    assert len(set(same.tolist())) == 1
    by_label = torch.func.vmap(lambda t: jule_loss(z[0], t, generator=1))(torch.stack([labels, labels.flip(0) * 0]))
    assert by_label.tolist() == [jule_loss(z[0], labels, generator=1).item(), 0.0]


@pytest.mark.slow
def test_compiled_calls_draw_anew():
    z, labels = torch.randn(40, 8), torch.arange(40) % 7
    compiled = torch.compile(lambda t: jule_loss(t, labels), fullgraph=True)
    assert len({compiled(z).item() for _ in range(4)}) == 4


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda z, y: jule_loss([[1.0]], y), TypeError, r"jule_loss: 'z' must be a torch.Tensor, got list"),
        (lambda z, y: jule_loss(z.long(), y), TypeError, r"jule_loss: 'z' must be float16, .* got torch.int64"),
        (lambda z, y: jule_loss(z[0], y), ValueError, r"'z' must have shape \(B, d\) with d >= 1, got \(3,\)"),
        (lambda z, y: jule_loss(z[:, :0], y), ValueError, r"'z' must have shape \(B, d\) with d >= 1, got \(6, 0\)"),
        (lambda z, y: jule_loss(z, y.int()), TypeError, r"'labels' must be an int64 tensor, got torch.int32; .*long"),
        (lambda z, y: jule_loss(z, [1]), TypeError, r"'labels' must be an int64 tensor, got list; .*torch.tensor"),
        (lambda z, y: jule_loss(z, y[:4]), ValueError, r"'labels' must have shape \(6,\), got \(4,\)"),
        (lambda z, y: jule_loss(z, y.to("meta")), ValueError, r"'labels' must be on z's device cpu, got meta"),
        (lambda z, y: jule_loss(z, y, gamma=-1), ValueError, r"'gamma' must be finite and at least 0, got -1"),
        (lambda z, y: jule_loss(z, y, margin=float("nan")), ValueError, r"'margin' must be finite and at least 0"),
        (lambda z, y: jule_loss(z, y, n_negatives=0), ValueError, r"'n_negatives' must be at least 1, got 0"),
        (lambda z, y: jule_loss(z, y, n_negatives=1025), ValueError, r"'n_negatives' must be at most 1024, got 1025"),
        (lambda z, y: jule_loss(z, y, n_negatives=2.0), TypeError, r"'n_negatives' must be a whole number, got 2.0"),
        (lambda z, y: jule_loss(z, y, generator="a"), TypeError, r"'generator' must be a torch.Generator, an int or"),
        (lambda z, y: jule_loss(z, y, generator=True), TypeError, r"'generator' must be a torch.Generator, an int or"),
        (lambda z, y: jule_loss(z, y, generator=-1), ValueError, r"'generator' must be at least 0, got -1"),
        (lambda z, y: jule_loss(z, y, generator=2**63), ValueError, r"'generator' must be below 9223372036854775808"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.randn(6, 3), torch.tensor([0, 0, 1, 1, 2, 2]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.zeros(5, dtype=torch.int64)}, "'labels' must be int64 with one entry"),
        ({"labels": torch.zeros(6)}, "'labels' must be int64"),
        ({"seed": torch.zeros(2, dtype=torch.int64)}, "'seed' must be one int64"),
        ({"seed": torch.zeros(())}, "'seed' must be one int64"),
        ({"gamma": -0.1}, "'gamma' must be finite and at least 0"),
        ({"margin": float("inf")}, "'margin' must be finite and at least 0"),
        ({"n_negatives": 0}, "'n_negatives' must be between 1 and 1024"),
        ({"n_negatives": 1025}, "'n_negatives' must be between 1 and 1024"),
        ({"z": torch.zeros(6, 0)}, "'z' must be at least one column wide"),
        ({"z": torch.zeros(6)}, "'z' must be a floating-point matrix"),
    ],
)
def test_the_raw_op_checks_too(change, message):
    arguments = {"z": torch.zeros(6, 3), "labels": torch.zeros(6, dtype=torch.int64), "seed": torch.tensor(0)}
    arguments |= {"gamma": 1.0, "margin": 0.2, "n_negatives": 3, **change}
    with pytest.raises(RuntimeError, match=f"jule_loss: {message}"):
        torch.ops.deepclust.jule_loss(*arguments.values())


def test_nothing_of_the_size_of_the_triplets_is_allocated():
    """2.4 million triplets: their rows would be 1.8 GB, three indices each 57 MB."""
    code = """
import resource, torch, deepclust_ext
z, labels = torch.randn(2400, 64, requires_grad=True), torch.arange(2400) % 6
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
deepclust_ext.jule_loss(z, labels).backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(output) < 64
