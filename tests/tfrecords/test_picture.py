"""From PNG bytes to pixels: what cv2 sees in a whole file, and a reason for every file that is not whole."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tfrecords.pictures.errors import PictureError
from tfrecords.pictures.formats import decode, inspect
from tfrecords.pictures.perceptual_hash import perceptual_hash
from tfrecords.pictures.preprocessing import equalize, pad, prepare, resize
from tfrecords.settings import PreprocessSettings

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def noise(*shape: int, dtype=np.uint8, seed: int = 0) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top, shape, dtype, endpoint=True)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def ihdr(width: int, height: int, bits: int = 8, color: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))


def idat(rows: list[bytes]) -> bytes:
    return chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))


def file(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks)


def few_bits(bits: int, width: int = 21, height: int = 5) -> bytes:
    """A gray PNG of 1, 2 or 4 bits a pixel, which cv2 and Pillow read but hardly write."""
    rows = [row.tobytes() for row in noise(height, -(-width * bits // 8), seed=bits)]
    return file(ihdr(width, height, bits), idat(rows), chunk(b"IEND"))


def interlaced() -> bytes:
    """An 8x8 picture in seven passes (Adam7): every pixel its own gray."""
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = [row.tobytes() for y, x, down, across in passes for row in pixels[y::down, x::across]]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1))
    return file(header, idat(rows), chunk(b"IEND"))


def by_pillow(mode: str, **options) -> bytes:
    data = io.BytesIO()
    Image.fromarray(noise(9, 14, 3)).convert(mode).save(data, "PNG", **options)
    return data.getvalue()


KINDS = {
    "gray": png(noise(9, 14)),
    "gray 16 bit": png(noise(9, 14, dtype=np.uint16)),
    "color": png(noise(9, 14, 3)),
    "color 16 bit": png(noise(9, 14, 3, dtype=np.uint16)),
    "color and alpha": png(noise(9, 14, 4)),
    "gray and alpha": by_pillow("LA"),
    "palette": by_pillow("P"),
    "palette of 16": by_pillow("P", bits=4),
    "transparent palette": by_pillow("P", transparency=3),
    "1 bit": few_bits(1),
    "2 bit": few_bits(2),
    "4 bit": few_bits(4),
    "interlaced": interlaced(),
    "1x1": png(noise(1, 1)),
    "1 high": png(noise(1, 50)),
    "1 wide": png(noise(50, 1)),
}
NORMAL = KINDS["gray"]
PLAIN = PreprocessSettings()
SMALL = PreprocessSettings(image_size_px=32)


def by_cv2(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


# --- Every kind of PNG --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_gives_what_cv2_gives_in_gray(kind):
    pixels = decode(KINDS[kind], PLAIN)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 2
    np.testing.assert_array_equal(pixels, by_cv2(KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_becomes_a_square_of_gray_bytes_and_always_the_same(kind):
    pixels = prepare(KINDS[kind], SMALL)
    assert (pixels.shape, pixels.dtype) == ((32, 32), np.uint8)
    np.testing.assert_array_equal(prepare(KINDS[kind], SMALL), pixels)


def test_gray_pixels_are_those_that_were_saved():
    pixels = noise(9, 14)
    np.testing.assert_array_equal(decode(png(pixels), PLAIN), pixels)


def test_sixteen_bits_keep_their_high_byte():
    pixels = noise(9, 14, dtype=np.uint16)
    np.testing.assert_array_equal(decode(png(pixels), PLAIN), pixels >> 8)


def test_color_becomes_luma():
    blue, green, red = np.moveaxis(noise(9, 14, 3).astype(float), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    np.testing.assert_allclose(decode(KINDS["color"], PLAIN), luma, atol=1)


@pytest.mark.parametrize("kind", KINDS)
def test_in_color_decoding_gives_red_green_and_blue(kind):
    pixels = decode(KINDS[kind], PreprocessSettings(color="rgb"))
    bgr = cv2.imdecode(np.frombuffer(KINDS[kind], np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(pixels, bgr[..., ::-1])


def test_alpha_is_dropped():
    pixels = noise(9, 14, 4)
    np.testing.assert_array_equal(decode(png(pixels), PLAIN), decode(png(pixels[..., :3]), PLAIN))


@pytest.mark.parametrize(("bits", "step"), [(1, 255), (2, 85), (4, 17)])
def test_few_bits_are_stretched_to_the_whole_range(bits, step):
    pixels = decode(few_bits(bits), PLAIN)
    assert set(np.unique(pixels)) == set(range(0, 256, step))


def test_of_an_animation_the_still_picture_counts():
    still, moving = (np.full((4, 4), gray, np.uint8) for gray in (50, 200))
    control = struct.pack(">IIIIIHHBB", 0, 4, 4, 0, 0, 1, 10, 0, 0)
    frame = struct.pack(">I", 1) + zlib.compress(b"".join(b"\0" + row.tobytes() for row in moving))
    parts = [ihdr(4, 4), chunk(b"acTL", struct.pack(">II", 1, 0)), idat([row.tobytes() for row in still])]
    parts += [chunk(b"fcTL", control), chunk(b"fdAT", frame), chunk(b"IEND")]
    np.testing.assert_array_equal(decode(file(*parts), PLAIN), still)


def test_what_follows_the_end_mark_is_of_no_matter():
    np.testing.assert_array_equal(decode(NORMAL + b"more", PLAIN), decode(NORMAL, PLAIN))


# --- Pictures that cv2 wrote, which are decoded without it ---------------------------------------------------


@settings(max_examples=100)
@given(
    sides=st.tuples(st.integers(1, 70), st.integers(2, 70)),  # a single column it does not filter
    seed=st.integers(0, 99),
)
def test_what_cv2_wrote_comes_back_without_asking_cv2(sides, seed):
    pixels = noise(*sides, seed=seed)
    data = png(pixels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cv2, "imdecode", lambda *_: pytest.fail("cv2 decodes"))
        np.testing.assert_array_equal(decode(data, PLAIN), pixels)


@pytest.mark.parametrize("side", [2900, 2910])
def test_sums_below_and_above_two_to_the_31_come_back(side):
    pixels = np.tile(np.arange(side, 0, -1).astype(np.uint8), (side, 1))  # every difference is 255
    assert (255 * side**2 >= 2**31) == (side == 2910)
    np.testing.assert_array_equal(decode(png(pixels), PLAIN), pixels)


def check_as_cv2(data: bytes) -> None:
    expected = by_cv2(data)
    if expected is None:
        with pytest.raises(PictureError, match="do not decode"):
            decode(data, PLAIN)
    else:
        np.testing.assert_array_equal(decode(data, PLAIN), expected)


def filtered(filters: list[int], width: int = 6) -> bytes:
    """Rows of noise behind the filter bytes given."""
    return b"".join(bytes([one]) + row.tobytes() for one, row in zip(filters, noise(len(filters), width), strict=True))


@settings(max_examples=300)
@given(
    others=st.lists(st.integers(0, 5), max_size=12),
    rows=st.integers(10, 14),
    cut=st.integers(0, 12),
    more=st.binary(max_size=3),
    flip=st.one_of(st.none(), st.tuples(st.integers(0, 20), st.integers(1, 255))),
)
def test_rows_of_any_filter_and_streams_of_any_damage_are_decoded_as_cv2_does_or_refused(others, rows, cut, more, flip):
    stream = bytearray(zlib.compress(filtered([1] * (12 - len(others)) + others)))
    if flip:
        stream[flip[0]] ^= flip[1]
    stream = bytes(stream[: len(stream) - cut]) + more
    data = file(ihdr(6, rows), chunk(b"IDAT", stream[:9]), chunk(b"IDAT", stream[9:]), chunk(b"IEND"))
    check_as_cv2(data)


def gray(width: int = 6, height: int = 12, color: int = 0, interlaced: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, interlaced))


SUBBED = filtered([1] * 12)
LONG = filtered([1] * 2, 1_100_000)
FAR = bytes([1]) + np.random.default_rng(0).integers(0, 256, 600, np.uint8).tobytes()  # repeats lie 601 bytes apart
TOO_FAR = bytes([0x08, 0x1D]) + zlib.compress(FAR * 4)[2:]  # declares a window of 256 bytes
not_bare = {
    "turned by Exif": (
        gray(),
        chunk(b"eXIf", bytes.fromhex("4d4d002a0000000800010112000300000001000600000000")),
        SUBBED,
    ),
    "interlaced": (gray(interlaced=1), b"", SUBBED),
    "palette": (gray(color=3), chunk(b"PLTE", bytes(range(256)) * 3), SUBBED),
    "palette that is missing": (gray(color=3), b"", SUBBED),
    "too wide for cv2": (gray(1_100_000, 2), b"", LONG),
    "too high for cv2": (gray(2, 1_100_000), b"", bytes([1, 2, 3]) * 1_100_000),
}


@pytest.mark.parametrize("case", not_bare)
def test_what_is_more_than_rows_of_gray_bytes_is_left_to_cv2(case):
    header, more, rows = not_bare[case]
    check_as_cv2(file(header, more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND")))


def test_a_stream_that_reaches_further_back_than_its_window_is_left_to_cv2():
    check_as_cv2(file(gray(600, 4), chunk(b"IDAT", TOO_FAR), chunk(b"IEND")))


@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_second_header_is_refused_as_cv2_does(place):
    parts = [gray(), *(chunk(b"IDAT", part) for part in (zlib.compress(SUBBED)[:9], zlib.compress(SUBBED)[9:]))]
    data = file(*parts[:place], gray(), *parts[place:], chunk(b"IEND"))
    assert by_cv2(data) is None
    with pytest.raises(PictureError, match="second header at byte"):
        decode(data, PreprocessSettings(max_megapixels=1))


# Traced memory is that of a whole process. Background threads that earlier tests left would count too, so a picture is
# decoded in a process of its own.
PEAK_OF_DECODING = """
import sys, tracemalloc
from pathlib import Path
from tfrecords.pictures.formats import decode
from tfrecords.settings import PreprocessSettings
tiny, picture = (Path(name).read_bytes() for name in sys.argv[1:])
settings = PreprocessSettings(max_megapixels=1)
decode(tiny, settings)  # loads what is loaded late
tracemalloc.start()
decode(picture, settings)
print(tracemalloc.get_traced_memory()[1])
"""


def peak_of_decoding(picture: bytes, folder: Path) -> int:
    """Bytes that decoding takes at most."""
    names = [folder / "tiny.png", folder / "picture.png"]
    for name, data in zip(names, [png(noise(6, 12)), picture], strict=True):
        name.write_bytes(data)
    told = subprocess.run([sys.executable, "-c", PEAK_OF_DECODING, *names], capture_output=True, text=True, check=True)
    return int(told.stdout)


@pytest.mark.parametrize("most", ["chunks", "packed bytes"])
def test_what_is_far_longer_than_its_pixels_is_not_copied(most, tmp_path):
    stream = zlib.compress(SUBBED)
    more = chunk(b"IDAT") * 300_000 if most == "chunks" else chunk(b"IDAT", bytes(4_000_000))
    data = file(gray(), chunk(b"IDAT", stream), more, chunk(b"IEND"))
    assert peak_of_decoding(data, tmp_path) < 100_000


def test_a_stream_that_unpacks_to_more_than_the_picture_is_not_unpacked_whole(tmp_path):
    bomb = zlib.compress(bytes([1]) * (7 * 12) + bytes(200_000_000))
    data = file(ihdr(6, 12), chunk(b"IDAT", bomb), chunk(b"IEND"))
    assert peak_of_decoding(data, tmp_path) < 10_000_000


# --- Files that are not whole -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gray", "color and alpha", "palette", "1x1"])
def test_a_file_cut_at_any_byte_is_refused(kind):
    data = KINDS[kind]
    assert inspect(data)
    for end in range(len(data)):
        with pytest.raises(PictureError, match=r"cut off after \d+ bytes|not a PNG|empty"):
            inspect(data[:end])


@pytest.mark.parametrize("kind", ["gray", "palette", "1x1"])
def test_a_file_with_any_one_byte_changed_is_refused(kind):
    data = KINDS[kind]
    for at in range(len(data)):
        for change in (0x01, 0x80, 0xFF):
            flipped = bytearray(data)
            flipped[at] ^= change
            with pytest.raises(PictureError):
                decode(bytes(flipped), PLAIN)


@settings(max_examples=100)
@given(data=st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda tail: SIGNATURE + tail)))
def test_any_bytes_are_decoded_as_cv2_does_or_refused(data):
    try:
        pixels = decode(data, PreprocessSettings(max_megapixels=1))
    except PictureError:
        return
    np.testing.assert_array_equal(pixels, by_cv2(data))


@settings(max_examples=100)
@given(
    kinds=st.lists(
        st.sampled_from([b"IDAT", b"PLTE", b"tRNS", b"IEND", b"IHDR", b"acTL", b"fdAT", b"zTXt"]), max_size=5
    ),
    body=st.binary(max_size=30),
    bits=st.sampled_from([1, 2, 4, 8, 16, 3]),
    color=st.integers(0, 7),
    sides=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_any_frame_of_valid_chunks_is_decoded_as_cv2_does_or_refused(kinds, body, bits, color, sides):
    data = file(ihdr(*sides, bits, color), *(chunk(kind, body) for kind in kinds), chunk(b"IEND"))
    try:
        pixels = decode(data, PreprocessSettings(max_megapixels=1))
    except PictureError:
        return
    np.testing.assert_array_equal(pixels, by_cv2(data))


# Pixels that are damaged although the checksum of their chunk holds, as after a faulty encoder.
PACKED = zlib.compress(b"".join(b"\0" + row.tobytes() for row in noise(9, 14)))
CHANGED = PACKED[:60] + bytes([PACKED[60] ^ 1]) + PACKED[61:]
bad_files = {
    "empty": (b"", "the file is empty"),
    "gif": (b"GIF89a" + bytes(20), "not a PNG, JPEG, BMP, TIFF or WebP"),
    "text": (b"not a picture at all", "not a PNG"),
    "signature alone": (SIGNATURE, "cut off after 8 bytes"),
    "no header": (file(idat([b"\0"]), chunk(b"IEND")), "does not begin with its header"),
    "short header": (file(chunk(b"IHDR", b"\0" * 12), chunk(b"IEND")), "does not begin with its header"),
    "no pixels": (file(ihdr(4, 4), chunk(b"IEND")), "holds no pixels"),
    "no end mark": (NORMAL[:-12], "cut off"),
    "pixels are no zlib": (file(ihdr(4, 4), chunk(b"IDAT", b"abc"), chunk(b"IEND")), "do not decode"),
    "pixels of no bytes": (file(ihdr(4, 4), chunk(b"IDAT"), chunk(b"IEND")), "do not decode"),
    "no width": (file(ihdr(0, 4), idat([b""] * 4), chunk(b"IEND")), "do not decode"),
    "pixels for half the rows": (file(ihdr(4, 4), idat([b"abcd"] * 2), chunk(b"IEND")), "do not decode"),
    "pixels cut within": (file(ihdr(14, 9), chunk(b"IDAT", PACKED[:50]), chunk(b"IEND")), "do not decode"),
    "pixels changed within": (file(ihdr(14, 9), chunk(b"IDAT", CHANGED), chunk(b"IEND")), "do not decode"),
    "bits that do not exist": (file(ihdr(4, 4, 3), idat([b"\0\0\0\0"] * 4), chunk(b"IEND")), "do not decode"),
}


@pytest.mark.parametrize("case", bad_files)
def test_the_reason_says_what_was_seen(case):
    data, reason = bad_files[case]
    with pytest.raises(PictureError, match=reason):
        decode(data, PLAIN)


def test_a_damaged_chunk_is_named_with_its_place():
    at = NORMAL.index(b"IDAT") - 4
    flipped = bytearray(NORMAL)
    flipped[at + 20] ^= 1
    with pytest.raises(PictureError, match=f"checksum of its IDAT chunk at byte {at}"):
        inspect(bytes(flipped))


def test_checksums_that_held_before_need_not_be_looked_at_again():
    at = NORMAL.index(b"IEND") + 4
    spoilt = bytearray(NORMAL)
    spoilt[at] ^= 1
    with pytest.raises(PictureError, match="checksum of its IEND chunk"):
        decode(bytes(spoilt), PLAIN)
    np.testing.assert_array_equal(decode(bytes(spoilt), PLAIN, checksums=False), by_cv2(NORMAL))


# --- Size ---------------------------------------------------------------------------------------------------


def test_inspecting_tells_the_declared_size():
    frame = inspect(NORMAL)
    assert (frame.width, frame.height) == (14, 9)


def test_a_bomb_is_refused_by_its_declared_size_before_it_is_decoded(monkeypatch):
    bomb = file(ihdr(60_000, 60_000), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND"))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(PictureError, match="declares 60000 x 60000 pixels, more than 100 megapixels"):
        decode(bomb, PLAIN)


def test_the_largest_size_is_itself_allowed():
    data = png(noise(100, 100))
    assert decode(data, PreprocessSettings(max_megapixels=0.01)).shape == (100, 100)
    with pytest.raises(PictureError, match=r"more than 0\.0099 megapixels"):
        decode(data, PreprocessSettings(max_megapixels=0.0099))


def test_a_size_that_only_cv2_refuses_is_a_reason_too():
    bomb = file(ihdr(60_000, 60_000), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND"))
    with pytest.raises(PictureError, match="do not decode"):
        decode(bomb, PreprocessSettings(max_megapixels=1e9))


# --- Contrast -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(48, 48), (50, 31), (1, 1), (1, 40)])
@pytest.mark.parametrize("way", ["clahe", "histogram", "none"])
def test_equalizing_keeps_shape_and_kind_and_leaves_its_input_alone(way, shape):
    pixels = noise(*shape)
    before = pixels.copy()
    evened = equalize(pixels, PreprocessSettings(equalize=way))
    assert (evened.shape, evened.dtype) == (shape, np.uint8)
    np.testing.assert_array_equal(pixels, before)


def test_each_way_of_equalizing_is_cv2s():
    pixels = (noise(48, 48) // 4 + 90).astype(np.uint8)
    clahe = PreprocessSettings(equalize="clahe", clahe_clip_limit=3.0, clahe_tile_grid=4)
    np.testing.assert_array_equal(equalize(pixels, clahe), cv2.createCLAHE(3.0, (4, 4)).apply(pixels))
    np.testing.assert_array_equal(equalize(pixels, PreprocessSettings(equalize="histogram")), cv2.equalizeHist(pixels))
    np.testing.assert_array_equal(equalize(pixels, PreprocessSettings(equalize="none")), pixels)


def test_clahe_widens_a_narrow_contrast_and_more_so_at_a_higher_limit():
    ramp = np.tile(np.linspace(110, 140, 64).astype(np.uint8), (64, 1))
    spreads = [equalize(ramp, PreprocessSettings(clahe_clip_limit=limit)).std() for limit in (2.0, 8.0)]
    assert ramp.std() < spreads[0] < spreads[1]


# --- Size of the record -------------------------------------------------------------------------------------


def test_shrinking_averages_areas():
    pixels = noise(64, 64)
    mean = pixels.reshape(32, 2, 32, 2).mean((1, 3))
    np.testing.assert_allclose(resize(pixels, 32), mean, atol=0.51)


def test_growing_interpolates_between_pixels():
    np.testing.assert_array_equal(resize(np.array([[0, 100]], np.uint8), 4), [[0, 25, 75, 100]] * 4)


@pytest.mark.parametrize(("shape", "way"), [((40, 50), cv2.INTER_AREA), ((20, 30), cv2.INTER_LINEAR)])
def test_a_picture_shrinks_by_area_and_grows_bilinearly(shape, way):
    pixels = noise(*shape)
    np.testing.assert_array_equal(resize(pixels, 32), cv2.resize(pixels, (32, 32), interpolation=way))


def test_a_line_one_pixel_thin_survives_where_one_side_shrinks_and_the_other_grows():
    for row in range(600):
        pixels = np.zeros((600, 20), np.uint8)
        pixels[row] = 250
        assert resize(pixels, 60).sum(axis=0).min() in range(20, 31), row  # a tenth of it, in one row or two
    np.testing.assert_array_equal(resize(pixels.T, 60), resize(pixels, 60).T)


def test_padding_centres_the_picture_between_its_mirror_images():
    pixels = noise(50, 20)
    square = pad(pixels)
    assert square.shape == (50, 50)
    np.testing.assert_array_equal(square[:, 15:35], pixels)
    np.testing.assert_array_equal(square[:, 14], pixels[:, 1])
    np.testing.assert_array_equal(pad(pixels.T), square.T)


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (600, 7), (33, 33)])
def test_any_shape_is_padded_to_a_square(shape):
    assert pad(noise(*shape)).shape == (max(shape), max(shape))


def test_a_padded_picture_keeps_its_proportions():
    data, chosen = png(noise(80, 40)), PreprocessSettings(image_size_px=40, equalize="none", fit="pad")
    expected = cv2.resize(by_cv2(data), (20, 40), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(prepare(data, chosen)[:, 10:30], expected)


def test_a_picture_of_the_right_size_stays_as_it_is():
    pixels = noise(32, 32)
    np.testing.assert_array_equal(resize(pixels, 32), pixels)


def test_one_pixel_fills_the_record():
    data = png(np.full((1, 1), 77, np.uint8))
    np.testing.assert_array_equal(prepare(data, PreprocessSettings(image_size_px=32, equalize="none")), 77)


def test_contrast_is_evened_before_the_size_changes():
    data, chosen = png(noise(96, 80)), PreprocessSettings(image_size_px=40)
    expected = cv2.resize(cv2.createCLAHE(2.0, (8, 8)).apply(by_cv2(data)), (40, 40), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(prepare(data, chosen), expected)


# --- The perceptual hash ------------------------------------------------------------------------------------


def blobs(seed: int, size: int = 64) -> np.ndarray:
    return cv2.resize(noise(6, 6, seed=seed), (size, size), interpolation=cv2.INTER_CUBIC)


def bits_between(some: np.ndarray, other: np.ndarray) -> int:
    return (perceptual_hash(some) ^ perceptual_hash(other)).bit_count()


def test_pictures_that_look_the_same_have_nearly_the_same_hash_and_others_have_not():
    one = blobs(0)
    brighter = cv2.convertScaleAbs(one, alpha=0.8, beta=20)
    noisy = cv2.add(one, noise(64, 64) // 32)
    larger = cv2.resize(one, (200, 200), interpolation=cv2.INTER_CUBIC)
    assert max(bits_between(one, same) for same in (one, brighter, noisy, larger)) <= 6
    assert min(bits_between(one, blobs(seed)) for seed in range(1, 30)) > 6


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (512, 512)])
def test_every_picture_has_a_hash_of_64_bits_and_always_the_same(shape):
    pixels = noise(*shape)
    assert 0 <= perceptual_hash(pixels) < 2**64
    assert perceptual_hash(pixels) == perceptual_hash(pixels.copy())
