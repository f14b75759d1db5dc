"""Features of a frozen network's convolutional layers, as linear probes read them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepclust_ext import _checks as check
from deepclust_ext._isolation import own_torch_state
from deepclust_ext.data.images import as_float
from deepclust_ext.nn._modes import evaluation_mode


def layer_names(network: nn.Module) -> list[str]:
    """Return the names of the layers to probe, in the order of the network's modules.

    Parameters
    ----------
    network : nn.Module
        If it has an attribute `probe_layers`, a tuple of its modules' names, these are the layers. Else every
        `nn.Conv2d` is one, read after its `nn.ReLU` where that follows it (or its `nn.BatchNorm2d`) in the same
        `nn.Sequential`. A ReLU that stands in several places is passed over: it has no output of its own.

    Returns
    -------
    list of str
        Names as `network.named_modules()` gives them.

    Raises
    ------
    ValueError
        If `probe_layers` names something that is no module of the network, or there is no convolution.
    TypeError
        If the network is no nn.Module.

    Examples
    --------
    >>> layer_names(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3)))
    ['2', '3']
    """
    _check_network("layer_names", network)
    modules = dict(network.named_modules(remove_duplicate=False))
    chosen = getattr(network, "probe_layers", None)
    if chosen is not None:
        names = list(chosen)
        unknown = [name for name in names if not name or name not in modules]
        if unknown:
            raise ValueError(
                f"layer_names: 'probe_layers' of the network must hold names of its modules, got {unknown[0]!r}"
            )
        return names
    places = Counter(modules.values())
    names = [
        _activation(name, modules, places) for name, part in network.named_modules() if isinstance(part, nn.Conv2d)
    ]
    if not names:
        raise ValueError(
            f"layer_names: 'network' must hold an nn.Conv2d or name its layers in 'probe_layers', "
            f"got {type(network).__name__} with neither"
        )
    return names


@own_torch_state()
def layer_features(
    network: nn.Module,
    images: Tensor,
    layers: Sequence[str],
    *,
    max_features: int = 10_000,
    batch_size: int = 512,
) -> dict[str, Tensor]:
    """Compute the features of several layers in one pass over the images.

    An output (B, C, h, w) with more than `max_features` entries an image is averaged over cells of its pixels
    (adaptive average pooling) to the largest side s with C s² <= `max_features`, then flattened: so the layers
    of one network are compared at about one number of features.

    Parameters
    ----------
    network : nn.Module
        Maps images to anything; run in evaluation mode, without gradients, and left as it was.
    images : Tensor
        (N, C, H, W), uint8 (divided by 255) or floating point, on any device.
    layers : sequence of str
        Names of modules with outputs (B, C, h, w), each run once a pass; see `layer_names`.
    max_features : int
        Most features of a layer, at least its channels.
    batch_size : int
        Images a pass takes at once.

    Returns
    -------
    dict of str to Tensor
        For each layer in the order given, float32 (N, C s s) on the CPU.

    Raises
    ------
    ValueError
        If a name is unknown or given twice, a layer's output is no (B, C, h, w), a layer does not run exactly once
        a pass, it has more channels than `max_features`, or there are no images.
    TypeError
        If the images are no tensor of uint8 or floating point, or the network is no nn.Module.

    References
    ----------
    Zhang, Isola and Efros, Split-Brain Autoencoders, 2017, which pools to about 9,000 features. Caron et al., Deep
    Clustering for Unsupervised Learning of Visual Features, 2018, section 4.1.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    >>> features = layer_features(network, torch.zeros(2, 1, 8, 8), ["1"], max_features=40)
    >>> features["1"].shape
    torch.Size([2, 36])
    """
    _check_network("layer_features", network)
    _check_images(images)
    names = _check_layers(network, layers)
    for argument, value in (("max_features", max_features), ("batch_size", batch_size)):
        check.whole_number("layer_features", argument, value, at_least=1)
    example = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0, device="cpu"))
    recorders = {name: _Recorder(name, len(images), max_features) for name in names}
    with evaluation_mode(network), torch.inference_mode(), ExitStack() as hooks:
        for name, recorder in recorders.items():
            hooks.callback(network.get_submodule(name).register_forward_hook(recorder).remove)
        for start in range(0, len(images), batch_size):
            batch = as_float(images[start : start + batch_size].to(example.device)).to(example.dtype)
            for recorder in recorders.values():
                recorder.expect(start, len(batch))
            network(batch)
            for recorder in recorders.values():
                recorder.check_ran()
    return {name: recorder.features for name, recorder in recorders.items()}


class _Recorder:
    """A forward hook that writes a layer's pooled outputs into the rows of one tensor, batch after batch."""

    def __init__(self, name: str, n_images: int, max_features: int) -> None:
        self.name = name
        self.n_images = n_images
        self.max_features = max_features
        self.features = torch.empty(0, device="cpu")
        self.start = self.n_rows = self.n_calls = 0

    def expect(self, start: int, n_rows: int) -> None:
        """Announce the batch whose first image has the number `start`."""
        self.start, self.n_rows, self.n_calls = start, n_rows, 0

    def check_ran(self) -> None:
        """Refuse a layer that the network did not use."""
        if self.n_calls == 0:
            raise ValueError(f"layer_features: 'layers' must hold layers that the network runs, got {self.name!r}")

    def __call__(self, _module: nn.Module, _inputs: tuple[object, ...], output: object) -> None:
        self.n_calls += 1
        if self.n_calls > 1:
            raise ValueError(
                f"layer_features: 'layers' must hold layers that run once a pass, got {self.name!r}, which runs "
                "more often; name the module around it"
            )
        if not isinstance(output, Tensor) or output.ndim != 4 or len(output) != self.n_rows:
            found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"layer_features: 'layers' must hold layers with outputs ({self.n_rows}, C, h, w), "
                f"got {found} from {self.name!r}"
            )
        rows = self._pool(output.float()).flatten(1)
        if self.start == 0:
            # An inference tensor could never be used in a caller's own training.
            with torch.inference_mode(mode=False):
                self.features = torch.empty(self.n_images, rows.shape[1], dtype=torch.float32, device="cpu")
        # A copy: the next module may work in place on what this one returned.
        self.features[self.start : self.start + self.n_rows] = rows

    def _pool(self, output: Tensor) -> Tensor:
        """Average (B, C, h, w) to the largest side that `max_features` allows."""
        channels, height, width = output.shape[1:]
        if channels * height * width <= self.max_features:
            return output
        side = math.isqrt(self.max_features // channels)
        if side == 0:
            raise ValueError(
                f"layer_features: 'max_features' must be at least the channels of {self.name!r} ({channels}), "
                f"got {self.max_features}"
            )
        # A map may be narrower than it is high: pooling must not stretch it.
        return F.adaptive_avg_pool2d(output, (min(side, height), min(side, width)))


def _activation(name: str, modules: dict[str, nn.Module], places: Counter[nn.Module]) -> str:
    """Return the name of the ReLU that belongs to a convolution, or the convolution's own."""
    parent, _, own = name.rpartition(".")
    container = modules[parent]
    if not isinstance(container, nn.Sequential):
        return name
    siblings = list(container.named_children())
    following = siblings[[key for key, _ in siblings].index(own) + 1 :]
    if following and isinstance(following[0][1], nn.BatchNorm2d):
        following = following[1:]
    if not following or not isinstance(following[0][1], nn.ReLU) or places[following[0][1]] > 1:
        return name
    return f"{parent}.{following[0][0]}" if parent else following[0][0]


def _check_images(images: object) -> None:
    """Refuse anything but a batch of at least one image."""
    if not isinstance(images, Tensor):
        raise TypeError(
            f"layer_features: 'images' must be a Tensor, got {type(images).__name__}; "
            "take load_data(...).images or convert with torch.as_tensor"
        )
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(
            f"layer_features: 'images' must have shape (N, C, H, W), N at least 1, got {tuple(images.shape)}"
        )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"layer_features: 'images' must be uint8 or floating point, got {images.dtype}")


def _check_network(function: str, network: object) -> None:
    """Refuse anything but a module."""
    if not isinstance(network, nn.Module):
        raise TypeError(f"{function}: 'network' must be a torch.nn.Module, got {type(network).__name__}")


def _check_layers(network: nn.Module, layers: Sequence[str]) -> list[str]:
    """Return the names as a list, or refuse one that is unknown or given twice."""
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        raise TypeError(f"layer_features: 'layers' must be a sequence of names, got {layers!r}; pass [{layers!r}]")
    names = list(layers)
    modules = dict(network.named_modules(remove_duplicate=False))
    for name in names:
        if not isinstance(name, str) or not name or name not in modules:
            known = ", ".join(repr(other) for other in modules if other)
            raise ValueError(f"layer_features: 'layers' must be names of modules ({known}), got {name!r}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"layer_features: 'layers' must hold names, each once, got {names}")
    return names
