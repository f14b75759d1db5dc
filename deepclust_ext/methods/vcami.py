"""VCAMI: codes that tell images apart and labels that views share, under a mixture of Gaussians."""

from __future__ import annotations

import copy
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from torch import nn

from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.images import ImageData
from deepclust_ext.methods.base import Method
from deepclust_ext.methods.parameters import Optimizer, Precision, Schedule, documented, param, shared
from deepclust_ext.methods.vcami_learner import VCAMILearner
from deepclust_ext.nn.vcami import VCAMINet, build_vcami_net
from deepclust_ext.training.seeds import derive_seed


@documented
@dataclass(eq=False, repr=False)
class VCAMI(Method):
    r"""Variational deep embedding clustering by augmented mutual information maximization (VCAMI).

    An image x has a Gaussian of codes, z is drawn from it, and p(y|z) labels z; x' is another view of the image:

    .. math:: \min\; -\bigl[w L_{GMI}(x, z) + \lambda L_{LMI}(x, z) + \alpha I(y; y')\bigr]
              + \beta L_{GMM} + \gamma L_{REG}

    with the Jensen-Shannon bounds L_GMI of x's whole map and L_LMI of its places (here with the code of x' in place of
    z, see `bounds`), the divergence L_GMM of the codes from one Gaussian per class, per dimension, and L_REG of p(y|z)
    from uniform. The poster gives no networks, weights or sizes: these are ours. Configurations:
    `load_config("vcami", "small")`, "colour" and "paper".

    Parameters
    ----------
    {parameters}

    References
    ----------
    Ji, Sun, Hu and Yin, "Variational deep embedding clustering by augmented mutual information maximization", 2021.

    Examples
    --------
    >>> from deepclust_ext.methods import VCAMI, load_config
    >>> model = VCAMI(n_clusters=10, **load_config("vcami", "small"))
    >>> labels = model.fit_predict("mnist5k", run="runs/mnist5k")  # doctest: +SKIP
    """

    n_clusters: int = shared("n_clusters", 10)
    _: KW_ONLY
    global_weight: float = param(1.0, "w, of L_GMI.", at_least=0)
    local_weight: float = param(1.0, "lambda, of L_LMI.", at_least=0)
    alpha: float = param(4.0, "Of L_CMI, the information that two views' labels share.", at_least=0)
    beta: float = param(0.05, "Of L_GMM, which is per dimension.", at_least=0)
    gamma: float = param(0.01, "Of L_REG. It asks for uncertain labels, against L_CMI: keep it small.", at_least=0)
    lamb: float = param(
        1.5, "Weight of the marginals' entropies in L_CMI; above 1 asks for more even clusters.", at_least=0
    )
    prior_start: float = param(
        0.25, "Share of the epochs before L_GMM and L_REG join; k-means of the codes then starts the mixture.",
        at_least=0, below=1,
    )  # fmt: skip
    prior_rise: float = param(0.25, "Share of the epochs over which their weights then rise.", at_least=0, below=1)
    views: Literal["augmented", "clean"] = param(
        "augmented",
        'Whether x is another augmented view, or the image itself as on the poster. "clean" can let L_CMI tell the two '
        "kinds of view apart in place of the images.",
    )
    bounds: Literal["across", "within"] = param(
        "across",
        "Whose code L_GMI and L_LMI hold against the map of x: that of x', or its own as on the poster. Within a view "
        "they also ask codes for what tells the two views of an image apart.",
    )
    score: Literal["dot", "concat"] = param(
        "dot", "L_LMI by dot products of all pairs in the batch, or by a network on a code joined to a place."
    )
    posterior: Literal["classifier", "vade"] = param(
        "classifier",
        "p(y|z) by a network, as on the poster, or by Bayes' rule in the mixture, as VaDE has it; L_CMI then "
        "joins with L_GMM.",
    )
    divergence: Literal["closed", "sample"] = param(
        "closed", "L_GMM in closed form given p(y|z), or at the drawn z as the poster writes it, which is noisier."
    )
    labels: Literal["posterior", "kmeans"] = param(
        "posterior", "Where labels come from: p(y|z) at the mean, or k-means of the means, as without L_CMI."
    )
    n_classifiers: int = param(1, "Classifiers, each with a mixture; `selection` chooses one. Poster: 1.", at_least=1)
    over_clusters: int | None = param(
        None, "Clusters of a twin of each classifier, which joins L_CMI only, as in IIC.", at_least=2
    )
    network: str | nn.Module = param(
        "auto",
        'A name of `build_network` with parallel blocks ("tiny8", "small28", "resnet18"; "auto" goes by size), or any '
        "module that returns a map (B, C, h, w) and a feature (B, d); a copy of it is trained.",
    )
    width: float = shared("width", 1.0)
    latent: int = param(64, "d, the codes' dimensions.", at_least=1)
    units: int = param(128, "Width of the discriminators.", at_least=1)
    hidden: int = param(200, "Width of the classifier's hidden layer; 0 makes it linear.", at_least=0)
    batch_size: int = shared("batch_size", 250, "Its other images are an image's negatives.")
    augmentation: Any = shared("augmentation", "auto")
    optimizer: Optimizer = shared("optimizer", "adam")
    lr: float = shared("lr", 2e-3)
    weight_decay: float = shared("weight_decay", 0.0)
    epochs: int = shared("epochs", 60)
    schedule: Schedule = shared("schedule", "cosine")
    warmup: float = shared("warmup", 0.1)
    selection: Literal["nmi", "mi"] = shared("selection", "mi")
    seed: int = shared("seed", 0)
    evaluate_every: int = shared("evaluate_every", 10)
    checkpoint_every: int = shared("checkpoint_every", 10)
    precision: Precision = shared("precision", "float32")
    device: Any = shared("device", "auto")

    def make_net(self, view_shape: tuple[int, int, int]) -> VCAMINet:
        """The networks; a module that was given is copied: the parameter stays untouched."""
        same = ("width", "latent", "units", "hidden", "score", "posterior", "n_classifiers", "over_clusters")
        options = {name: getattr(self, name) for name in same}
        options |= {"trunk_seed": derive_seed(self.seed, "trunk"), "seed": derive_seed(self.seed, "heads")}
        return build_vcami_net(copy.deepcopy(self.network), view_shape, self.n_clusters, **options)

    def check_parameters(self) -> None:
        """With what two parameters say together."""
        super().check_parameters()
        if self.posterior == "vade" and (self.n_classifiers > 1 or self.over_clusters is not None):
            raise ValueError(f"{self._name}: 'posterior' must be 'classifier' with several classifiers or twins")

    def make_learner(self, net: VCAMINet, images: ImageData, augmentation: Augmentation) -> VCAMILearner:
        """The method at work on the images."""
        return VCAMILearner(self, net, images, augmentation)
