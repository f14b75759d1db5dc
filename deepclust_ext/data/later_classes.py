"""Classes that came after the run: a CSV file of paths and labels, matched to the images of the run."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

# Names that a message shows, and that metrics.json keeps.
SHOWN, KEPT = 3, 100


@dataclass(frozen=True)
class Classes:
    """Classes of some of a run's images.

    Attributes
    ----------
    rows : ndarray of int64, shape (M,)
        Which images, ascending; M >= 2.
    y : ndarray of int64, shape (M,)
        Their classes.
    names : tuple of str
        What the file calls the classes.
    unmatched : tuple of str
        Paths in the file that are no images of the run.
    unlabelled : tuple of str
        Images of the run without a class.
    """

    rows: npt.NDArray[np.int64]
    y: npt.NDArray[np.int64]
    names: tuple[str, ...]
    unmatched: tuple[str, ...]
    unlabelled: tuple[str, ...]

    def record(self, file: str) -> dict[str, object]:
        """For metrics.json."""
        return {
            "file": file,
            "n_images": len(self.rows),
            "classes": list(self.names),
            "n_unmatched": len(self.unmatched),
            "unmatched": list(self.unmatched[:KEPT]),
            "n_unlabelled": len(self.unlabelled),
        }

    def remarks(self, file: str) -> list[str]:
        """What did not match, by name."""
        found = []
        if self.unmatched:
            found.append(f"{_rows(len(self.unmatched))} of {file} name no image of the run: {_some(self.unmatched)}")
        if self.unlabelled:
            found.append(
                f"{len(self.unlabelled)} of {len(self.unlabelled) + len(self.rows)} images have no label, and are in "
                f"no score: {_some(self.unlabelled)}"
            )
        return found


def read_classes(file: str, names: Sequence[str], folder: Path | None = None) -> Classes:
    """Read a CSV file with the columns `path` and `label`, and match its rows to the images of a run.

    Parameters
    ----------
    file : str
        Labels may be any text; a row whose label is empty gives none.
    names : sequence of str
        Of the images, as in labels.csv.
    folder : Path, optional
        That of the images: paths may also be absolute, or begin with it.

    Returns
    -------
    classes : Classes

    Raises
    ------
    ValueError
        If there are no such columns, a path has two labels, or fewer than two images get one.
    """
    known = {name: row for row, name in enumerate(names)}
    found: dict[int, str] = {}
    unmatched: list[str] = []
    for number, path, label in _read(file):
        row = next((known[each] for each in _spellings(path, folder) if each in known), None)
        if row is None:
            unmatched.append(path)
        elif label and found.setdefault(row, label) != label:
            raise ValueError(
                f"--labels must give an image one label, got {found[row]!r} and, in line {number} of {file}, {label!r} "
                f"for {path!r}"
            )
    if len(found) < 2:
        hint = f"the file names {_some(unmatched)}, the run {_some(names)}" if unmatched else "the file has no labels"
        raise ValueError(f"--labels must give at least two images of the run a label, got {len(found)}: {hint}")
    rows = np.array(sorted(found), dtype=np.int64)
    classes, y = np.unique(np.array([found[row] for row in rows.tolist()]), return_inverse=True)
    unlabelled = tuple(name for row, name in enumerate(names) if row not in found)
    return Classes(rows, y.astype(np.int64), tuple(classes.tolist()), tuple(unmatched), unlabelled)


def _read(file: str) -> list[tuple[int, str, str]]:
    """Number of the line, path and label of each row."""
    try:
        # File names that are no UTF-8 keep their bytes; spreadsheets write a mark at the beginning.
        with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            reader = csv.DictReader(stream)
            header = reader.fieldnames or []
            if not {"path", "label"} <= set(header):
                raise ValueError(
                    f"--labels must be a CSV file with the columns path and label, got {', '.join(header) or 'none'} "
                    f"in {file!r}"
                )
            return [(reader.line_num, row["path"] or "", (row["label"] or "").strip()) for row in reader]
    except OSError as error:
        raise ValueError(f"--labels must be a file that can be read, got {file!r}: {error.strerror}") from error
    except csv.Error as error:
        raise ValueError(f"--labels must be a CSV file, got {file!r}: {error}") from error


def _spellings(path: str, folder: Path | None) -> list[str]:
    """The path as it is, tidied, and relative to the folder of the images."""
    found = [path, os.path.normpath(path)]
    return found if folder is None else [*found, os.path.relpath(os.path.abspath(path), os.path.abspath(folder))]


def _rows(count: int) -> str:
    """A count of rows in words."""
    return "1 row" if count == 1 else f"{count} rows"


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
