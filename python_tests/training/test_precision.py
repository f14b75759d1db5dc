"""bfloat16 in the forward pass alone: what is multiplied, what stays float32, and the same bits on every run."""

from __future__ import annotations

import warnings
from unittest import mock

import numpy as np
import pytest
import torch
from support.clidata import pictures, single_thread
from support.kills import Killed, kill

from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.methods import DHOG, JULE, VCAMI, DeepCluster, SuperAND
from deepclust_ext.training import loop, precision

METHODS = {
    DHOG: {"network": "tiny8", "n_heads": 2, "n_augmentations": 2, "augmentation": "digits", "epochs": 2},
    DeepCluster: {"epochs": 2},
    JULE: {"epochs": 2},
    SuperAND: {"width": 0.25, "rounds": 1, "round_epochs": 1},
    VCAMI: {"epochs": 2},
}


@pytest.fixture(autouse=True)
def one_thread():
    with single_thread():
        yield


def fit(kind, run=None, resume=False, **changes):
    """Fit on few images, without the warnings that runs this short deserve."""
    images = pictures(64)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepclustWarning)
        settings = {**METHODS[kind], "batch_size": 32, **changes}
        return kind(n_clusters=3, **settings).fit(images, run=run, resume=resume, progress=False)


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_products_are_in_it_and_the_loss_is_not(kind, name, monkeypatch):
    products, losses, weights = set(), set(), set()

    def watched(learner, *arguments, **options):
        hooks = [
            module.register_forward_hook(lambda _, __, output: products.add(output.dtype))
            for module in learner.net.modules()
            if isinstance(module, torch.nn.Conv2d) and module.weight.requires_grad
        ]
        done = step(learner, *arguments, **options)
        for hook in hooks:
            hook.remove()
        losses.add(done.found.loss.dtype)
        weights.update(parameter.dtype for parameter in learner.net.parameters())
        return done

    step = loop.train_step
    monkeypatch.setattr(loop, "train_step", watched)
    model = fit(kind, precision=name)
    assert products == {getattr(torch, name)}
    assert losses == weights == {torch.float32}
    assert model.labels_.shape == (64,)


def test_embeddings_and_probabilities_of_a_fitted_method_are_float32_products():
    model = fit(DHOG, precision="bfloat16")
    same = fit(DHOG, precision="bfloat16")
    other = fit(DHOG)
    images = pictures(64)[0]
    assert np.array_equal(model.transform(images), same.transform(images))
    assert not np.array_equal(model.transform(images), other.transform(images))
    # Rounded to bfloat16 they would be themselves.
    found = torch.from_numpy(model.transform(images))
    assert not torch.equal(found, found.bfloat16().float())


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    whole = fit(DHOG, tmp_path / "whole", precision="bfloat16", checkpoint_every=1)
    step, calls = loop.train_step, []

    def killed(*arguments, **options):
        calls.append(None)
        if len(calls) == 4:
            kill()
        return step(*arguments, **options)

    with mock.patch.object(loop, "train_step", killed), pytest.raises(Killed):
        fit(DHOG, tmp_path / "cut", precision="bfloat16", checkpoint_every=1)
    resumed = fit(DHOG, tmp_path / "cut", resume=True, precision="bfloat16", checkpoint_every=1)
    assert np.array_equal(whole.transform(pictures(64)[0]), resumed.transform(pictures(64)[0]))


@pytest.mark.parametrize(
    ("name", "has", "warned"), [("bfloat16", False, True), ("bfloat16", True, False), ("float32", False, False)]
)
def test_a_processor_without_it_is_told(name, has, warned, monkeypatch):
    monkeypatch.setattr(precision, "_cpu_multiplies_bfloat16", lambda: has)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        DHOG(n_clusters=3, **METHODS[DHOG], batch_size=32, precision=name).fit(pictures(64)[0], progress=False)
    assert any("no bfloat16 instructions" in str(each.message) for each in found) == warned


def test_other_names_are_refused():
    with pytest.raises(ValueError, match="'precision' must be one of 'float32', 'bfloat16', got 'half'"):
        fit(DHOG, precision="half")


def test_the_warning_points_to_the_call_of_fit(monkeypatch):
    monkeypatch.setattr(precision, "_cpu_multiplies_bfloat16", lambda: False)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        DHOG(n_clusters=3, **METHODS[DHOG], batch_size=32, precision="bfloat16").fit(pictures(64)[0], progress=False)
    assert {each.filename for each in found if "bfloat16" in str(each.message)} == {__file__}
