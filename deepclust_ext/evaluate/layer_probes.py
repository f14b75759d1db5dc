"""Linear probes of a frozen network, layer by layer: multinomial logistic regression by SGD."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepclust_ext import _checks as check
from deepclust_ext._isolation import own_torch_state
from deepclust_ext.evaluate._checks import as_labels, as_probe_pair
from deepclust_ext.evaluate.layers import layer_features, layer_names

# Mean squared norm of a row of scaled features; `sgd_probe` says why this one.
SQUARED_NORM = 400.0
# Rows that are read at once where whole columns are needed: float64 copies of a few tens of MB.
CHUNK = 4096


@own_torch_state()
def sgd_probe(
    train: object,
    y_train: object,
    test: object,
    y_test: object,
    *,
    epochs: int = 20,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    batch_size: int = 128,
    seed: int = 0,
) -> float:
    r"""Return the test accuracy of multinomial logistic regression on frozen features, trained by SGD.

    With z the scaled features and p = softmax(z W + b), every step takes a batch B of n rows and

    .. math::
        g = \tfrac1n z_B^\top (p_B - [y_B = c]) + \lambda W, \qquad v \leftarrow \mu v + g, \qquad
        W \leftarrow W - \frac{\eta}{\sqrt{1 + \eta \lambda t}}\, v,

    and so for b, from W = b = 0; t counts the steps.

    Features are standardised on the training rows, a constant column to 0, then multiplied by
    :math:`20 / \sqrt d`, so that a row has a squared norm of R = 400 on average whatever d is. The curvature of the
    loss is then at most R / 2 = 200, however correlated the features are, and `lr` times it 2: below the
    2 (1 + momentum) = 3.8 at which the descent would swing out. Standardised columns alone (R = d) can be beyond that
    with thousands of features, while R = 1 is too slow by far: 20 epochs end on the first few principal axes.

    Parameters
    ----------
    train : array or tensor, (N, d) float
        Features of the training images; the descent is in float32.
    y_train : array or tensor, (N,) integer
        Their classes, at least two different ones, not necessarily 0 to C - 1.
    test : array or tensor, (M, d) float
        Features of the test images.
    y_test : array or tensor, (M,) integer
        Their classes, for the accuracy alone; one that `y_train` lacks is never right.
    epochs : int
        Passes over the training rows.
    lr : float
        eta, positive.
    momentum : float
        mu, in [0, 1).
    weight_decay : float
        lambda, not negative.
    batch_size : int
        n; the last batch of an epoch may be smaller.
    seed : int
        Draws the order of the rows; the global random state is neither used nor changed.

    Returns
    -------
    float
        The same on every run with the same number of threads; ties between classes go to the lowest.

    Raises
    ------
    ValueError
        If shapes disagree, features are not finite, the training labels are a single class, an option is out of
        range, or the descent leaves float32.
    TypeError
        If labels or an option have the wrong type.

    References
    ----------
    Caron et al., Deep Clustering for Unsupervised Learning of Visual Features, 2018, section 4.1, for the protocol. The
    schedule and its constants are those of the deep dive into DeepCluster on small images.

    Examples
    --------
    >>> sgd_probe([[0.0], [1.0], [4.0], [5.0]], [3, 3, 7, 7], [[-1.0], [6.0]], [3, 7])
    1.0
    """
    options = _check_options("sgd_probe", epochs, lr, momentum, weight_decay, batch_size, seed)
    gallery, classes, queries, truth = as_probe_pair("sgd_probe", train, y_train, test, y_test)
    known, targets = np.unique(classes, return_inverse=True)
    if len(known) < 2:
        raise ValueError(f"sgd_probe: 'y_train' must hold at least two classes, got only {known[0]}")
    rows, asked = torch.from_numpy(gallery).float(), torch.from_numpy(queries).float()
    scaling = _scaling(rows)
    weight, bias = _descend(rows, torch.from_numpy(targets), len(known), scaling, **options)
    found = torch.cat([_logits(part, scaling, weight, bias).argmax(1) for part in asked.split(CHUNK)])
    return float((known[found.numpy()] == truth).mean())


@own_torch_state()
def probe_layers(
    network: nn.Module,
    train_images: Tensor,
    y_train: object,
    test_images: Tensor,
    y_test: object,
    *,
    layers: Sequence[str] | None = None,
    max_features: int = 10_000,
    **options: Any,
) -> dict[str, float]:
    """Return the test accuracy of a linear probe on each layer of a frozen network.

    Parameters
    ----------
    network : nn.Module
        Left as it was.
    train_images, test_images : Tensor
        (N, C, H, W) and (M, C, H, W), uint8 or floating point.
    y_train, y_test : array or tensor, (N,) and (M,) integer
        Their classes.
    layers : sequence of str, optional
        Names of modules; default `layer_names(network)`.
    max_features : int
        Most features of a layer, as in `layer_features`. All layers' features are held at once.
    **options
        As in `sgd_probe`.

    Returns
    -------
    dict of str to float
        One accuracy a layer, in the order of `layers`. Show those of the untrained network beside them: random
        convolutions already reach far.

    Raises
    ------
    ValueError, TypeError
        As `layer_names`, `layer_features` and `sgd_probe` do.

    Examples
    --------
    >>> images = torch.arange(8).view(8, 1, 1, 1) * torch.ones(8, 1, 6, 6) / 8
    >>> y = [0, 0, 0, 0, 1, 1, 1, 1]
    >>> probe_layers(nn.Sequential(nn.Conv2d(1, 4, 3)), images, y, images, y)
    {'0': 1.0}
    """
    # Everything is checked before the passes, which may take minutes.
    unknown = sorted(options.keys() - _DEFAULTS.keys())
    if unknown:
        raise TypeError(f"probe_layers: an option must be one of {', '.join(_DEFAULTS)}, got {unknown[0]!r}")
    _check_options("probe_layers", **{**_DEFAULTS, **options})
    names = layer_names(network) if layers is None else layers
    for argument, labels, images in (("y_train", y_train, train_images), ("y_test", y_test, test_images)):
        given = len(as_labels("probe_layers", argument, labels))
        if given != len(images):
            raise ValueError(f"probe_layers: {argument!r} must have a label per image ({len(images)}), got {given}")
    train = layer_features(network, train_images, names, max_features=max_features)
    test = layer_features(network, test_images, names, max_features=max_features)
    # Taken out one by one: a layer may hold gigabytes.
    return {name: sgd_probe(train.pop(name), y_train, test.pop(name), y_test, **options) for name in list(train)}


_DEFAULTS = {n: p.default for n, p in inspect.signature(sgd_probe).parameters.items() if p.default is not p.empty}


def _check_options(
    function: str,
    epochs: object,
    lr: object,
    momentum: object,
    weight_decay: object,
    batch_size: object,
    seed: object,
) -> dict[str, Any]:
    """Return the options of the descent as plain numbers, or refuse one."""
    return {
        "epochs": check.whole_number(function, "epochs", epochs, at_least=1),
        "batch_size": check.whole_number(function, "batch_size", batch_size, at_least=1),
        "seed": check.whole_number(function, "seed", seed, at_least=0, below=check.SEEDS),
        "lr": check.number(function, "lr", lr, above=0),
        "momentum": check.number(function, "momentum", momentum, at_least=0, below=1),
        "weight_decay": check.number(function, "weight_decay", weight_decay, at_least=0),
    }


def _scaling(train: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (d,) and the factor (d,) of each column, from the training rows alone."""
    n, d = train.shape
    mean = torch.stack([part.double().sum(0) for part in train.split(CHUNK)]).sum(0) / n
    variance = torch.stack([(part.double() - mean).square_().sum(0) for part in train.split(CHUNK)]).sum(0) / n
    # float64 adds up equal float32 values without rounding, so the variance of a constant column is 0 and not nearly 0.
    factor = torch.where(variance == 0, 0.0, math.sqrt(SQUARED_NORM / d) / variance.sqrt()).float()
    if not (mean.float().isfinite().all() and factor.isfinite().all()):
        raise ValueError("sgd_probe: 'train' must hold features that float32 can standardise; rescale them")
    return mean.float(), factor


def _logits(rows: Tensor, scaling: tuple[Tensor, Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    """Return z W + b for features (n, d) as they came."""
    mean, factor = scaling
    return torch.addmm(bias, (rows - mean).mul_(factor), weight)


def _descend(
    train: Tensor,
    targets: Tensor,
    n_classes: int,
    scaling: tuple[Tensor, Tensor],
    *,
    epochs: int,
    lr: float,
    momentum: float,
    weight_decay: float,
    batch_size: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Return W (d, C) and b (C,) after the descent from zero; the formulas stand in `sgd_probe`."""
    (n, d), (mean, factor) = train.shape, scaling
    weight, bias = train.new_zeros(d, n_classes), train.new_zeros(n_classes)
    weight_velocity, bias_velocity = torch.zeros_like(weight), torch.zeros_like(bias)
    # Batches are scaled as they are gathered, in cache: a scaled copy of all rows would double the memory.
    gathered = train.new_empty(min(batch_size, n), d)
    generator = torch.Generator().manual_seed(seed)
    step = 0
    with torch.no_grad():
        for _ in range(epochs):
            for chosen in torch.randperm(n, generator=generator, device="cpu").split(batch_size):
                z = torch.index_select(train, 0, chosen, out=gathered[: len(chosen)]).sub_(mean).mul_(factor)
                residual = torch.addmm(bias, z, weight).softmax(1)
                residual[torch.arange(len(chosen), device="cpu"), targets[chosen]] -= 1.0
                residual /= len(chosen)
                weight_velocity.mul_(momentum).addmm_(z.T, residual).add_(weight, alpha=weight_decay)
                bias_velocity.mul_(momentum).add_(residual.sum(0)).add_(bias, alpha=weight_decay)
                rate = lr / math.sqrt(1.0 + lr * weight_decay * step)
                weight.sub_(weight_velocity, alpha=rate)
                bias.sub_(bias_velocity, alpha=rate)
                step += 1
    if not (weight.isfinite().all() and bias.isfinite().all()):
        raise ValueError(f"sgd_probe: 'lr' must be small enough for the weights to stay finite, got {lr:g}; lower it")
    return weight, bias
