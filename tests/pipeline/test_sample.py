"""The made-up data set: laid out as AIdea's, the same on every run, and each class with its own mark."""

import csv
import hashlib
from collections import Counter

import cv2
import numpy as np
import pytest

from pipeline import sample
from pipeline.sample import CLASS_COUNTS, CLASS_NAMES, draw, write_sample

NORMAL, VOID, HORIZONTAL, VERTICAL, EDGE_DEFECT, PARTICLE = range(6)


def pictures(label, count=12):
    return [draw(label, np.random.default_rng([label, i])) for i in range(count)]


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def labels(path):
    with path.open(newline="") as file:
        return [row["Label"] for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    out = tmp_path_factory.mktemp("sample") / "small"
    write_sample(out, train=18, test=6, seed=3)
    return out


# --- One picture --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", range(6), ids=CLASS_NAMES)
def test_a_picture_is_512_by_512_gray_bytes_of_a_lit_surface(label):
    for picture in pictures(label, count=5):
        assert picture.shape == (512, 512)
        assert picture.dtype == np.uint8
        assert 125 < picture.mean() < 215
        assert 4 < picture.std() < 55


@pytest.mark.parametrize("label", range(6), ids=CLASS_NAMES)
def test_the_random_numbers_alone_decide_the_picture(label):
    first, again, other = (draw(label, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("bad_label", [-1, 6])
def test_a_label_that_is_no_class_is_refused(bad_label):
    with pytest.raises(ValueError, match=f"got {bad_label}"):
        draw(bad_label, np.random.default_rng(0))


# --- Each class has its mark --------------------------------------------------------------------------------


def unevenness(picture):
    """How far the averages of an 8 x 8 grid of tiles lie apart, in gray levels."""
    return cv2.resize(picture.astype(np.float32), (8, 8), interpolation=cv2.INTER_AREA).std()


def grain(picture):
    """Correlation of a pixel with its neighbour two to the right, slow changes of brightness aside."""
    fine = picture.astype(np.float32)
    fine -= cv2.GaussianBlur(fine, (0, 0), 12)
    return np.corrcoef(fine[:, 2:].ravel(), fine[:, :-2].ravel())[0, 1]


def test_normal_is_even():
    assert all(unevenness(picture) < 4 for picture in pictures(NORMAL))


def test_void_has_a_patch_on_coarser_grain():
    made = pictures(VOID)
    assert all(unevenness(picture) > 3.5 for picture in made)
    assert np.median([grain(p) for p in made]) > np.median([grain(p) for p in pictures(NORMAL)]) + 0.2


def test_horizontal_steps_in_brightness_near_mid_height():
    for picture in pictures(HORIZONTAL):
        rows = picture.mean(axis=1)
        steps = np.abs([rows[y - 30 : y].mean() - rows[y : y + 30].mean() for y in range(30, 482)])
        assert steps.max() > 4
        assert 120 < 30 + steps.argmax() < 360


@pytest.mark.parametrize("label", [VERTICAL, EDGE_DEFECT], ids=["vertical", "edge_defect"])
def test_stripes_and_edges_vary_across_the_columns_more_than_down_the_rows(label):
    for picture in pictures(label):
        assert picture.mean(axis=0).std() > picture.mean(axis=1).std()


def test_edge_defect_is_brightest_at_one_side():
    lean = np.array([picture[:, :8].mean() - picture[:, -8:].mean() for picture in pictures(EDGE_DEFECT)])
    assert all(np.abs(lean) > 15)
    assert 0 < sum(lean > 0) < len(lean)  # some left, some right


def test_particle_is_a_dark_spot_among_large_blobs():
    for picture in pictures(PARTICLE):
        assert grain(picture) > 0.9
        assert cv2.blur(picture, (15, 15))[200:312, 200:312].min() < picture.mean() - 25


# --- The data set -------------------------------------------------------------------------------------------


def test_the_layout_is_aideas_and_the_answers_lie_apart(small):
    train = [f"train_{i:05d}.png" for i in range(18)]
    test = [f"test_{i:05d}.png" for i in range(6)]
    assert sorted(digests(small)) == sorted(
        ["train.csv", "test.csv", "test_answers.csv"]
        + [f"train_images/{name}" for name in train]
        + [f"test_images/{name}" for name in test]
    )
    assert (small / "test.csv").read_bytes() == "".join(
        f"{row},{end}" for row, end in [("ID", "Label\r\n"), *((name, "\r\n") for name in test)]
    ).encode()
    for file, names in (("train.csv", train), ("test_answers.csv", test)):
        lines = (small / file).read_bytes().decode().split("\r\n")
        assert (lines[0], lines[-1]) == ("ID,Label", "")
        assert [line.split(",")[0] for line in lines[1:-1]] == names
        assert {line.split(",")[1] for line in lines[1:-1]} == set("012345")


def test_a_picture_on_disk_is_the_one_its_label_and_number_ask_for(small):
    label = int(labels(small / "test_answers.csv")[4])
    stored = cv2.imread(str(small / "test_images" / "test_00004.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored, draw(label, np.random.default_rng([3, sample.TEST, 4])))


def test_same_seed_same_bytes_and_another_seed_others(small, tmp_path):
    write_sample(tmp_path / "again", train=18, test=6, seed=3)
    assert digests(tmp_path / "again") == digests(small)
    write_sample(tmp_path / "other", train=6, test=6, seed=4)
    shared = digests(tmp_path / "other").keys() - {"test.csv"}  # which has nothing but the names
    assert all(digests(tmp_path / "other")[name] != digests(small)[name] for name in shared)


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures cost nothing: for tests that only count."""
    monkeypatch.setattr(sample, "draw", lambda label, rng: np.full((2, 2), label, np.uint8))


@pytest.mark.parametrize(("train", "test"), [(2528, 100), (600, 150), (60, 59), (7, 3), (6, 0)])
def test_labels_keep_the_balance_of_the_real_set(undrawn, tmp_path, train, test):
    write_sample(tmp_path / "set", train, test)
    for file, count in (("train.csv", train), ("test_answers.csv", test)):
        counts = Counter(labels(tmp_path / "set" / file))
        assert counts.total() == count
        for label, share in enumerate(CLASS_COUNTS):
            least = 5 if count >= 60 else 1 if count >= 6 else 0
            assert counts[str(label)] >= least
            assert abs(counts[str(label)] - share / sum(CLASS_COUNTS) * count) < 1 + least


def test_progress_counts_every_picture(undrawn, tmp_path):
    calls = []
    write_sample(tmp_path / "set", train=7, test=3, progress=lambda *call: calls.append(call))
    assert calls == [(done, 10, "drawn") for done in range(11)]


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        write_sample(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(FileExistsError):
        write_sample(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_empty_folder_is_filled_and_missing_parents_are_made(undrawn, tmp_path):
    (tmp_path / "empty").mkdir()
    write_sample(tmp_path / "empty", train=6, test=0)
    write_sample(tmp_path / "a" / "b", train=6, test=0)
    assert digests(tmp_path / "empty") == digests(tmp_path / "a" / "b")


@pytest.mark.parametrize(("train", "test"), [(5, 0), (6, -1)])
def test_too_few_pictures_are_refused(tmp_path, train, test):
    with pytest.raises(ValueError, match=f"got {train} and {test}"):
        write_sample(tmp_path / "set", train, test)
    assert not any(tmp_path.iterdir())


def test_a_failure_on_the_way_leaves_nothing_behind(undrawn, tmp_path):
    def stop(done, total, note):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path / "set", train=6, test=0, progress=stop)
    assert not any(tmp_path.iterdir())
