"""From files of every format to pixels: told by content, equal to what was saved, refused where they are not whole."""

import io
import struct
import warnings

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tfrecords.pictures import png
from tfrecords.pictures.errors import PictureError
from tfrecords.pictures.formats import FORMATS, decode, format_of, in_bytes, inspect, samples, saturates
from tfrecords.pictures.tiff import SEVERAL_PAGES
from tfrecords.settings import PreprocessSettings

GRAY, RGB = PreprocessSettings(), PreprocessSettings(color="rgb")


def noise(*shape: int, top: int = 255, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top + 1, shape, np.uint16 if top > 255 else np.uint8)


def smooth(*shape: int) -> np.ndarray:
    return cv2.blur(noise(*shape), (9, 9))


def by_pillow(pixels: np.ndarray, kind: str, mode: str = "", **options) -> bytes:
    data = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(data, kind, **options)
    return data.getvalue()


def by_tifffile(pixels: np.ndarray, **options) -> bytes:
    data = io.BytesIO()
    tifffile.imwrite(data, pixels, **options)
    return data.getvalue()


def luma(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)


WRITERS = {"PNG": {}, "JPEG": {"quality": 100}, "BMP": {}, "TIFF": {}, "WebP": {"lossless": True}}
FILES = {name: by_pillow(smooth(20, 30), name, **options) for name, options in WRITERS.items()}


def refusal(data: bytes, preprocess: PreprocessSettings = GRAY) -> PictureError:
    with pytest.raises(PictureError) as error:
        decode(data, preprocess)
    assert error.value.remedy
    return error.value


# --- Every format -------------------------------------------------------------------------------------------


def test_every_format_is_told_by_its_content():
    assert [format_of(FILES[form.name]) for form in FORMATS] == list(FORMATS)


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_pixels_that_were_saved(name):
    for preprocess in (GRAY, RGB):
        pixels = decode(FILES[name], preprocess)
        expected = smooth(20, 30) if preprocess == GRAY else np.dstack([smooth(20, 30)] * 3)
        assert (pixels.shape, pixels.dtype) == (expected.shape, np.uint8)
        np.testing.assert_allclose(pixels.astype(int), expected, atol=2 if name == "JPEG" else 0)


@pytest.mark.parametrize("name", WRITERS)
def test_color_stays_or_becomes_luma(name):
    pixels = smooth(20, 30, 3)
    data = by_pillow(pixels, name, **WRITERS[name] | ({"subsampling": 0} if name == "JPEG" else {}))
    away = 3 if name == "JPEG" else 0
    np.testing.assert_allclose(decode(data, RGB).astype(int), pixels, atol=away)
    np.testing.assert_allclose(decode(data, GRAY).astype(int), luma(pixels), atol=away or (name == "PNG"))


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_cut_anywhere_is_refused(name):
    data = FILES[name]
    for end in [*range(0, len(data) - 1, 7)]:
        refusal(data[:end])


@pytest.mark.parametrize("name", ["PNG", "JPEG", "TIFF", "WebP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_turns_the_picture_as_cv2_turns_it(name, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    data = by_pillow(smooth(20, 30), name, exif=exif, **WRITERS[name])
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(decode(data, GRAY), expected)


@pytest.mark.parametrize("name", WRITERS)
def test_a_size_above_the_bound_is_refused_before_it_is_decoded(name):
    assert decode(FILES[name], PreprocessSettings(max_megapixels=0.0006)).shape == (20, 30)
    error = refusal(FILES[name], PreprocessSettings(max_megapixels=0.0005))
    assert str(error) == f"the {name} declares 30 x 20 pixels, more than 0.0005 megapixels"
    assert "preprocess.max_megapixels" in error.remedy


@settings(max_examples=200)
@given(data=st.binary(max_size=120), name=st.sampled_from(list(WRITERS)))
def test_any_bytes_behind_a_signature_are_decoded_or_refused(data, name):
    begin = 12 if name == "WebP" else 4
    try:
        decode(FILES[name][:begin] + data, PreprocessSettings(max_megapixels=1))
    except PictureError as error:
        assert str(error).isprintable()


# --- PNG ----------------------------------------------------------------------------------------------------


def test_damage_in_a_text_does_not_condemn_whole_pixels_and_is_noted():
    text = b"tEXtComment\0a camera"
    chunk = struct.pack(">I", len(text) - 4) + text + bytes(4)  # a checksum that does not hold
    data = FILES["PNG"][:33] + chunk + FILES["PNG"][33:]
    assert inspect(data).notes == (png.DAMAGED_BESIDE,)
    np.testing.assert_array_equal(decode(data, GRAY, checksums=False), smooth(20, 30))
    assert inspect(FILES["PNG"]).notes == ()


@pytest.mark.parametrize("kind", [b"iDAT", b"pLTE", b"iHDR"])
def test_a_chunk_of_pixels_whose_name_lost_a_bit_is_damage(kind):
    chunk = struct.pack(">I", 0) + kind + bytes(4)
    assert "checksum" in str(refusal(FILES["PNG"][:33] + chunk + FILES["PNG"][33:]))


# --- JPEG ---------------------------------------------------------------------------------------------------


def test_a_jpeg_with_damaged_pixels_is_refused_where_cv2_shows_gray():
    data = by_pillow(noise(64, 64), "JPEG")
    at = data.index(b"\xff\xda") + 800
    damaged = data[:at] + data[at + 400 :]
    assert cv2.imdecode(np.frombuffer(damaged, np.uint8), cv2.IMREAD_GRAYSCALE) is not None
    assert "do not decode (Corrupt JPEG data" in str(refusal(damaged))


@pytest.mark.parametrize("more", [{"progressive": True}, {"restart_marker_blocks": 2}, {"subsampling": 2}])
def test_jpegs_of_every_kind_are_what_cv2_decodes(more):
    data = by_pillow(smooth(37, 53, 3), "JPEG", **more)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(decode(data, GRAY), expected)


def test_the_colors_of_print_are_refused_by_name():
    error = refusal(by_pillow(noise(9, 9, 4), "JPEG", "CMYK"))
    assert "colors of print (CMYK)" in str(error)
    assert "gray or RGB" in error.remedy


def test_a_jpeg_that_declares_two_sizes_or_endless_scans_is_refused():
    data = FILES["JPEG"]
    frame = data.index(b"\xff\xc0")
    assert "frame header" in str(refusal(data[:frame] + data[frame : frame + 13] + data[frame:]))
    scan = data.index(b"\xff\xda")
    assert "scan at byte" in str(refusal(data[:-2] + data[scan:-2] * 41 + data[-2:]))


# --- BMP ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_bmps_of_every_depth_hold_the_pixels_that_were_saved(mode):
    data = by_pillow(noise(20, 31, 3), "BMP", mode)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decode(data, RGB), np.asarray(image.convert("RGB")))


def test_the_first_row_may_be_the_top_one():
    data = bytearray(FILES["BMP"])
    data[22:26] = struct.pack("<i", -20)
    np.testing.assert_array_equal(decode(bytes(data), GRAY), smooth(20, 30)[::-1])


def test_run_lengths_are_read_and_must_end_with_the_picture():
    data = bytearray(FILES["BMP"])
    (offset,) = struct.unpack_from("<I", data, 10)
    data[30] = 1
    codes = b"".join(b"\0\x1e" + row.tobytes() + b"\0\0" for row in smooth(20, 30)[::-1])
    np.testing.assert_array_equal(decode(bytes(data[:offset]) + codes[:-2] + b"\0\1", GRAY), smooth(20, 30))
    assert "end in row 20 of 20" in str(refusal(bytes(data[:offset]) + codes[:-2]))
    assert "end in row 2 of 20" in str(refusal(bytes(data[:offset]) + codes[:64] + b"\0\1"))
    assert "leave the picture" in str(refusal(bytes(data[:offset]) + b"\xff\x05\0\1"))


def test_a_color_outside_the_palette_is_damage():
    data = bytearray(FILES["BMP"])
    data[46:50] = struct.pack("<I", 3)
    data[10:14] = struct.pack("<I", 54 + 12)
    assert "of a palette of 3" in str(refusal(bytes(data)))


# --- TIFF ---------------------------------------------------------------------------------------------------

TIFFS = {
    "big-endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
    "strips": {"rowsperstrip": 7},
    "deflate": {"compression": "zlib", "rowsperstrip": 7},
    "deflate with differences": {"compression": "zlib", "predictor": True},
    "tiles": {"tile": (16, 32), "compression": "zlib"},
}


@pytest.mark.parametrize("kind", TIFFS)
@pytest.mark.parametrize("top", [255, 65535])
def test_tiffs_of_every_kind_hold_the_samples_that_were_saved(kind, top):
    gray, color = noise(37, 53, top=top), noise(37, 53, 3, top=top)
    np.testing.assert_array_equal(samples(by_tifffile(gray, photometric="minisblack", **TIFFS[kind]), GRAY), gray)
    np.testing.assert_array_equal(samples(by_tifffile(color, photometric="rgb", **TIFFS[kind]), RGB), color)
    apart = by_tifffile(np.moveaxis(color, -1, 0), photometric="rgb", planarconfig="separate", **TIFFS[kind])
    np.testing.assert_array_equal(samples(apart, GRAY), luma(color))


@pytest.mark.parametrize("rows", [None, 7])
def test_an_uncompressed_tiff_without_the_sizes_of_its_strips_is_whole(rows):
    gray = noise(30, 40)
    data = bytearray(by_tifffile(gray, photometric="minisblack", rowsperstrip=rows))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        sizes = file.pages[0].tags["StripByteCounts"]
    at, length = sizes.valueoffset, sizes.valuebytecount
    data[at : at + length] = bytes(length)
    np.testing.assert_array_equal(samples(bytes(data), GRAY), gray)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_tiffs_of_every_compression_hold_the_pixels_that_were_saved(compression, mode):
    pixels = smooth(90, 70) if mode == "L" else smooth(90, 70, 3)
    data = by_pillow(pixels, "TIFF", compression=compression, strip_size=1000)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_allclose(decode(data, RGB).astype(int), expected, atol=2 if compression == "jpeg" else 0)


@pytest.mark.parametrize("mode", ["1", "P"])
def test_few_bits_are_stretched_and_palettes_looked_up(mode):
    data = by_pillow(noise(20, 31, 3), "TIFF", mode)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decode(data, RGB), np.asarray(image.convert("RGB")))


def packed(values: np.ndarray, bits: int) -> bytes:
    """Rows of samples as 12 bits each, say, in a TIFF that no other program here writes."""
    height, width = values.shape
    rows = np.packbits(
        (values[..., None] >> np.arange(bits - 1, -1, -1) & 1).reshape(height, -1).astype(np.uint8), axis=1
    )
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, height), (279, 4, rows.size)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<I", 8 + rows.size)
    return head + rows.tobytes() + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_samples_of_odd_bits_are_unpacked(bits):
    values = noise(9, 13, top=2**bits - 1)
    data = packed(values, bits)
    np.testing.assert_array_equal(samples(data, GRAY), values)
    assert inspect(data).bits == bits


def test_of_several_pages_the_first_is_taken_and_that_is_noted():
    pages = noise(3, 20, 30)
    data = by_tifffile(pages, photometric="minisblack")
    assert inspect(data).notes == (SEVERAL_PAGES,)
    np.testing.assert_array_equal(decode(data, GRAY), pages[0])
    assert inspect(FILES["TIFF"]).notes == ()


@pytest.mark.parametrize(
    ("dtype", "reason"), [("f4", "floating-point numbers"), ("i2", "signed numbers"), ("u4", "32 bits per sample")]
)
def test_samples_that_are_no_plain_whole_numbers_are_refused_with_the_reason(dtype, reason):
    error = refusal(by_tifffile(np.zeros((9, 9), dtype)))
    assert reason in str(error)
    assert "8 or 16 bits of whole numbers" in error.remedy


def test_strips_outside_the_file_are_refused():
    data = by_tifffile(noise(20, 30), photometric="minisblack")
    assert "is cut off" in str(refusal(data[:-1]))


def test_a_picture_of_white_zero_is_turned_around():
    pixels = noise(20, 30)
    np.testing.assert_array_equal(decode(by_tifffile(pixels, photometric="miniswhite"), GRAY), 255 - pixels)


# --- WebP ---------------------------------------------------------------------------------------------------


def test_lossy_webps_are_what_cv2_decodes():
    data = by_pillow(smooth(37, 53, 3), "WEBP", quality=60)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(decode(data, RGB), expected)


def test_an_animation_is_refused_by_name():
    frames = [Image.fromarray(noise(9, 12, seed=seed)) for seed in range(3)]
    data = io.BytesIO()
    frames[0].save(data, "WEBP", save_all=True, append_images=frames[1:])
    assert str(refusal(data.getvalue())) == "the WebP is an animation"


def test_a_webp_that_lost_pixels_is_refused_although_all_sizes_agree():
    data = by_pillow(noise(64, 64, 3), "WEBP", lossless=True)
    kept = data[20 : 20 + 2 * (len(data) // 4)]
    short = b"RIFF" + struct.pack("<I", 12 + len(kept)) + b"WEBPVP8L" + struct.pack("<I", len(kept)) + kept
    assert inspect(short).width == 64
    assert "do not decode" in str(refusal(short))


# --- Bit depth ----------------------------------------------------------------------------------------------


def png_16(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.mark.parametrize("depth", [8, 10, 12, 14, 16])
def test_the_highest_eight_of_the_chosen_bits_are_taken_and_what_lies_above_is_white(depth):
    pixels = noise(9, 14, top=65535)
    expected = np.minimum(pixels.astype(int), 2**depth - 1) >> (depth - 8)
    chosen = PreprocessSettings(bit_depth=depth)
    np.testing.assert_array_equal(decode(png_16(pixels), chosen), expected)
    assert saturates(samples(png_16(pixels), chosen), chosen) == (depth < 16)


def test_without_a_chosen_depth_the_high_byte_is_taken_as_ever():
    pixels = noise(9, 14, top=65535)
    np.testing.assert_array_equal(decode(png_16(pixels), GRAY), pixels >> 8)


def test_files_of_eight_bits_know_no_depth():
    for depth in (8, 16):
        chosen = PreprocessSettings(bit_depth=depth)
        np.testing.assert_array_equal(decode(FILES["PNG"], chosen), smooth(20, 30))
        assert not saturates(samples(FILES["PNG"], chosen), chosen)


@given(st.integers(0, 65535), st.sampled_from([8, 10, 12, 14, 16]))
def test_a_brighter_value_never_becomes_a_darker_one(value, depth):
    pixels = np.array([[value, min(value + 1, 65535)]], np.uint16)
    low, high = in_bytes(pixels, PreprocessSettings(bit_depth=depth))[0].tolist()
    assert low <= high <= 255


# --- The part that is used ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crop", "rows", "columns"),
    [
        ("10,5,15,10", slice(5, 15), slice(10, 25)),
        ("0,0,30,20", slice(0, 20), slice(0, 30)),
        ("0.1,0.1,0.5,0.5", slice(2, 12), slice(3, 18)),
        ("0.0,0.0,1.0,1.0", slice(0, 20), slice(0, 30)),
        ("0.99,0.99,0.001,0.001", slice(19, 20), slice(29, 30)),
    ],
)
def test_only_the_part_is_used(crop, rows, columns):
    chosen = PreprocessSettings(crop=crop)
    np.testing.assert_array_equal(decode(FILES["PNG"], chosen), smooth(20, 30)[rows, columns])


@pytest.mark.parametrize("crop", ["20,5,11,10", "0,15,5,6", "100,100,1,1"])
def test_a_part_outside_of_the_picture_is_refused_by_name(crop):
    error = refusal(FILES["PNG"], PreprocessSettings(crop=crop))
    assert str(error) == f"preprocess.crop is {crop}, outside of the picture's 30 x 20 pixels"
    assert "preprocess.crop" in error.remedy


@settings(max_examples=200)
@given(
    sides=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    parts=st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(1, 100), st.integers(1, 100)),
)
def test_shares_within_the_picture_always_leave_a_part_of_it(sides, parts):
    left, top, width, height = parts
    crop = ",".join(f"{share / 100:.2f}" for share in (left, top, min(width, 100 - left), min(height, 100 - top)))
    pixels = noise(*sides)
    part = samples(png_16(pixels), PreprocessSettings(crop=crop))
    assert part.size


# --- Padding ------------------------------------------------------------------------------------------------


def test_a_strip_that_padding_would_blow_up_is_refused_by_name():
    strip = png_16(np.zeros((4, 40_000), np.uint8))
    assert decode(strip, GRAY).shape == (4, 40_000)
    error = refusal(strip, PreprocessSettings(fit="pad"))
    assert str(error) == "40000 x 4 pixels, padded to a square, take more than 100 megapixels"
    assert "preprocess.fit" in error.remedy and "preprocess.crop" in error.remedy
    assert decode(strip, PreprocessSettings(fit="pad", crop="0,0,400,4")).shape == (4, 400)


def test_no_format_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in FILES.values():
            decode(data, GRAY)
