"""Typed handles of the dispatcher ops. Looking one up costs microseconds, so it is done once."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

import deepclust_ext._loader  # noqa: F401 - registers the ops

_ops = torch.ops.deepclust

BankNLLEntropy = Callable[
    [Tensor, Tensor, Tensor, Tensor, float, bool, bool, bool], tuple[Tensor, Tensor, Tensor, Tensor]
]
BankUpdate = Callable[[Tensor, Tensor, Tensor, float], None]
MILoss = Callable[[Tensor, Tensor, float, bool], tuple[Tensor, Tensor]]
MILossBackward = Callable[[Tensor, Tensor, Tensor, Tensor, bool, bool], tuple[Tensor, Tensor]]
DHOGLoss = Callable[[Tensor, float, bool, bool, float], tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]
DHOGLossBackward = Callable[[Tensor, Tensor, Tensor, Tensor, bool], Tensor]
JULELoss = Callable[[Tensor, Tensor, Tensor, float, float, int], tuple[Tensor, Tensor]]
KMeans = Callable[
    [Tensor, Tensor | None, int, int, int, float, int, bool, Tensor | None],
    tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
]
KMeansAssign = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
KMeansPlusPlus = Callable[[Tensor, int, int, Tensor | None], Tensor]
KNN = Callable[[Tensor, Tensor | None, int, str], tuple[Tensor, Tensor]]
AffinityWeights = Callable[[Tensor, float], tuple[Tensor, Tensor]]
InitialClusters = Callable[[Tensor], Tensor]
Agglomerate = Callable[
    [Tensor, Tensor, Tensor, int, int, int, float, int, Tensor | None], tuple[Tensor, Tensor, Tensor]
]
OrderedProduct = Callable[[Tensor, Tensor], Tensor]

bank_nll_entropy = cast(BankNLLEntropy, _ops.bank_nll_entropy.default)
bank_update_ = cast(BankUpdate, _ops.bank_update_.default)
mi_loss = cast(MILoss, _ops.mi_loss.default)
mi_loss_backward = cast(MILossBackward, _ops.mi_loss_backward.default)
dhog_loss = cast(DHOGLoss, _ops.dhog_loss.default)
dhog_loss_backward = cast(DHOGLossBackward, _ops.dhog_loss_backward.default)
jule_loss = cast(JULELoss, _ops.jule_loss.default)
kmeans = cast(KMeans, _ops.kmeans.default)
kmeans_assign = cast(KMeansAssign, _ops.kmeans_assign.default)
kmeans_plusplus = cast(KMeansPlusPlus, _ops.kmeans_plusplus.default)
knn = cast(KNN, _ops.knn.default)
affinity_weights = cast(AffinityWeights, _ops.affinity_weights.default)
initial_clusters = cast(InitialClusters, _ops.initial_clusters.default)
agglomerate = cast(Agglomerate, _ops.agglomerate.default)
ordered_product = cast(OrderedProduct, _ops.ordered_product.default)
