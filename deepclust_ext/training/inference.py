"""Run a network over many images in batches: evaluation mode, no gradient, results on the CPU."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from deepclust_ext.data.augment import Augmentation
from deepclust_ext.training.agreement import information_of_labels
from deepclust_ext.training.seeds import derive_generator

# Large enough to keep a GPU busy, small enough for the activations of a ResNet in a few GB.
BATCH = 512


def device_of(net: Any) -> torch.device:
    """Where a network is."""
    found: torch.device = next(itertools.chain(net.parameters(), net.buffers())).device
    return found


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


def label_heads(net: Any, augmentation: Augmentation, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Label images with every head, and embed them in the same pass.

    Returns
    -------
    labels : Tensor
        (H, N) int64, on the CPU; ties go to the lowest cluster.
    confidence : Tensor
        (H, N) float32, the probability of that cluster.
    embeddings : Tensor
        (N, d) float32.
    """
    # Each batch goes to the CPU at once: all embeddings, and they joined, can be more than a GPU holds.
    batches = [
        (*(part.cpu() for part in probabilities.max(-1)), embedding.cpu())
        for probabilities, embedding in forward_batches(net, augmentation, images)
    ]
    confidence, labels, embeddings = zip(*batches, strict=True)
    return torch.cat(labels, dim=1), torch.cat(confidence, dim=1), torch.cat(embeddings)


def probability_of(
    net: Any, augmentation: Augmentation, images: Tensor, labels: Tensor, head: int, into: Tensor
) -> Tensor:
    """The probability (N,) float32 that a head gives each image's label (N,), summed over the clusters merged in it.

    `into` (K,) is the cluster that each is part of, of which `labels` are.
    """
    batches = []
    for (probabilities, _), own in zip(
        forward_batches(net, augmentation, images), labels.cpu().split(BATCH), strict=True
    ):
        # On the CPU, where sums have one order.
        each = probabilities[head].cpu()
        summed = each.new_zeros((len(each), int(into.max()) + 1)).index_add_(1, into, each)
        batches.append(summed.gather(1, own[:, None]).squeeze(1).float())
    return torch.cat(batches)


def all_features(net: Any, augmentation: Augmentation, images: Tensor) -> Tensor:
    """`net.features` (N, net.dim) of the plain views, on the network's device."""
    # Filled in place: joined at the end, they would be there twice.
    features = torch.empty(len(images), net.dim, dtype=torch.float32, device=device_of(net))
    for rows, views in zip(features.split(BATCH), plain_batches(net, augmentation, images), strict=True):
        rows.copy_(net.features(views))
    return features


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
    labels: list[Tensor] = []
    with torch.inference_mode():
        for number, rows in enumerate(torch.arange(len(images), device=images.device).split(BATCH)):
            generator = derive_generator(seed, "selection", number)
            views = [augmentation.views_of(images, rows, generator=generator).to(device) for _ in range(2)]
            labels.append(torch.stack([net.outputs(view)[0].argmax(-1) for view in views]).cpu())
    heads = torch.cat(labels, dim=2).unbind(1)
    found = [information_of_labels(first, second, n_clusters) for first, second in heads]
    mi, nmi = torch.tensor(found, dtype=torch.float64).unbind(1)
    return mi, nmi
