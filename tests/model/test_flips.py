"""Whether training pictures may be mirrored is found from them."""

import numpy as np
import pytest

from model.settings import Flips, Mirror
from model.training.flips import without_harm


def marked(seed, mark, each=15, side=48):
    """Noisy pictures of two classes, (pictures, labels): `mark` (label, two places, picture) draws into each."""
    random = np.random.default_rng(seed)
    pictures, labels = [], np.arange(2 * each) % 2
    for label in labels:
        picture = random.normal(128, 12, (side, side))
        mark(label, random.integers(4, 14, 2), picture)
        pictures.append(np.clip(picture, 0, 255).astype(np.uint8)[..., None])
    return pictures, labels


def left_or_right(label, where, picture):
    picture[:, slice(0, where[0]) if label else slice(-where[0], None)] += 60


def top_or_bottom(label, where, picture):
    picture[slice(0, where[0]) if label else slice(-where[0], None)] += 60


def across_or_down(label, where, picture):
    bar = slice(3 * where[0], 3 * where[0] + 3)
    picture[bar if label else (slice(None), bar)] += 60


def rising_or_falling(label, where, picture):
    lines = picture if label else picture[:, ::-1]
    for step in range(24):
        row, column = where + 3 + step
        lines[row : row + 3, column : column + 3] += 60


FOUND = {
    "a band at the left or at the right": (left_or_right, {Mirror.VERTICAL}),
    "a band at the top or at the bottom": (top_or_bottom, {Mirror.HORIZONTAL}),
    "a bar across or down": (across_or_down, {Mirror.HORIZONTAL, Mirror.VERTICAL}),
    "a scratch that rises or falls": (rising_or_falling, set()),
}


@pytest.mark.parametrize("case", FOUND)
def test_classes_that_are_mirror_images_of_each_other_are_not_mirrored(case):
    mark, harmless = FOUND[case]
    assert set(without_harm(*marked(0, mark))) == harmless


def test_the_same_pictures_give_the_same_decision():
    pictures, labels = marked(1, rising_or_falling)
    assert without_harm(pictures, labels) == without_harm([picture.copy() for picture in pictures], labels)


def test_color_decides_alike():
    pictures, labels = marked(0, left_or_right)
    assert without_harm([np.repeat(picture, 3, axis=2) for picture in pictures], labels) == (Mirror.VERTICAL,)


@pytest.mark.parametrize(
    ("flips", "mirrors"),
    [
        (Flips.NONE, ()),
        (Flips.HORIZONTAL, (Mirror.HORIZONTAL,)),
        (Flips.VERTICAL, (Mirror.VERTICAL,)),
        (Flips.BOTH, (Mirror.HORIZONTAL, Mirror.VERTICAL)),
    ],
)
def test_a_setting_says_what_is_mirrored(flips, mirrors):
    assert flips.mirrors == mirrors
