"""Images through a network: every file once, what is known from before, what is left out and why."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image
from support import toynets
from support.clidata import pictures, write_folder

from deepclust_ext.data import EmbeddingData, load_items
from deepclust_ext.embed import embed, embedding, load_backbone, load_embedded


@pytest.fixture(autouse=True)
def calls():
    """What the networks are given."""
    toynets.CALLS.clear()
    yield toynets.CALLS
    toynets.STOP_AFTER.clear()


@pytest.fixture
def backbone(calls):
    found = load_backbone("support.toynets:tiny", device="cpu")
    calls.clear()
    return found


def age(folder):
    """Dates that no file system rounds to now."""
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))
    return folder


@pytest.fixture
def photos(tmp_path):
    """40 grey images in four folders, one in colour, one broken, one black, and a text."""
    write_folder(tmp_path / "photos", 40, nested=True, size=16)
    colour = np.random.default_rng(1).integers(0, 256, (20, 31, 3), np.uint8)
    Image.fromarray(colour).save(tmp_path / "photos" / "kind0" / "colour.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "photos" / "kind1" / "black.png")
    (tmp_path / "photos" / "kind1" / "broken.png").write_bytes(b"no image")
    (tmp_path / "photos" / "note.txt").write_text("")
    return age(tmp_path / "photos")


def test_a_folder_becomes_a_file_that_fit_reads(tmp_path, photos, backbone, calls):
    found = embed(photos, backbone, out=tmp_path / "a.npz", batch=7, folder_labels=True)
    assert calls == [7] * 6  # with the black image, and not with the broken one
    assert found.n_new == len(found) == 41
    reasons = dict(found.skipped)
    assert set(reasons) == {"kind1/black.png", "kind1/broken.png", "note.txt"}
    assert "not finite" in reasons["kind1/black.png"]
    assert list(found.names) == sorted(found.names)
    read = load_items(tmp_path / "a.npz")
    assert isinstance(read, EmbeddingData)
    assert read.digest == found.digest
    assert read.embeddings.dtype == torch.float32
    assert read.labels.tolist() == [int(name[4]) for name in read.names]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    # Each is what the network says of that file alone.
    for row, name in zip(found.embeddings, found.names, strict=True):
        small = Image.open(photos / name).convert("RGB").resize((8, 8), Image.Resampling.BILINEAR)
        if name != "kind0/colour.png":
            pixels = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)[None] / 255
            assert torch.allclose(backbone.net((pixels - 0.5) / 0.25)[0], row, atol=1e-5), name


def test_new_photos_cost_only_themselves(tmp_path, photos, backbone, calls):
    out = tmp_path / "a.npz"
    first = embed(photos, backbone, out=out)
    calls.clear()
    again = embed(photos, backbone, out=out)
    # What could not be used is tried again, and nothing else.
    assert (sum(calls), again.n_new, again.digest) == (1, 0, first.digest)
    calls.clear()
    names = [name for name in first.names if name != "kind0/colour.png"]
    (photos / names[0]).unlink()
    (photos / names[1]).write_bytes((photos / names[2]).read_bytes() + b"more")  # another size alone
    os.utime(photos / names[1], (1e9, 1e9))
    os.utime(photos / names[3], (1e9, 1e9 + 1))  # another time alone
    Image.fromarray(np.full((9, 9), 200, np.uint8)).save(photos / "new.png")
    found = embed(photos, backbone, out=out)
    assert (sum(calls), found.n_new) == (4, 3)
    whole = embed(photos, backbone)
    assert found.names == whole.names
    torch.testing.assert_close(found.embeddings, whole.embeddings)  # batches of other sizes: the last bits are free
    # Its date is of this moment: it may change once more under the same one.
    assert embed(photos, backbone, out=out).n_new == 1


def test_others_embeddings_are_not_taken(tmp_path, photos, backbone):
    out = tmp_path / "a.npz"
    embed(photos, backbone, out=out)
    assert embed(photos, backbone, out=out, half=True).embeddings.dtype == torch.float16
    assert embed(photos, backbone, out=out).n_new == 41
    torch.nn.init.ones_(backbone.net.layers[1].bias)
    other = load_backbone("support.toynets:two_layers", device="cpu")
    assert embed(photos, other, out=out).n_new == 41
    assert embed(photos, other, out=out, stretch=4095).n_new == 41
    # One of several files of earlier calls.
    assert embed(photos, other, known=[tmp_path / "no.npz", out], stretch=4095).n_new == 0


def test_a_call_that_was_stopped_goes_on_where_it_was(tmp_path, photos, backbone, calls, monkeypatch):
    monkeypatch.setattr(embedding, "PERIOD", 0.0)
    whole = embed(photos, backbone)
    out = tmp_path / "a.npz"
    calls.clear()
    toynets.STOP_AFTER.append(20)
    with pytest.raises(KeyboardInterrupt):
        embed(photos, backbone, out=out, batch=5)
    assert not out.exists()
    toynets.STOP_AFTER.clear()
    part = tmp_path / ".a.npz.part"
    content = part.read_bytes()
    # Cut short, and damaged: what is whole before that counts.
    for damaged, at_least in ((content[:-3], 9), (content[:-3] + b"\0\0\0", 9), (b"x" + content[1:], 0)):
        part.write_bytes(damaged)
        found = embed(photos, backbone, out=out, batch=5)
        assert at_least <= 41 - found.n_new < 14
        assert np.allclose(found.embeddings, whole.embeddings, atol=1e-6)
        assert not part.exists()
        out.unlink()
    part.write_bytes(content)
    found = embed(photos, backbone, out=out, batch=5)
    assert 41 - found.n_new == 14  # of 15, as of the last file more might follow
    assert found.names == whole.names


def test_frames_of_files(tmp_path, backbone):
    several = [Image.fromarray(np.full((9, 9), 40 * number, np.uint8)) for number in range(1, 5)]
    (tmp_path / "in").mkdir()
    several[0].save(tmp_path / "in" / "a.tif", save_all=True, append_images=several[1:])
    several[0].save(tmp_path / "in" / "b#1.tif")
    age(tmp_path / "in")
    out = tmp_path / "a.npz"
    with pytest.warns(UserWarning, match="more than one frame"):
        assert embed(tmp_path / "in", backbone, out=out).names == ("a.tif", "b#1.tif")
    found = embed(tmp_path / "in", backbone, out=out, frames="all", batch=3)
    assert found.names == ("a.tif#0", "a.tif#1", "a.tif#2", "a.tif#3", "b#1.tif")
    assert embed(tmp_path / "in", backbone, out=out, frames="all").n_new == 0
    assert load_embedded(out).stamps[:, 2].tolist() == [4, 4, 4, 4, 0]


def test_a_file_of_which_a_frame_is_missing_is_embedded_whole_again(tmp_path, backbone, calls):
    several = [Image.fromarray(np.full((9, 9), value, np.uint8)) for value in (40, 0, 80)]
    (tmp_path / "in").mkdir()
    several[0].save(tmp_path / "in" / "a.tif", save_all=True, append_images=several[1:])
    several[0].save(tmp_path / "in" / "b.tif", save_all=True, append_images=several[:1])
    age(tmp_path / "in")
    out = tmp_path / "a.npz"
    # The black frame is left out, so its file is looked at anew.
    found = embed(tmp_path / "in", backbone, out=out, frames="all")
    assert found.names == ("a.tif#0", "a.tif#2", "b.tif#0", "b.tif#1")
    calls.clear()
    assert (embed(tmp_path / "in", backbone, out=out, frames="all").n_new, sum(calls)) == (2, 3)
    # A row that somebody took out of the file is made again, with those that came from the same file.
    with np.load(out) as arrays:
        kept = {name: array if array.ndim == 0 else array[:-1] for name, array in arrays.items()}
    np.savez(out, **kept)
    assert embed(tmp_path / "in", backbone, out=out, frames="all").n_new == 4


def test_arrays_are_embedded_once_too(tmp_path, backbone):
    images, kinds = pictures(30)
    np.savez(tmp_path / "in.npz", x=images, y=kinds)
    out = tmp_path / "a.npz"
    first = embed(tmp_path / "in.npz", backbone, out=out)
    assert first.labels.tolist() == kinds.tolist()
    assert embed(torch.from_numpy(images)[:, None].float() / 255, backbone, out=out).n_new == 0
    images[3] += 1
    assert embed(images, backbone, out=out).n_new == 1


def test_an_empty_folder_and_embeddings_are_refused(tmp_path, backbone):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"must hold images .*1 files skipped, the first 'a.png': not a readable im"):
        embed(tmp_path / "in", backbone)
    with pytest.raises(ValueError, match="'data' must be images, got embeddings"):
        embed(np.zeros((4, 5)), backbone)
    with pytest.raises(ValueError, match="'batch' must be at least 1, got 0"):
        embed(tmp_path, backbone, batch=0)
