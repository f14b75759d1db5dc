"""Run a network over many images in batches: evaluation mode, no gradient, results on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from deepclust_ext.methods.monitor import information_of_labels
from deepclust_ext.methods.seeds import derive_generator

if TYPE_CHECKING:
    from deepclust_ext.methods.estimator import Estimator

# Large enough to keep a GPU busy, small enough for the activations of a ResNet in a few GB.
BATCH = 512


def forward_batches(
    method: Estimator, net: nn.Module, augmentation: Any, images: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield probabilities (H, B, K) and embeddings (B, d) of the deterministic view, batch by batch.

    Parameters
    ----------
    method : Estimator
        Says what the network's outputs are.
    net : nn.Module
        Put into evaluation mode, and left in it.
    augmentation : callable
        Its `plain` view is used.
    images : Tensor
        (N, C, H, W) on any device.

    Yields
    ------
    probabilities, embedding : Tensor
        On the network's device.
    """
    device = next(net.parameters()).device
    net.eval()
    with torch.inference_mode():
        for batch in torch.split(images, BATCH):
            yield method._outputs(net, augmentation.plain(batch.to(device)))


def label_heads(method: Estimator, net: nn.Module, augmentation: Any, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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
        for probabilities, embedding in forward_batches(method, net, augmentation, images)
    ]
    confidence, labels, embeddings = zip(*batches, strict=True)
    return torch.cat(labels, dim=1), torch.cat(confidence, dim=1), torch.cat(embeddings)


def agreement_of_views(method: Estimator, net: nn.Module, augmentation: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return MI and NMI(z, z') of each head, float64 (H,): its labels of two augmented views of every image.

    The views are drawn from the method's seed, in evaluation mode: the same for every head and every call.

    References
    ----------
    DHOG, section 4: "unsupervised posthoc head selection using NMI(z, z')".
    """
    device = next(net.parameters()).device
    net.eval()
    labels: list[Tensor] = []
    with torch.inference_mode():
        for number, batch in enumerate(torch.split(images, BATCH)):
            generator = derive_generator(method.seed, "selection", number)
            here = batch.to(device)
            views = [augmentation(here, generator=generator) for _ in range(2)]
            labels.append(torch.stack([method._outputs(net, view)[0].argmax(-1) for view in views]).cpu())
    heads = torch.cat(labels, dim=2).unbind(1)
    found = [information_of_labels(first, second, method.n_clusters) for first, second in heads]
    mi, nmi = torch.tensor(found, dtype=torch.float64).unbind(1)
    return mi, nmi
