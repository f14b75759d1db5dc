"""Run a network over many images in batches: evaluation mode, no gradient, results on the CPU.

Several processes that fit together share the batches: each batch is the one that a single process has, so that its rows
have the same bits, and every process gets all results.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from deepclust_ext.data.augment import Augmentation
from deepclust_ext.training.agreement import information_of_labels
from deepclust_ext.training.seeds import derive_generator
from deepclust_ext.training.team import current

# Large enough to keep a GPU busy, small enough for the activations of a ResNet in a few GB.
BATCH = 512


def device_of(net: Any) -> torch.device:
    """Where a network is."""
    found: torch.device = next(itertools.chain(net.parameters(), net.buffers())).device
    return found


def by_batches(n: int, work: Callable[[int, slice], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What `work` returns of batches of n rows, joined: a few tensors, each with a row per row of the batch.

    It is given a batch's number and its rows, and is called for this process's batches alone.
    """
    batches, bounds = _shared(n)
    with torch.inference_mode():
        parts = [work(number, slice(number * BATCH, min(n, (number + 1) * BATCH))) for number in batches]
    # One after another: all embeddings, and they joined, are there twice.
    return tuple(current().join(torch.cat(each), bounds) for each in zip(*parts, strict=True))


def _shared(n: int) -> tuple[range, list[int]]:
    """The numbers of this process's batches of n rows, and the rows at which the processes' parts begin, and n."""
    team, n_batches = current(), -(-n // BATCH)
    own = team.share(n_batches)
    bounds = [min(n, bound * BATCH) for bound in team.bounds(n_batches)]
    # With fewer batches than processes some have none: those do the last, to know what its rows look like.
    return range(min(own.start, n_batches - 1), max(own.stop, min(own.start, n_batches - 1) + 1)), bounds


def plain_batches(net: Any, augmentation: Augmentation, images: Tensor) -> Iterator[Tensor]:
    """Yield the plain views (B, C, H, W) of images on any device, in evaluation mode and on the network's device."""
    device = device_of(net)
    net.eval()
    with torch.inference_mode():
        for batch in torch.split(images, BATCH):
            yield augmentation.plain(batch.to(device))


def forward_batches(net: Any, augmentation: Augmentation, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield `net.outputs` of the plain views, batch by batch: probabilities (H, B, K) and embeddings (B, d)."""
    for views in plain_batches(net, augmentation, images):
        yield net.outputs(views)


def label_heads(
    net: Any, augmentation: Augmentation, images: Tensor, *, embed: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Label images with every head, and embed them in the same pass.

    Parameters
    ----------
    net, augmentation, images
        As they are.
    embed : bool
        False for no embeddings, where there are more than memory holds.

    Returns
    -------
    labels : Tensor
        (H, N) int64, on the CPU; ties go to the lowest cluster.
    confidence : Tensor
        (H, N) float32, the probability of that cluster.
    embeddings : Tensor
        (N, d) float32, or (N, 0).
    """
    device = device_of(net)
    net.eval()

    def work(number: int, rows: slice) -> tuple[Tensor, ...]:  # noqa: ARG001
        probabilities, embedding = net.outputs(augmentation.plain(images[rows].to(device)))
        embedding = embedding if embed else embedding[:, :0]
        confidence, labels = probabilities.max(-1)
        # At once: all embeddings, and they joined, can be more than a GPU holds.
        return labels.T.cpu(), confidence.T.cpu(), embedding.cpu()

    labels, confidence, embeddings = by_batches(len(images), work)
    return labels.T.contiguous(), confidence.T.contiguous(), embeddings


def probability_of(
    net: Any, augmentation: Augmentation, images: Tensor, labels: Tensor, head: int, into: Tensor
) -> Tensor:
    """The probability (N,) float32 that a head gives each image's label (N,), summed over the clusters merged in it.

    `into` (K,) is the cluster that each is part of, of which `labels` are.
    """
    device, labels = device_of(net), labels.cpu()
    net.eval()

    def work(number: int, rows: slice) -> tuple[Tensor, ...]:  # noqa: ARG001
        # On the CPU, where sums have one order.
        each = net.outputs(augmentation.plain(images[rows].to(device)))[0][head].cpu()
        summed = each.new_zeros((len(each), int(into.max()) + 1)).index_add_(1, into, each)
        return (summed.gather(1, labels[rows][:, None]).squeeze(1).float(),)

    return by_batches(len(images), work)[0]


def all_features(net: Any, augmentation: Augmentation, images: Tensor) -> Tensor:
    """`net.features` (N, net.dim) of the plain views, on the network's device."""
    device = device_of(net)
    batches, bounds = _shared(len(images))
    first = batches.start * BATCH
    own = images[first : batches.stop * BATCH]
    # Filled in place: joined at the end, they would be there twice.
    features = torch.empty(len(own), net.dim, dtype=torch.float32, device=device)
    for rows, views in zip(features.split(BATCH), plain_batches(net, augmentation, own), strict=True):
        rows.copy_(net.features(views))
    return current().join(features, bounds)


def plain_pixels(augmentation: Augmentation, images: Tensor) -> Tensor:
    """The plain views' pixels (N, C H W), L2-normalised, on the images' device; black images stay 0."""
    pixels = torch.empty(len(images), math.prod(augmentation.output_shape), device=images.device)
    for rows, batch in zip(pixels.split(BATCH), images.split(BATCH), strict=True):
        rows.copy_(torch.nn.functional.normalize(augmentation.plain(batch).flatten(1), dim=1))
    return pixels


def agreement_of_views(
    net: Any, augmentation: Augmentation, images: Tensor, *, seed: int, n_clusters: int
) -> tuple[Tensor, Tensor]:
    """Return MI and NMI(z, z') of each head, float64 (H,): its labels of two augmented views of every image.

    `images` are the training images. The views are drawn from the seed, in evaluation mode: the same for every head and
    every call.

    References
    ----------
    DHOG, section 4: "unsupervised posthoc head selection using NMI(z, z')".
    """
    device = device_of(net)
    net.eval()

    def work(number: int, rows: slice) -> tuple[Tensor, ...]:
        generator, index = derive_generator(seed, "selection", number), torch.arange(len(images), device=images.device)
        views = [augmentation.views_of(images, index[rows], generator=generator).to(device) for _ in range(2)]
        return (torch.stack([net.outputs(view)[0].argmax(-1).T for view in views], dim=1).cpu(),)

    # (N, 2, H) labels.
    heads = by_batches(len(images), work)[0].permute(2, 1, 0)
    found = [information_of_labels(first, second, n_clusters) for first, second in heads]
    mi, nmi = torch.tensor(found, dtype=torch.float64).unbind(1)
    return mi, nmi
