"""The terms of VCAMI's objective: each against a spelled-out float64 version, its sign, its edges."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from deepclust_ext import gmm_kl_loss
from deepclust_ext.methods import vcami_terms as terms
from deepclust_ext.training.seeds import derive_generator


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Negatives


@pytest.mark.parametrize("n", [2, 3, 4, 17, 250])
def test_a_derangement_has_no_fixed_point_and_everyone_once(n):
    for step in range(20):
        others = terms.derangement(n, derive_generator(0, "negatives", 0, step))
        assert (others != torch.arange(n)).all()
        assert torch.equal(others.sort().values, torch.arange(n))


def test_derangements_are_one_cycle_each_equally_often():
    generator = torch.Generator().manual_seed(0)
    found = [tuple(terms.derangement(4, generator).tolist()) for _ in range(3000)]
    cycles = {p for p in itertools.permutations(range(4)) if {p[0], p[p[0]], p[p[p[0]]]} == {1, 2, 3}}
    assert set(found) == cycles
    assert len(cycles) == 6
    assert all(400 < found.count(cycle) < 600 for cycle in cycles)


def test_derangements_come_from_the_place():
    places = [(0, 0), (0, 1), (1, 0)]
    drawn_at = [terms.derangement(50, derive_generator(3, "negatives", *place)) for place in places]
    again = [terms.derangement(50, derive_generator(3, "negatives", *place)) for place in places]
    assert all(torch.equal(a, b) for a, b in zip(drawn_at, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(drawn_at, 2))


@pytest.mark.parametrize("n", [0, 1])
def test_one_image_has_no_negatives(n):
    with pytest.raises(ValueError, match=f"a batch must have at least 2 images, got {n}"):
        terms.derangement(n, torch.Generator())


# The bounds


def log_sigmoid(t):
    return -math.log1p(math.exp(-t))


def test_the_bound_is_the_posters():
    positive, negative = drawn(7), drawn(7, 3, seed=1)
    want = sum(log_sigmoid(t) for t in positive.tolist()) / 7
    want += sum(math.log(1 - 1 / (1 + math.exp(-t))) for t in negative.flatten().tolist()) / 21
    assert terms.jsd_bound(positive, negative).item() == pytest.approx(want, rel=1e-6)
    assert gradcheck(terms.jsd_bound, (drawn(5).requires_grad_(), drawn(5, seed=1).requires_grad_()))


def test_the_bound_rises_with_right_scores_and_stays_finite():
    zero = torch.zeros(3)
    assert terms.jsd_bound(zero, zero).item() == pytest.approx(-2 * math.log(2))
    assert terms.jsd_bound(zero + 1, zero - 1) > terms.jsd_bound(zero, zero) > terms.jsd_bound(zero - 1, zero + 1)
    far = torch.tensor([1e4], requires_grad=True)
    bound = terms.jsd_bound(-far, far)
    bound.backward()
    assert bound.item() == pytest.approx(-2e4)
    assert far.grad.isfinite().all()


def test_the_dot_bound_is_the_bound_over_all_pairs():
    codes, maps = drawn(4, 3), drawn(4, 2, 3, seed=1)
    scores = torch.einsum("iu,jlu->ijl", codes, maps)
    own = torch.eye(4, dtype=torch.bool)
    torch.testing.assert_close(terms.dot_bound(codes, maps), terms.jsd_bound(scores[own], scores[~own]).double())


# The information of labels


def information(p, q):
    joint = p.T @ q / len(p)
    joint = (joint + joint.T) / 2
    marginals = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return (joint * (joint / marginals).log()).sum()


def test_the_information_of_two_views_is_positive_where_they_agree():
    p, q = (3 * drawn(40, 5, seed=seed) for seed in (0, 1))
    p, q = p.softmax(1), q.softmax(1)
    torch.testing.assert_close(terms.category_information(p, q), information(p, q))
    labels = torch.eye(4).repeat(5, 1)
    assert terms.category_information(labels, labels).item() == pytest.approx(math.log(4), rel=1e-6)
    one = torch.eye(4)[[0]].repeat(5, 1)
    assert terms.category_information(one, one).item() == pytest.approx(0, abs=1e-6)


# The regulariser


def test_the_divergence_from_uniform_is_torchs():
    p = drawn(6, 5).softmax(1)
    want = torch.distributions.kl_divergence(
        torch.distributions.Categorical(p), torch.distributions.Categorical(torch.full((6, 5), 0.2).double())
    )
    torch.testing.assert_close(terms.divergence_from_uniform(p), want.mean())
    assert gradcheck(lambda x: terms.divergence_from_uniform(x.softmax(1)), drawn(4, 3).requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_classes_without_probability(dtype):
    logits = torch.tensor([[0.0, -2000.0, -2000.0], [5.0, 5.0, -2000.0]], dtype=dtype, requires_grad=True)
    p = logits.softmax(1)
    assert (p == 0).sum() == 3
    divergence = terms.divergence_from_uniform(p)
    divergence.backward()
    assert divergence.item() == pytest.approx((math.log(3) + math.log(1.5)) / 2)
    assert logits.grad.isfinite().all()
    assert terms.divergence_from_uniform(torch.full((2, 4), 0.25)).item() == pytest.approx(0, abs=1e-7)


# The objective

SIGNS = {"gmi": -1, "lmi": -1, "cmi": -1, "gmm": 1, "reg": 1}


@pytest.mark.parametrize("name", SIGNS)
def test_every_term_has_its_sign_and_its_weight(name):
    found = {each: torch.tensor(0.5 + i, requires_grad=True) for i, each in enumerate(SIGNS)}
    weights = {each: 2.0 + i for i, each in enumerate(SIGNS)}
    loss = terms.objective(found, weights)
    assert loss.item() == pytest.approx(sum(SIGNS[each] * weights[each] * (0.5 + i) for i, each in enumerate(SIGNS)))
    loss.backward()
    assert found[name].grad.item() == SIGNS[name] * weights[name]
    assert terms.objective({name: found[name]}, weights).item() == SIGNS[name] * weights[name] * found[name].item()


def train(loss, *parameters, steps=60):
    optimizer = torch.optim.Adam(parameters, lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


@pytest.mark.parametrize("name", SIGNS)
def test_minimising_the_objective_moves_each_term_the_right_way(name):
    """Of networks this small every term alone is learnt: more information, less divergence."""
    torch.manual_seed(0)
    x = drawn(12, 3).float()
    net, other = nn.Linear(3, 4), nn.Linear(3, 4)
    means, log_variances = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.zeros(4, 4))
    cycle = terms.derangement(12, torch.Generator().manual_seed(0))

    def term():
        codes, labels = net(x), net(x).softmax(1)
        if name == "gmi":
            return terms.jsd_bound((codes * other(x)).sum(1), (codes[cycle] * other(x)).sum(1))
        if name == "lmi":
            return terms.dot_bound(codes, other(x)[:, None])
        if name == "cmi":
            return terms.category_information(labels, other(x).softmax(1))
        if name == "gmm":
            return gmm_kl_loss(codes, torch.zeros_like(codes), labels, means, log_variances)
        return terms.divergence_from_uniform(4 * labels - 3 * labels.detach())

    before = term().item()
    train(lambda: terms.objective({name: term()}, {name: 1.0}), *net.parameters(), *other.parameters(), means)
    assert (term().item() - before) * SIGNS[name] < -0.01
