"""What every kind of data has in common: a row of values an item, labels if there are any, names, and a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

Self = TypeVar("Self", bound="Items")

# Rows hashed at a time: values that are mapped from a file are never all in memory.
_ROWS = 4096


class Items:
    """Base of `ImageData` and `EmbeddingData`, which are dataclasses with the fields below and one of values.

    Attributes
    ----------
    labels : Tensor or None
        (N,) int64, not negative. Used for scores only, never to train or to choose.
    names : tuple of str
        One name an item: a path, or the index in decimal.
    skipped : tuple of (str, str)
        (path, reason) for every file that was found but could not be used.
    source : str
        Where the items came from, for logs and messages.
    """

    # What the items are, for messages, and the field that holds their values.
    kind: ClassVar[str]
    field: ClassVar[str]

    labels: Tensor | None
    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    source: str

    @property
    def values(self) -> Tensor:
        """What the loop takes rows of: images (N, C, H, W), or embeddings (N, d)."""
        values: Tensor = getattr(self, self.field)
        return values

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one item: (C, H, W), or (d,)."""
        return tuple(self.values.shape[1:])

    def with_values(self: Self, values: Tensor) -> Self:
        """The same items with other values, such as their copy on another device."""
        changes: dict[str, Any] = {self.field: values}
        return replace(self, **changes)  # type: ignore[type-var]

    def with_labels(self: Self, labels: Tensor) -> Self:
        """The same items with other labels."""
        changes: dict[str, Any] = {"labels": labels}
        return replace(self, **changes)  # type: ignore[type-var]

    def __len__(self) -> int:
        return self.values.shape[0]

    def _describe(self, what: str) -> str:
        """The text of `repr`."""
        labels = "no labels" if self.labels is None else f"{self.n_classes} classes"
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        name = type(self).__name__
        return f"{name}({self.source}: {len(self)} {self.kind} of {what} {self.values.dtype}, {labels}{skipped})"

    @cached_property
    def n_classes(self) -> int | None:
        """How many different labels there are; None without labels."""
        return None if self.labels is None else int(torch.unique(self.labels).numel())

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) over shape, dtype, values and names: equal exactly when the data are."""
        values = self.values.detach()
        digest = hashlib.sha256(f"{tuple(values.shape)} {values.dtype}".encode())
        for rows in values.split(_ROWS):
            # As bytes: NumPy has no bfloat16.
            digest.update(rows.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        for name in self.names:
            # The length stands before the name: ("ab", "c") and ("a", "bc") must differ. surrogateescape
            # keeps file names that are no UTF-8.
            encoded = name.encode("utf-8", "surrogateescape")
            digest.update(f"{len(encoded)}:".encode() + encoded)
        return digest.hexdigest()

    def subset(self: Self, index: Tensor | Sequence[int]) -> Self:
        """Return the items at `index`, in that order.

        Parameters
        ----------
        index : Tensor or sequence of int
            (M,) indices, or an (N,) boolean mask.

        Returns
        -------
        items
            M items with their labels and names; `skipped` and `source` are kept.

        Raises
        ------
        IndexError
            If an index is outside the data.

        Examples
        --------
        >>> from deepclust_ext.data import ImageData
        >>> ImageData(torch.zeros(3, 1, 8, 8)).subset([2, 0]).names
        ('2', '0')
        """
        index = torch.as_tensor(index)
        index = index.nonzero().flatten() if index.dtype == torch.bool else index.to(torch.int64)
        if index.numel() and not (-len(self) <= int(index.min()) and int(index.max()) < len(self)):
            raise IndexError(
                f"{type(self).__name__}.subset: 'index' must be between 0 and {len(self) - 1}, got "
                f"{int(index.min())} to {int(index.max())}"
            )
        changes: dict[str, Any] = {
            self.field: self.values[index],
            "labels": None if self.labels is None else self.labels[index],
            "names": tuple(self.names[i] for i in index.tolist()),
        }
        return replace(self, **changes)  # type: ignore[type-var]

    def _check_rest(self) -> None:
        """Check labels and names against the values, which are checked already."""
        name, n = type(self).__name__, len(self)
        if self.labels is not None:
            if self.labels.dtype != torch.int64 or self.labels.shape != (n,):
                raise ValueError(
                    f"{name}: 'labels' must be int64 of shape ({n},), "
                    f"got {self.labels.dtype} of shape {tuple(self.labels.shape)}"
                )
            if n and int(self.labels.min()) < 0:
                raise ValueError(
                    f"{name}: 'labels' must not be negative, got {int(self.labels.min())}; "
                    f"leave unlabelled {self.kind} out, or pass no labels"
                )
        if not self.names:
            object.__setattr__(self, "names", tuple(map(str, range(n))))
        if len(self.names) != n:
            raise ValueError(f"{name}: 'names' must hold {n} names, one an image, got {len(self.names)}")
