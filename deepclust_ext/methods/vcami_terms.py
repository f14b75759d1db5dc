"""The terms of VCAMI's objective, each a function of its own: of scores, probabilities and Gaussians, no networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from deepclust_ext.ops.dim_jsd_loss import dim_jsd_loss
from deepclust_ext.ops.mi_loss import mi_loss


def derangement(n: int, generator: torch.Generator) -> Tensor:
    """A random permutation (n,) int64 without fixed points: image i's negative is of image `derangement[i]`.

    One cycle through all, drawn uniformly from the (n - 1)! there are.

    Raises
    ------
    ValueError
        If n is 1: there is no other image.
    """
    if n < 2:
        raise ValueError(f"VCAMI: a batch must have at least 2 images, got {n}: an image's negatives are others")
    order = torch.randperm(n, generator=generator)
    others = torch.empty_like(order)
    others[order] = order.roll(-1)
    return others


def jsd_bound(positive: Tensor, negative: Tensor) -> Tensor:
    r"""The bound :math:`E[\log \sigma(T)] + E[\log(1 - \sigma(T))]` of L_GMI, and of L_LMI with a network's scores.

    To be maximised; at most 0, and -2 ln 2 where scores say nothing. As :math:`-\mathrm{softplus}(\mp T)`, which is
    finite where the sigmoid has rounded to 0 or 1; in float32 at least.

    Parameters
    ----------
    positive, negative : Tensor, any shapes
        Scores of pairs that belong together, and of those that do not; each is averaged.
    """
    dtype = torch.promote_types(positive.dtype, torch.float32)
    return functional.logsigmoid(positive.to(dtype)).mean() + functional.logsigmoid(-negative.to(dtype)).mean()


def dot_bound(codes: Tensor, maps: Tensor) -> Tensor:
    """The bound of L_LMI by dot products, over all pairs of a batch: see `dim_jsd_loss`. To be maximised."""
    return -dim_jsd_loss(codes, maps)


def category_information(first: Tensor, second: Tensor, *, lamb: float = 1.0) -> Tensor:
    """L_CMI: mutual information of two views' labels (..., B, K), see `mi_loss`. To be maximised."""
    return -mi_loss(first, second, lamb=lamb)


def divergence_from_uniform(probabilities: Tensor) -> Tensor:
    r"""L_REG: the mean of :math:`\mathrm{KL}(p(y|z) \| q(y))` with q uniform, of rows (..., K). To be minimised.

    In [0, ln K]. A probability of 0 adds nothing, and its gradient is finite.
    """
    tiny = torch.finfo(probabilities.dtype).tiny
    negative_entropy = (probabilities * probabilities.clamp_min(tiny).log()).sum(-1)
    return negative_entropy.mean() + math.log(probabilities.shape[-1])


def objective(terms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    r"""The loss: what is to be maximised is subtracted, what is to be minimised added.

    .. math:: L = -[w L_{GMI} + \lambda L_{LMI} + \alpha L_{CMI}] + \beta L_{GMM} + \gamma L_{REG}

    Parameters
    ----------
    terms : dict
        Any of "gmi", "lmi", "cmi", "over" (L_CMI of over-clustering), "gmm" and "reg".
    weights : dict
        The weight of each of these.
    """
    signs = {"gmi": -1.0, "lmi": -1.0, "cmi": -1.0, "over": -1.0, "gmm": 1.0, "reg": 1.0}
    return torch.stack([signs[name] * weights[name] * term for name, term in terms.items()]).sum()
