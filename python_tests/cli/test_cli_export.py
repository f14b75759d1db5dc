"""Exports: never read as data, one labelling per folder, and nothing deleted that we did not write."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from support.clidata import SETTINGS, rows, write_folder
from support.trees import content, save_png
from tensorboard.backend.event_processing import event_accumulator

from deepclust_ext.cli import main
from deepclust_ext.commands import _export
from deepclust_ext.commands._export_folder import ExportFolder
from deepclust_ext.commands._tensorboard import Board
from deepclust_ext.data import load_items
from deepclust_ext.runs import RunError


@pytest.fixture
def fit(tmp_path):
    """`fit(data, out, *more)` runs `deepclust fit` for an epoch."""
    (tmp_path / "tiny.yaml").write_text(SETTINGS)

    def run(data, out, *more):
        words = ["fit", "dhog", "--config", str(tmp_path / "tiny.yaml"), "--data", str(data), "--out", str(out)]
        return main([*words, "--epochs", "1", "--quiet", *more])

    return run


def exported(folder):
    """Path to cluster, as an export shows it."""
    return {name.partition("/")[2]: name.partition("/")[0] for name in content(folder)}


def table(path):
    return {row["path"]: row["cluster"] for row in rows(path)}


@pytest.mark.parametrize("where", [".", "link", "../photos/."])
def test_exports_inside_the_data_never_come_back_as_data(tmp_path, fit, monkeypatch, capfd, where):
    photos = write_folder(tmp_path / "photos", 60)
    (tmp_path / "link").symlink_to("photos")
    monkeypatch.chdir(photos if where != "link" else tmp_path)
    out = "run" if where != "link" else "link/run"
    assert fit(where, out, "--export", "copy") == 0
    assert main(["evaluate", out, "--quiet"]) == 0
    for _ in range(2):
        assert main(["predict", out, "--data", where, "--out", "new.csv", "--export", "copy", "--quiet"]) == 0
    assert fit(where, "run2") == 0
    assert len(rows(photos / "run" / "labels.csv")) == 60
    assert [len(rows(path / "labels.csv")) for path in (photos / "run2", tmp_path / "run2") if path.exists()] == [60]
    assert "results of deepclust are not read as data" in capfd.readouterr().err


def test_a_second_export_shows_its_own_labelling_alone(tmp_path, fit):
    photos = write_folder(tmp_path / "photos", 60)
    (tmp_path / "out").mkdir()
    for seed in ("0", "5"):
        assert fit(photos, tmp_path / f"run{seed}", "--seed", seed) == 0
        words = ["--data", str(photos), "--out", str(tmp_path / "out" / "labels.csv"), "--quiet"]
        assert main(["predict", str(tmp_path / f"run{seed}"), *words, "--export", "copy"]) == 0
        assert exported(tmp_path / "out" / "clusters") == table(tmp_path / "out" / "labels.csv")
    assert sorted(os.listdir(tmp_path / "out")) == [".clusters.exported", "clusters", "labels.csv"]


def test_predictions_leave_the_training_export_alone(tmp_path, fit):
    photos, new = write_folder(tmp_path / "photos", 60), write_folder(tmp_path / "new", 20, seed=7)
    run = tmp_path / "run"
    assert fit(photos, run, "--export", "copy") == 0
    before = content(run / "clusters")
    assert main(["predict", str(run), "--data", str(new), "--export", "copy", "--quiet"]) == 0
    assert content(run / "clusters") == before
    assert exported(run / "predictions-clusters") == table(run / "predictions.csv")


def test_images_are_never_replaced_by_their_own_export(tmp_path, fit, capfd):
    photos = write_folder(tmp_path / "photos", 60)
    assert fit(photos, tmp_path / "run", "--export", "copy") == 0
    inner = write_folder(tmp_path / "out" / "clusters" / "0", 20)
    before = content(inner)
    words = ["predict", str(tmp_path / "run"), "--data", str(inner), "--out", str(tmp_path / "out" / "a.csv")]
    assert main([*words, "--export", "copy"]) == 2
    assert "--export must not replace the images it sorts" in capfd.readouterr().err
    assert content(inner) == before


def write(original, path):
    path.write_bytes(original.read_bytes())
    os.utime(path, (original.stat().st_atime, original.stat().st_mtime))


@pytest.fixture
def folder(tmp_path):
    """An export of two files, and their originals."""
    originals = {f"{n}/{n}.png": save_png(tmp_path / "images" / f"{n}.png", n) for n in range(2)}
    made = ExportFolder(tmp_path / "clusters")
    made.replace(originals, write)
    return made, originals


@pytest.mark.parametrize("change", ["foreign file", "foreign link", "foreign folder", "edited"])
def test_what_we_did_not_write_is_not_deleted(folder, change):
    made, originals = folder
    if change == "foreign file":
        (made.path / "0" / "notes.txt").write_text("mine")
    elif change == "foreign link":
        (made.path / "0" / "inner").symlink_to("..")
    elif change == "foreign folder":
        (made.path / "mine").mkdir()
    else:
        (made.path / "0" / "0.png").write_bytes(b"edited")
    before = content(made.path)
    with pytest.raises(RunError, match=r"must hold nothing but an earlier export, got .* move the folder away"):
        made.replace({"1/0.png": originals["0/0.png"]}, write)
    assert content(made.path) == before


def test_a_folder_of_the_users_own_is_refused_before_the_work(tmp_path, fit, capfd, monkeypatch):
    photos = write_folder(tmp_path / "photos", 60)
    assert fit(photos, tmp_path / "run") == 0
    save_png(tmp_path / "clusters" / "mine.png")
    monkeypatch.setattr("deepclust_ext.commands.predict.load", lambda *_, **__: pytest.fail("worked"))
    words = ["predict", str(tmp_path / "run"), "--data", str(photos), "--out", str(tmp_path / "a.csv")]
    assert main([*words, "--export", "link"]) == 2
    assert "got 'mine.png'" in capfd.readouterr().err


def test_a_failed_export_leaves_the_old_one(folder):
    made, originals = folder
    before = content(made.path)

    def fail(original, path):
        if path.name == "b.png":
            raise OSError(28, "No space left on device", str(path))
        write(original, path)

    with pytest.raises(OSError, match="No space left"):
        made.replace({"1/a.png": originals["0/0.png"], "1/b.png": originals["1/1.png"]}, fail)
    assert content(made.path) == before
    assert not made.new.exists()


@pytest.mark.parametrize("moment", ["writing", "swapping"])
def test_a_killed_export_does_not_stop_the_next(folder, moment):
    made, originals = folder

    def die(original, path):
        path.write_bytes(b"cut")
        os._exit(9)

    child = os.fork()
    if child == 0:
        rename = os.rename
        if moment == "swapping":
            os.rename = lambda source, target: rename(source, target) if source == made.path else os._exit(9)
        made.replace({"5/a.png": originals["0/0.png"]}, write if moment == "swapping" else die)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert made.new.exists()
    made.replace({"7/a.png": originals["0/0.png"]}, write)
    assert list(content(made.path)) == ["7/a.png"]
    assert not made.new.exists()
    assert not made.old.exists()


def test_names_that_are_no_text_are_exported(tmp_path):
    name = os.fsdecode(b"\xff\r.png")
    original = save_png(tmp_path / name)
    made = ExportFolder(tmp_path / "clusters")
    for cluster in range(2):
        made.replace({f"{cluster}/{name}": original}, write)
    assert list(content(made.path)) == [f"1/{name}"]


def test_links_are_replaced_and_their_targets_stay(tmp_path, fit):
    photos = write_folder(tmp_path / "photos", 60)
    before = content(photos)
    for seed in ("0", "5"):
        assert fit(photos, tmp_path / f"run{seed}", "--seed", seed) == 0
        words = ["predict", str(tmp_path / f"run{seed}"), "--data", str(photos), "--out", str(tmp_path / "a.csv")]
        assert main([*words, "--export", "link", "--quiet"]) == 0
    assert exported(tmp_path / _export.EXPORT) == table(tmp_path / "a.csv")
    assert content(photos) == before
    assert np.all([path.is_symlink() for path in (tmp_path / "clusters").rglob("*.png")])


def test_a_full_disk_keeps_the_earlier_export(tmp_path, fit, capfd, monkeypatch):
    photos = write_folder(tmp_path / "photos", 60)
    assert fit(photos, tmp_path / "run", "--export", "copy") == 0
    before = content(tmp_path / "run" / "clusters")

    def full(original, path):
        raise OSError(28, "No space left on device", str(original))

    monkeypatch.setattr("shutil.copy2", full)
    capfd.readouterr()
    assert fit(photos, tmp_path / "run", "--export", "copy", "--resume", "auto") == 2
    assert f"no space left to write '{tmp_path / 'run' / 'clusters'}'" in capfd.readouterr().err
    assert content(tmp_path / "run" / "clusters") == before


# Other formats


def inode(path):
    return path.stat().st_ino


def test_hard_links_are_the_files_themselves(tmp_path, fit):
    photos = write_folder(tmp_path / "photos", 60)
    (photos / "link.png").symlink_to(save_png(tmp_path / "elsewhere.png"))
    run = tmp_path / "run"
    for seed in ("0", "5"):
        assert fit(photos, tmp_path / f"run{seed}", "--seed", seed, "--export", "hardlink") == 0
    run = tmp_path / "run5"
    clusters = table(run / "labels.csv")
    assert exported(run / "clusters") == clusters
    for name, cluster in clusters.items():
        made = run / "clusters" / cluster / name
        assert not made.is_symlink()
        assert inode(made) == inode(photos / name)
    # A second export replaces the first, and the images stay.
    assert main(["predict", str(run), "--data", str(photos), "--quiet", "--export", "hardlink"]) == 0
    assert main(["predict", str(run), "--data", str(photos), "--quiet", "--export", "hardlink"]) == 0
    assert len(list(photos.iterdir())) == 61


def test_hard_links_to_another_file_system_are_refused_before_the_work(tmp_path, fit, capfd, monkeypatch):
    photos = write_folder(tmp_path / "photos", 20)
    other = tmp_path / "other"
    other.mkdir()
    stat = Path.stat

    class Elsewhere:
        def __init__(self, known):
            self.known = known

        def __getattr__(self, name):
            return self.known.st_dev + 1 if name == "st_dev" else getattr(self.known, name)

    monkeypatch.setattr(Path, "stat", lambda p, **o: Elsewhere(stat(p, **o)) if p.name == "other" else stat(p, **o))
    assert fit(photos, other / "run", "--export", "hardlink") == 2
    assert "--export hardlink must have --out on the file system of the images" in capfd.readouterr().err
    assert not (other / "run").exists()


def test_parquet_has_paths_clusters_and_embeddings_and_is_data_again(tmp_path, fit):
    photos = write_folder(tmp_path / "photos", 60)
    (photos / "a,\u00e9.png").write_bytes((photos / "0000.png").read_bytes())
    run = tmp_path / "run"
    assert fit(photos, run, "--format", "parquet,fiftyone") == 0
    made = pyarrow.parquet.read_table(run / "labels.parquet")
    assert made.column_names == ["path", "cluster", "confidence", "embeddings"]
    known = rows(run / "labels.csv")
    assert made["path"].to_pylist() == [row["path"] for row in known]
    assert made["cluster"].to_pylist() == [int(row["cluster"]) for row in known]
    assert made["confidence"].to_pylist() == pytest.approx([float(row["confidence"]) for row in known], abs=1e-6)
    embeddings = np.load(run / "embeddings.npz")["embeddings"]
    again = load_items(run / "labels.parquet")
    assert np.array_equal(again.values.numpy(), embeddings)
    assert list(again.names) == [row["path"] for row in known]
    assert main(["predict", str(run), "--data", str(photos), "--quiet", "--format", "parquet"]) == 0
    assert pyarrow.parquet.read_table(run / "predictions.parquet").column_names == ["path", "cluster", "confidence"]


def test_fiftyone_knows_images_by_their_paths_without_the_end(tmp_path, fit, capfd):
    photos = write_folder(tmp_path / "photos", 40, nested=True)
    run = tmp_path / "run"
    assert fit(photos, run, "--format", "fiftyone") == 0
    made = json.loads((run / "labels.fiftyone.json").read_text())
    known = {row["path"].removesuffix(".png"): row["cluster"] for row in rows(run / "labels.csv")}
    assert {name: made["classes"][target] for name, target in made["labels"].items()} == known
    # Two files that FiftyOne could not tell apart.
    (photos / "kind0" / "0000.jpg").write_bytes((photos / "kind0" / "0000.png").read_bytes())
    assert fit(photos, tmp_path / "two", "--format", "fiftyone") == 2
    assert "two images have the path 'kind0/0000' without its end" in capfd.readouterr().err
    assert len(rows(tmp_path / "two" / "labels.csv")) == 41


def test_formats_that_cannot_be_written_are_refused_before_the_work(tmp_path, fit, capfd, monkeypatch):
    photos = write_folder(tmp_path / "photos", 20)
    assert fit(photos, tmp_path / "run", "--format", "xml") == 2
    assert "--format must be of parquet, fiftyone, separated by commas, got 'xml'" in capfd.readouterr().err
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert fit(photos, tmp_path / "run", "--format", "parquet") == 2
    assert "pip install 'deepclust_ext[parquet]'" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


# TensorBoard


def drawn(folder):
    """Tag to {step: value} of the newest state of the curves."""
    events = event_accumulator.EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_curves_are_the_log(tmp_path, fit):
    photos, run = write_folder(tmp_path / "photos", 60, nested=True), tmp_path / "run"
    words = ("--folder-labels", "--tensorboard", "--evaluate-every", "1")
    assert fit(photos, run, *words, "--set", "epochs=3") == 0
    epochs = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    epochs = [record for record in epochs if record["event"] == "epoch"]
    found = drawn(run)
    assert found["loss"] == {r["epoch"]: pytest.approx(r["loss"]) for r in epochs}
    assert found["scores/1/nmi"] == {r["epoch"]: pytest.approx(r["scores"][1]["nmi"]) for r in epochs}
    assert "event" not in found
    # A finished run that is looked at again draws nothing.
    before = sorted(os.listdir(run / "tensorboard"))
    assert fit(photos, run, *words, "--set", "epochs=3", "--resume", "auto") == 0
    assert sorted(os.listdir(run / "tensorboard")) == before


def test_curves_after_a_resume_drop_what_is_done_again(tmp_path):
    board = Board(tmp_path)
    for epoch in (1, 2, 3):
        board.log("epoch", {"epoch": epoch, "loss": -1.0})
    board.close()
    board = Board(tmp_path)
    board.log("resume", {"epoch": 1, "step": 0})
    board.log("epoch", {"epoch": 2, "loss": -2.0})
    board.close()
    assert drawn(tmp_path)["loss"] == {1: -1.0, 2: -2.0}


def test_without_tensorboard_its_extra_is_named_before_the_work(tmp_path, fit, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert fit(write_folder(tmp_path / "photos", 20), tmp_path / "run", "--tensorboard") == 2
    assert "pip install 'deepclust_ext[tensorboard]'" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_unsure_images_have_a_folder_of_their_own(tmp_path, fit, capfd):
    photos, run = write_folder(tmp_path / "photos", 60), tmp_path / "run"
    assert fit(photos, run) == 0
    bound = np.median([float(row["confidence"]) for row in rows(run / "labels.csv")])
    # The run is finished: its results are made again for another bound.
    assert fit(photos, run, "--resume", "auto", "--min-confidence", str(bound), "--export", "copy") == 0
    unsure = {row["path"] for row in rows(run / "labels.csv") if row["cluster"] == "-1"}
    assert 0 < len(unsure) < 60
    assert unsure == {row["path"] for row in rows(run / "labels.csv") if float(row["confidence"]) < bound}
    found = exported(run / "clusters")
    assert {name for name, cluster in found.items() if cluster == "unsure"} == unsure
    assert len(found) == 60
    capfd.readouterr()
    for words, count in ([], len(unsure)), (["--min-confidence", "0"], 0), (["--min-confidence", "1"], 60):
        out = ["--out", str(tmp_path / "new.csv")]
        assert main(["predict", str(run), "--data", str(photos), *out, *words]) == 0
        assert f" {count} unsure; labels: " in capfd.readouterr().out
        assert sum(row["cluster"] == "-1" for row in rows(tmp_path / "new.csv")) == count
    assert main(["predict", str(run), "--data", str(photos), "--min-confidence", "2"]) == 2
    assert "'--min-confidence' must be at most 1, got 2.0" in capfd.readouterr().err
    assert main(["evaluate", str(run), "--quiet"]) == 0


def test_sizes_on_the_command_line(tmp_path, fit, capfd):
    photos, run = write_folder(tmp_path / "photos", 60), tmp_path / "run"
    words = ["fit", "kmeans", "--data", str(photos), "--out", str(run), "--clusters", "4", "--min-confidence", "0.01"]
    assert main([*words, "--max-cluster-size", "9"]) == 0
    out = capfd.readouterr().out
    assert "sizes: 0 small clusters merged, " in out
    assert "unsure: " in out
    clusters = [row["cluster"] for row in rows(run / "labels.csv")]
    assert max(clusters.count(name) for name in set(clusters)) <= 9
    assert main(["evaluate", str(run), "--quiet"]) == 0
    assert main(["predict", str(run), "--data", str(photos), "--quiet"]) == 0
    assert (run / "predictions.csv").read_bytes() == (run / "labels.csv").read_bytes()
