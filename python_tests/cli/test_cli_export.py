"""Exports: never read as data, one labelling per folder, and nothing deleted that we did not write."""

from __future__ import annotations

import os

import numpy as np
import pytest
from support.clidata import SETTINGS, rows, single_thread, write_folder
from support.trees import content, save_png

from deepclust_ext.cli import main
from deepclust_ext.commands import _export
from deepclust_ext.commands._export_folder import ExportFolder
from deepclust_ext.runs import RunError


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with single_thread():
        yield


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
