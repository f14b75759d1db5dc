"""DHOG at work: the pull of views, the push of heads, and the twins' passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import deepclust_ext
from deepclust_ext.data.augment import Augmentation
from deepclust_ext.nn import ClusterNet
from deepclust_ext.training import Learner, Place, StepLoss, scheduled
from deepclust_ext.training.optim import build_optimizer


class DHOGLearner(Learner):
    """Pulls the views of each image together, pushes each head from those before it."""

    # p is a DHOG, which imports this file.
    def __init__(self, p: Any, net: ClusterNet, images: Any, augmentation: Augmentation) -> None:
        optimizer = build_optimizer(p.optimizer, net.parameters(), lr=p.lr, weight_decay=p.weight_decay)
        super().__init__(net, optimizer, images, augmentation)
        self.p, self.n_views, self.selection = p, p.n_augmentations, p.selection
        self.watched = (net.n_heads, p.n_clusters)
        alternate = p.over_clusters is not None and p.over_mode == "alternate"
        self.passes = ("over",) * p.over_passes + ("main",) * p.main_passes if alternate else ("both",)

    def rate(self, place: Place) -> float:
        """By the schedule's name."""
        return scheduled(self.p.schedule, place, warmup=self.p.warmup)

    def forward(self, views: Tensor, index: Tensor, place: Place) -> tuple[Tensor | None, ...]:  # noqa: ARG002
        """The heads' probabilities, each (A * m, H, K): of the main heads, the twins, and from a cut-off trunk."""
        features = self.net.features(views)
        main, over = self.net.heads(features, place.stage)
        cut = None
        if main is not None and self.p.push_trunk == "detach" and self.p.alpha > 0:
            # Of features the gradient does not pass: the push moves the heads' own layers alone.
            cut, _ = self.net.heads([feature.detach() for feature in features], "main")
        return tuple(None if each is None else each.transpose(0, 1) for each in (main, over, cut))

    def loss(self, outputs: tuple[Tensor | None, ...], index: Tensor, place: Place) -> StepLoss:  # noqa: ARG002
        """The paper's equation 4, and the twins' pull."""
        main, over, cut = (None if each is None else each.transpose(0, 1) for each in outputs)
        loss: Tensor | float = 0.0
        terms: dict[str, Tensor] = {}
        if main is not None:
            loss, terms["pull"], terms["push"] = self._ladders(main, alpha=self.p.alpha if cut is None else 0.0)
            if cut is not None:
                pushed, _, terms["push"] = self._ladders(cut, alpha=self.p.alpha)
                loss = loss + pushed - self._ladders(cut, alpha=0.0)[0]
        if over is not None:
            over_loss, terms["over_pull"], _ = self._ladders(over, alpha=0.0, lamb=1.0)
            loss = loss + over_loss
        return StepLoss(torch.as_tensor(loss), terms, None if main is None else self._by_view(main))

    def _ladders(
        self, probabilities: Tensor, *, alpha: float, lamb: float | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, and each head's pull and push, of (H, A * n, K); sub-head s is pushed from earlier sub-heads s."""
        p = self.p
        if probabilities.is_cuda and deepclust_ext.build_info()["cuda_library"] is None:
            # Without its CUDA kernel the loss is taken on the CPU: some hundred kB a step.
            probabilities = probabilities.cpu()
        lamb = p.lamb if lamb is None else lamb
        ladders = self._by_view(probabilities).unflatten(1, (-1, p.n_sub_heads)).unbind(2)
        found = [
            deepclust_ext.dhog_loss(z, alpha=alpha, pooling=p.pooling, push_norm=p.push_norm, lamb=lamb)
            for z in ladders
        ]
        pull = torch.stack([part.pull for part in found], dim=1).flatten()
        push = torch.stack([part.push.sum(1) for part in found], dim=1).flatten()
        return torch.stack([part.loss for part in found]).mean(), pull, push

    def _by_view(self, probabilities: Tensor) -> Tensor:
        """Split (H, A * n, K) into (A, H, n, K)."""
        heads, _, clusters = probabilities.shape
        return probabilities.view(heads, self.n_views, -1, clusters).transpose(0, 1)
