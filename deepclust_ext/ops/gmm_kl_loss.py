"""Divergence of diagonal Gaussians from a mixture's classes, weighted by class: two products in place of all pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from deepclust_ext.ops._common import accumulator_dtype, check_floating

__all__ = ["gmm_kl_loss"]

_NAMES = ("mean", "log_variance", "probs", "prior_means", "prior_log_variances", "sample")


def gmm_kl_loss(
    mean: Tensor,
    log_variance: Tensor,
    probs: Tensor,
    prior_means: Tensor,
    prior_log_variances: Tensor,
    *,
    sample: Tensor | None = None,
) -> Tensor:
    r"""Class-weighted divergence of samples' Gaussians from those of a mixture's classes, per latent dimension.

    With :math:`p_i = \mathcal N(\mu_i, \mathrm{diag}\,\sigma_i^2)`, :math:`q_y = \mathcal N(m_y, \mathrm{diag}\,s_y^2)`
    and probabilities :math:`\pi_{iy}`:

    .. math:: L = \frac{1}{Bd} \sum_{iy} \pi_{iy} \mathrm{KL}(p_i \,\|\, q_y), \qquad
              \mathrm{KL} = \frac12 \sum_j \Bigl[ \frac{\sigma_{ij}^2 + (\mu_{ij} - m_{yj})^2}{s_{yj}^2}
              + \log s_{yj}^2 - \log \sigma_{ij}^2 - 1 \Bigr]

    or, at a sample :math:`z_i` of :math:`p_i`, with :math:`\log p_i(z_i) - \log q_y(z_i)` in place of the KL: the same
    in expectation if the probabilities do not depend on the sample, and noisier. The squares are expanded into products
    of the probabilities with the classes' precisions, in float64, where their cancellation costs nothing that float32
    inputs have: nothing of size B x K x d exists. A class of probability 0 counts for nothing. Plain torch and of
    any derivative; the same bits on every run, while another number of threads may round torch's sums differently.

    Parameters
    ----------
    mean, log_variance : Tensor, shape (B, d), float16, bfloat16, float32 or float64
        The samples' Gaussians, B >= 1. Any strides.
    probs : Tensor, shape (B, K)
        Probabilities of the classes.
    prior_means, prior_log_variances : Tensor, shape (K, d)
        The classes' Gaussians.
    sample : Tensor, shape (B, d), optional
        One draw for each sample, to take the divergence at.

    Returns
    -------
    Tensor, shape ()
        The loss in nats per dimension, float32 (float64 if an input is); at least 0 without `sample`. Differentiable
        in every tensor.

    Raises
    ------
    TypeError
        An argument is not a floating-point tensor.
    ValueError
        Shapes or devices do not fit together.

    References
    ----------
    L_GMM of VCAMI. Jiang et al., "Variational deep embedding", IJCAI 2017, equation 12 for the closed form.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import gmm_kl_loss
    >>> mean, flat = torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)
    >>> gmm_kl_loss(mean, flat, torch.ones(1, 1), flat, flat).item()  # (9 + 16) / 2, of two dimensions
    6.25
    """
    given = [mean, log_variance, probs, prior_means, prior_log_variances] + ([] if sample is None else [sample])
    dtype = _check(given)
    with torch.autocast(mean.device.type, enabled=False):  # it would multiply in half precision
        mean, log_variance, probs, prior_means, prior_log_variances, *rest = (each.double() for each in given)
        # About the mean of the mixture: where all lie far off, only differences count, and a far class that no sample
        # has a part in must not move it.
        mass = probs.detach().sum(0)
        origin = mass @ prior_means.detach() / mass.sum().clamp_min(torch.finfo(torch.float64).tiny)
        classes = prior_means - origin
        precisions = torch.exp(-prior_log_variances)
        scaled = precisions * classes
        constants = (scaled * classes + prior_log_variances).sum(1)
        points = (rest[0] if rest else mean) - origin
        variances = log_variance.exp()
        squares = points.square() if rest else points.square() + variances
        own = 1.0 + log_variance if not rest else (rest[0] - mean).square() / variances + log_variance
        weights = probs.sum(1, keepdim=True)
        by_dimension = squares * (probs @ precisions) - 2.0 * points * (probs @ scaled) - weights * own
        divergences = by_dimension.sum(1) + probs @ constants
        return (divergences.mean() / (2 * mean.shape[1])).to(dtype)


def _check(given: list[Tensor]) -> torch.dtype:
    """Refuse what does not fit; the dtype of the loss."""
    for name, value in zip(_NAMES, given, strict=False):
        check_floating("gmm_kl_loss", name, value)
    mean, probs = given[0], given[2]
    if mean.dim() != 2 or 0 in mean.shape:
        raise ValueError(f"gmm_kl_loss: 'mean' must have shape (B, d) with B, d >= 1, got {tuple(mean.shape)}")
    n, d = mean.shape
    if probs.dim() != 2 or len(probs) != n or probs.shape[1] < 1:
        raise ValueError(f"gmm_kl_loss: 'probs' must have shape ({n}, K) with K >= 1, got {tuple(probs.shape)}")
    n_classes = probs.shape[1]
    shapes = ((n, d), (n, d), (n, n_classes), (n_classes, d), (n_classes, d), (n, d))
    dtype = given[0].dtype
    for name, value, shape in zip(_NAMES, given, shapes, strict=False):
        if value.shape != shape:
            raise ValueError(f"gmm_kl_loss: '{name}' must have shape {shape}, got {tuple(value.shape)}")
        if value.device != mean.device:
            raise ValueError(
                f"gmm_kl_loss: '{name}' must be on mean's device {mean.device}, got {value.device}; "
                f"move it with .to({str(mean.device)!r})"
            )
        dtype = torch.promote_types(dtype, value.dtype)
    return accumulator_dtype(dtype)
