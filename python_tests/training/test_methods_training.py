"""The parts of the training loop: seeds, order, learning rate, optimizer, statistics, configurations."""

from __future__ import annotations

import itertools
import re
import types
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score
from torch.nn.functional import one_hot

from deepclust_ext._isolation import own_torch_state
from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.methods import DHOG, load_config
from deepclust_ext.methods.configs import config_names
from deepclust_ext.methods.dhog import DHOGLearner
from deepclust_ext.training.agreement import information_of_counts, information_of_labels
from deepclust_ext.training.optim import build_optimizer
from deepclust_ext.training.place import Place, cosine, inverse_decay, scheduled, steps
from deepclust_ext.training.progress import Progress, figures_of
from deepclust_ext.training.seeds import (
    derive_generator,
    derive_seed,
    seed_default_generators,
)
from deepclust_ext.training.visits import EpochOrder
from deepclust_ext.training.watch import Watch, collapsed_heads

CPU = torch.device("cpu")

# Seeds


def test_every_place_has_a_seed_of_its_own():
    places = [
        (seed, purpose, epoch, step)
        for seed in (0, 1)
        for purpose in ("order", "augment")
        for epoch in range(12)
        for step in range(12)
    ]
    assert len({derive_seed(*place) for place in places}) == len(places)
    # 1, 11 and 11, 1 must not be joined to the same key.
    assert derive_seed(0, "order", 1, 11) != derive_seed(0, "order", 11, 1)
    assert all(0 <= derive_seed(*place) < 2**63 for place in places)


def test_seeds_are_the_same_in_every_process():
    # A literal, since a hash that is salted per process would agree with itself.
    assert derive_seed(0, "order", 1) == 610367673687440295
    assert torch.equal(
        torch.rand(3, generator=derive_generator(0, "x")), torch.rand(3, generator=derive_generator(0, "x"))
    )


def test_isolation_puts_the_global_state_back():
    before = torch.random.get_rng_state()
    with own_torch_state(CPU):
        seed_default_generators(3, CPU)
        first = torch.rand(2)
        seed_default_generators(3, CPU)
        assert torch.equal(torch.rand(2), first)
    assert torch.equal(torch.random.get_rng_state(), before)


# Order


@pytest.mark.parametrize(("n", "size", "batches"), [(10, 3, 3), (9, 3, 3), (3, 10, 1), (2, 2, 1)])
def test_an_epoch_visits_each_image_at_most_once(n, size, batches):
    order = EpochOrder(n, size)
    drawn = order.batches(torch.randperm(n, generator=derive_generator(0, "order")))
    assert order.n_batches == batches
    assert drawn.shape == (batches, min(n, size))
    assert len(set(drawn.flatten().tolist())) == drawn.numel()


def test_no_image_is_left_out_for_good():
    order = EpochOrder(10, 8)
    seen = {
        int(i)
        for epoch in range(6)
        for i in order.batches(torch.randperm(10, generator=derive_generator(0, "order", epoch))).flatten()
    }
    assert seen == set(range(10))


# Learning rate and optimizer


def test_the_cosine_is_torchs():
    weights = [torch.nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.SGD(weights, lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for step in range(20):
        assert cosine(step, 20) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


def places(n_steps, epochs=1):
    return [Place(epoch, step, n_steps, ("main",), epochs) for epoch in range(epochs) for step in range(n_steps)]


def test_warm_up_rises_to_the_full_rate():
    factors = [scheduled("cosine", place, warmup=1 / 3) for place in places(12)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert all(later < earlier for earlier, later in itertools.pairwise(factors[4:]))
    assert {scheduled("constant", place) for place in places(12)} == {1.0}
    with pytest.raises(ValueError, match="'name' must be one of cosine, constant, got 'step'"):
        scheduled("step", places(1)[0])


def test_the_other_schedules():
    assert [steps(epoch, (2, 4), 0.5) for epoch in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert [inverse_decay(step, 1.0, 2.0) for step in range(3)] == pytest.approx([1, 1 / 4, 1 / 9])
    rounds = [scheduled("cosine", place.in_round(3)) for place in places(4, epochs=6)]
    assert rounds[:12] == rounds[12:] == [scheduled("cosine", place) for place in places(4, epochs=3)]


@pytest.mark.parametrize(("warmup", "rising"), [(0.0, 0), (0.25, 3), (0.3, 4), (0.99, 12)])
def test_the_warm_up_is_a_share_of_the_steps(monkeypatch, warmup, rising):
    rates = []

    def watched(self, views, index, place):
        rates.append(self.optimizer.param_groups[0]["lr"] / self.p.lr)
        return original(self, views, index, place)

    original = DHOGLearner.loss
    monkeypatch.setattr(DHOGLearner, "loss", watched)
    settings = {"network": "tiny8", "width": 0.25, "n_heads": 2, "hidden": 8, "augmentation": "none", "device": "cpu"}
    method = DHOG(**settings, n_clusters=2, epochs=3, batch_size=5, schedule="constant", warmup=warmup)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepclustWarning)
        method.fit(np.zeros((20, 8, 8), dtype=np.uint8), progress=False)
    expected = [min(1.0, (step + 1) / max(1, rising)) for step in range(12)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_optimizers_go_downhill(name):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = build_optimizer(name, [weight], lr=0.1, weight_decay=0.0)
    for _ in range(5):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    assert float(weight.detach().abs().max()) < 1
    with pytest.raises(ValueError, match="'name' must be one of adam, adamw, sgd, got 'lion'"):
        build_optimizer("lion", [weight], lr=0.1, weight_decay=0.0)


# Statistics of the heads


def test_statistics_agree_with_scikit_learn(generator):
    first = torch.randint(0, 6, (3, 500), generator=generator)
    noise = torch.rand(3, 500, generator=generator) < torch.tensor([[0.1], [0.5], [1.0]])
    second = torch.where(noise, torch.randint(0, 6, (3, 500), generator=generator), first)
    statistics = Watch("x")
    for part in torch.stack([first, second]).split(120, dim=2):
        statistics.add(one_hot(part, 6).double())
    mi, nmi = information_of_counts(statistics.pairs)
    summary = statistics.figures()
    for head in range(3):
        a, b = first[head].numpy(), second[head].numpy()
        assert mi[head].item() == pytest.approx(mutual_info_score(a, b))
        assert nmi[head].item() == pytest.approx(normalized_mutual_info_score(a, b))
        assert summary["nmi_views"][head] == pytest.approx(nmi[head].item(), abs=1e-6)
        counts = np.bincount(np.concatenate([a, b]), minlength=6)
        assert statistics.counts[head].tolist() == counts.tolist()
        share = counts / counts.sum()
        assert summary["occupancy_entropy"][head] == pytest.approx(-(share * np.log(share)).sum() / np.log(6), abs=1e-6)
        assert summary["largest_share"][head] == pytest.approx(share.max(), abs=1e-6)
    assert summary["clusters_used"] == [6, 6, 6]


@pytest.mark.parametrize("clusters", [1, 2, 7, 5000])
def test_information_without_the_table_is_that_of_the_table(clusters, generator):
    first = torch.randint(0, clusters, (400,), generator=generator)
    second = torch.where(torch.rand(400, generator=generator) < 0.5, first, first.flip(0))
    mi, nmi = information_of_labels(first, second, clusters)
    table = torch.zeros(clusters, clusters).index_put_((first, second), torch.ones(()), accumulate=True)
    expected = information_of_counts(table)
    assert (mi, nmi) == (pytest.approx(expected[0].item()), pytest.approx(expected[1].item()))


def test_one_view_has_no_agreement(generator):
    statistics = Watch("x")
    statistics.add(torch.rand(1, 1, 3, 100_000, generator=generator))
    assert "nmi_views" not in statistics.figures()
    statistics.load(statistics.state(), CPU)


def test_statistics_of_one_cluster_and_of_nothing():
    statistics = Watch("x")
    statistics.add(one_hot(torch.zeros(2, 2, 10, dtype=torch.int64), 3))
    summary = statistics.figures()
    assert summary["nmi_views"] == summary["occupancy_entropy"] == [0.0, 0.0]
    assert summary["clusters_used"] == [1, 1]
    mi, nmi = information_of_counts(torch.zeros(3, 3))
    assert (mi.item(), nmi.item()) == (0.0, 0.0)


def test_statistics_go_through_a_checkpoint(generator):
    whole, half = Watch("x"), Watch("x")
    parts = torch.rand(2, 2, 100, 4, generator=generator).split(50, dim=2)
    for part in parts:
        whole.add(part)
    half.add(parts[0])
    resumed = Watch("x")
    resumed.load(half.state(), CPU)
    resumed.add(parts[1])
    assert resumed.figures() == whole.figures()


@pytest.mark.parametrize(
    ("used", "largest", "reason"),
    [
        (10, 0.2, None),
        (5, 0.2, None),
        (4, 0.3, "uses 4 of 10 clusters"),
        (10, 0.91, "has 91 % of the images in one cluster"),
    ],
)
def test_what_counts_as_collapse(used, largest, reason):
    found = collapsed_heads({"clusters_used": [10, used], "largest_share": [0.1, largest]}, 10)
    assert found == ({} if reason is None else {1: reason})


# Progress


@pytest.fixture
def clock(monkeypatch):
    """Time as the test says."""
    now = types.SimpleNamespace(seconds=0.0)
    monkeypatch.setattr("deepclust_ext.training.progress.time.monotonic", lambda: now.seconds)
    return now


def test_lines_come_now_and_then_and_at_the_end(clock):
    lines = []
    with Progress(lines.append, epochs=2, steps=10, done=5) as progress:
        for step in range(5, 20):
            clock.seconds += 2
            progress.step()
            if step % 10 == 9:
                progress.epoch({"loss": -0.5}, last=step == 19)
    assert lines == [
        "epoch 1/2, 50 %, 10 s, about 20 s left",
        "epoch 2/2, 75 %, loss -0.5000, 20 s, about 10 s left",
        "epoch 2/2, 100 %, loss -0.5000, 30 s",
    ]


def test_a_run_that_its_data_end_has_a_last_line(clock):
    lines = []
    with Progress(lines.append, epochs=9, steps=1, done=0) as progress:
        clock.seconds += 2
        progress.step()
        progress.epoch({"loss": 0.5}, last=True)
    assert lines == ["epoch 1/9, 11 %, loss 0.5000, 2 s, about 16 s left"]


def test_without_a_bar_nothing_draws_one(monkeypatch):
    monkeypatch.setattr("deepclust_ext.training.progress.require", lambda *_: pytest.fail("imported"))
    for show in (False, print):
        with Progress(show, epochs=1, steps=1, done=0) as progress:
            progress.step()
            progress.epoch({"loss": 0.25}, last=True)


def test_a_bar_is_shown_in_a_terminal_or_when_asked_for(capsys):
    for show, shown in ((None, False), (False, False), (True, True)):
        with Progress(show, epochs=1, steps=1, done=0) as progress:
            progress.step()
            progress.epoch({"loss": 0.25}, last=True)
        out, err = capsys.readouterr()
        assert out == ""
        assert ("epoch 1/1" in err) is shown


RECORD = {
    "loss": -12.5,
    "occupancy_entropy": [0.25, 0.975],
    "nmi_views": [0.5, 0.75],
    "scores": [{"acc_hungarian": 0.1, "nmi": 0.2}, {"acc_hungarian": 0.9634, "nmi": 0.91}],
    "churn": 0.5,
}


def test_figures_are_those_of_the_head_whose_views_agree_best():
    shown = list(figures_of(RECORD).values())
    assert shown == ["loss -12.5000", "occupancy 0.97", "ACC 0.963", "NMI 0.910"]
    # Without views, or of one head alone: the lowest.
    assert figures_of({**RECORD, "nmi_views": []})["nmi"] == "NMI 0.200"
    assert figures_of({**RECORD, "occupancy_entropy": [0.5]})["occupancy_entropy"] == "occupancy 0.50"
    assert figures_of({"loss": 1.0, "churn": 0.5}) == {"loss": "loss 1.0000", "churn": "churn 0.500"}


@pytest.mark.parametrize("epochs", [3, 100000])
@pytest.mark.parametrize("loss", [-1.5, 12345678.0])
def test_a_line_has_80_columns_at_most_and_keeps_loss_and_scores(clock, epochs, loss):
    lines = []
    with Progress(lines.append, epochs=epochs, steps=2, done=0) as progress:
        clock.seconds += 4000
        progress.step()
        progress.step()
        progress.epoch({**RECORD, "loss": loss}, last=True)
        clock.seconds += 4000
        progress.step()
        # Scores stay until there are others.
        progress.step()
        progress.epoch({"loss": loss / 2}, last=True)
    assert all(len(line) <= 80 for line in lines)
    assert all(f"epoch {number}/{epochs}" in line for number, line in zip((1, 1, 2), lines, strict=False))
    assert "NMI 0.910" in lines[-1]
    assert "left" in lines[-1]
    assert ("loss -0.7500" if loss < 0 else "loss 6.173e+06") in lines[-1]


@pytest.mark.parametrize("columns", [80, 200, 50])
def test_a_bar_has_80_columns_at_most(capfd, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    with Progress(True, epochs=1000, steps=1, done=998) as progress:
        for loss in (-1234.5, 0.5):
            progress.step()
            progress.epoch({**RECORD, "loss": loss}, last=loss > 0)
    drawn = [part.strip("\n") for part in re.split(r"[\r\n]", capfd.readouterr().err)]
    assert max(map(len, drawn)) <= min(columns, 80)
    assert any("epoch 999/1000" in part or "epoch 1000/1000" in part for part in drawn)
    if columns >= 80:
        assert any("occ 0.97, ACC 0.963, NMI 0.910" in part for part in drawn)


# Configurations


@pytest.mark.parametrize("name", config_names("dhog"))
def test_shipped_configurations_can_work_however_short_the_run_is(name):
    embeddings = np.random.default_rng(0).normal(size=(100, 80)).astype(np.float32)
    items = embeddings if "embeddings" in name else np.zeros((20, 28, 28), dtype=np.uint8)
    DHOG(**load_config("dhog", name) | {"epochs": 1, "device": "cpu"}).check(items)


def test_the_papers_configuration_is_the_default():
    parameters = DHOG().get_params()
    for key, value in load_config("dhog", "paper-cifar10").items():
        assert parameters[key] == value, key


def test_configurations_are_found_by_name_path_and_class(tmp_path):
    small = load_config("dhog", "small")
    assert load_config("DHOG", "dhog-small") == load_config(DHOG, "small") == small
    (tmp_path / "mine.yaml").write_text("alpha: 0.2\n")
    assert load_config("dhog", tmp_path / "mine.yaml") == {"alpha": 0.2}
    (tmp_path / "config.yaml").write_text("method: DHOG\nparameters: {alpha: 0.3}\n")
    assert load_config("dhog", str(tmp_path / "config.yaml")) == {"alpha": 0.3}


def test_wrong_configurations_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"'name' must be one of .*iic, .*paper-cifar10, small, .*got 'large'"):
        load_config("dhog", "large")
    with pytest.raises(ValueError, match=r"'method' must be one of affinity, deepcluster, .*, got 'spectral'"):
        load_config("spectral", "small")
    with pytest.raises(ValueError, match="there is no file"):
        load_config("dhog", tmp_path / "absent.yaml")
    (tmp_path / "mine.yaml").write_text("alpa: 0.2\n")
    with pytest.raises(ValueError, match="unknown parameters alpa; dhog has n_clusters, alpha"):
        load_config("dhog", tmp_path / "mine.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match=r"must hold a mapping of parameters, got \[1\]"):
        load_config("dhog", tmp_path / "list.yaml")
    for content in (b"lr: [1", b"lr: \xff"):
        (tmp_path / "bad.yaml").write_bytes(content)
        with pytest.raises(ValueError, match=r"'name' must be a readable YAML file, got '.*bad\.yaml'"):
            load_config("dhog", tmp_path / "bad.yaml")
    (tmp_path / "other.yaml").write_text("method: JULE\nparameters: {}\n")
    with pytest.raises(ValueError, match="configures JULE, not dhog"):
        load_config("dhog", tmp_path / "other.yaml")
