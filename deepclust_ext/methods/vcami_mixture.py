"""Where VCAMI's mixture starts: k-means of the codes of views, each cluster the class that the classifier gives it."""

from __future__ import annotations

import torch
from torch import Tensor

import deepclust_ext
from deepclust_ext._optional import require
from deepclust_ext.data.augment import Augmentation
from deepclust_ext.nn.vcami import VCAMINet
from deepclust_ext.training.inference import by_batches
from deepclust_ext.training.learner import Record
from deepclust_ext.training.seeds import derive_generator, derive_seed


def start_mixture(net: VCAMINet, augmentation: Augmentation, images: Tensor, *, plain: bool, seed: int) -> Record:
    """Put each class's Gaussian on a cluster of the codes, with its spread.

    Bayes' rule labels by the mixture alone, so any order of the classes will do. A classifier has an order of its own:
    clusters and its labels are matched one to one, so that as many images as possible keep their class.

    Parameters
    ----------
    net : VCAMINet
        Its mixture is set; it is left in evaluation mode.
    augmentation : Augmentation
        One view of each image is drawn: those of training lie farther apart than plain ones.
    images : Tensor
        (N, C, H, W), on the network's device.
    plain : bool
        Take the plain view.
    seed : int
        Of the run.

    Returns
    -------
    record : dict
        `mixture_inertia`, the mean squared distance of the codes to their class.
    """
    linear_sum_assignment = require("scipy.optimize").linear_sum_assignment
    n_clusters = net.prior_means.shape[1]
    net.eval()

    def work(number: int, rows: slice) -> tuple[Tensor, ...]:
        generator, batch = derive_generator(seed, "mixture", number), images[rows]
        encoded = net.encode(augmentation.plain(batch) if plain else augmentation(batch, generator=generator))
        return encoded.mean, encoded.log_variance.exp()

    means, variances = by_batches(len(images), work)
    with torch.inference_mode():
        found = deepclust_ext.kmeans(means, n_clusters, seed=derive_seed(seed, "mixture"))
        given = net.classify(means)[0].argmax(2)
    for which, labels in enumerate(given):
        classes = torch.arange(n_clusters)
        if net.classifier is not None:
            # Clusters and classes that no image has are matched too: no class may stay without a place.
            table = torch.bincount(found.labels * n_clusters + labels, minlength=n_clusters**2)
            pairs = linear_sum_assignment(table.view(n_clusters, n_clusters).cpu().numpy(), maximize=True)
            classes = torch.from_numpy(pairs[1])
        net.start_mixture(which, found.labels, means, variances, classes.to(means.device))
    return {"mixture_inertia": float(found.inertia) / len(means)}
