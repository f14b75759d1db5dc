"""What is asked of final clusters, the same for every method: how sure, how small, how large."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from deepclust_ext.data.items import Items
from deepclust_ext.methods.parameters import param
from deepclust_ext.training.regrouping import Limits


@dataclass(eq=False, repr=False)
class Limited:
    """Parameters that every method has, though no training depends on them: they may change when a run is resumed.

    See `training.regrouping.regroup` for the sizes, and `training.placement.Centers` for what confidence is.
    """

    _: KW_ONLY
    min_confidence: float | None = param(
        None, "Less sure labels become -1; new images too. See the column confidence.", neutral=True, at_least=0
    )
    min_cluster_size: int | None = param(
        None, "Smaller clusters join the nearest; new images follow.", neutral=True, at_least=1
    )
    max_cluster_size: int | None = param(
        None,
        "Larger clusters are split, into parts of at least half as many; new images follow.",
        neutral=True,
        at_least=2,
    )

    @property
    def limits(self) -> Limits:
        """The three together."""
        return Limits(self.min_confidence, self.min_cluster_size, self.max_cluster_size)

    def check_limits(self) -> None:
        """Refuse limits that no clusters can keep."""
        name, (sure, least, most) = type(self).__name__, self.limits
        if sure is not None and sure > 1:
            raise ValueError(f"{name}: 'min_confidence' must be at most 1, got {sure}")
        if least is not None and most is not None and least > (most + 1) // 2:
            raise ValueError(
                f"{name}: 'min_cluster_size' must be at most half of 'max_cluster_size', rounded up "
                f"({(most + 1) // 2}), got {least}: the parts of a cluster that is split can be so small"
            )

    def check_sizes(self, images: Items) -> None:
        """Refuse sizes that the data cannot have."""
        if self.min_cluster_size is not None and self.min_cluster_size > len(images):
            raise ValueError(
                f"{type(self).__name__}: 'min_cluster_size' must be at most the number of {images.kind} "
                f"({len(images)}), got {self.min_cluster_size}"
            )
