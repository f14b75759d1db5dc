"""How a picture becomes a square: scaled, the centre cut out, by which filter."""

from __future__ import annotations

from dataclasses import dataclass

from deepclust_ext import _checks as check

FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


@dataclass(frozen=True)
class Square:
    """The square that is made of a picture.

    Parameters
    ----------
    size : int
        Its side, in pixels.
    resize : int, optional
        What the shorter side is scaled to before the centre is cut out; by default the side itself.
    interpolation : str
        One of Pillow's filters, which are antialiased.
    squash : bool
        Scale both sides to `resize`, so that nothing is cut at the longer one and shapes change.

    Raises
    ------
    TypeError, ValueError
        If one of them cannot be.
    """

    size: int
    resize: int | None = None
    interpolation: str = "bilinear"
    squash: bool = False

    def __post_init__(self) -> None:
        check.whole_number("Square", "size", self.size, at_least=1)
        if self.resize is not None:
            check.whole_number("Square", "resize", self.resize, at_least=self.size)
        check.choice("Square", "interpolation", self.interpolation, FILTERS)
        check.flag("Square", "squash", self.squash)

    @property
    def short(self) -> int:
        """What the shorter side is scaled to."""
        return self.size if self.resize is None else self.resize

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the scaled picture."""
        if self.squash:
            return self.short, self.short
        least = min(width, height)
        if self.resize is None:
            return max(self.size, round(width * self.size / least)), max(self.size, round(height * self.size / least))
        # Torchvision's rounding, which networks were trained with.
        return width * self.resize // least, height * self.resize // least

    def first(self, length: int) -> int:
        """Where in a scaled side of this length the square begins."""
        return (length - self.size) // 2 if self.resize is None else round((length - self.size) / 2)

    @property
    def reach(self) -> int:
        """How far the filter looks, in pixels of the scaled picture."""
        return {"bicubic": 2, "lanczos": 3}.get(self.interpolation, 1)
