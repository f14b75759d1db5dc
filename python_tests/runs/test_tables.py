"""CSV files: every name that a file system allows reads back."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from deepclust_ext.runs import csv_bytes, labels_csv, write_csv

NAMES = [
    "Icon\r",
    "a\r.png",
    "b\r\n.png",
    "c\n.png",
    ' "q", r.png',
    "NA",
    "001",
    "näme",
    "\ufeffbom",
    "'",
    "\t",
    "\x1c",
]


def test_every_name_reads_back(tmp_path):
    pandas = pytest.importorskip("pandas")
    write_csv(tmp_path / "skipped.csv", ("path", "reason"), [(name, "why") for name in NAMES])
    with (tmp_path / "skipped.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["path", "reason"], *([name, "why"] for name in NAMES)]
    table = pandas.read_csv(tmp_path / "skipped.csv", dtype=str, keep_default_na=False)
    assert table["path"].tolist() == NAMES


@pytest.mark.parametrize("sign", ["\r", "\n", ",", '"'])
def test_a_name_is_one_cell(sign):
    # Written out: the csv module of this Python may or may not quote a carriage return.
    quoted = sign * (2 if sign == '"' else 1)
    assert labels_csv([f"a{sign}"], np.array([3]), np.array([0.5])) == (
        f'path,cluster,confidence\n"a{quoted}",3,0.500000\n'.encode()
    )


def test_none_is_an_empty_cell():
    assert csv_bytes(("a", "b"), [(None, 1.5)]) == b"a,b\n,1.5\n"
