"""Image files of every kind to the pixels that a net is shown."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageSequence

from resnet_jax.data import image_files
from resnet_jax.data.image_files import read_image
from resnet_jax.errors import UserError
from resnet_jax.evaluation.predict import fit_image

RNG = np.random.default_rng(0)


def smooth(height, width):
    """A colour picture whose corners differ."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([255 * y, 255 * x, 255 * (1 - y) * x], axis=-1).astype(np.uint8)


def save(path, image, **options):
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def test_png_is_read_to_the_bit_and_grey_from_and_to_colour(tmp_path):
    colour, grey = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8), RNG.integers(0, 256, (5, 7)).astype(np.uint8)
    np.testing.assert_array_equal(read_image(save(tmp_path / "c.png", colour)).pixels, colour)
    np.testing.assert_array_equal(read_image(save(tmp_path / "g.png", grey), grey=True).pixels, grey)
    np.testing.assert_array_equal(read_image(tmp_path / "g.png").pixels, np.stack([grey] * 3, axis=-1))
    luma = colour @ np.array([0.299, 0.587, 0.114])  # ITU-R 601
    assert np.abs(read_image(tmp_path / "c.png", grey=True).pixels - luma).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(tmp_path, mode):
    red = Image.new("RGBA", (4, 4), (255, 0, 0, 255))
    red.putpixel((1, 2), (0, 0, 0, 0))
    red.putpixel((2, 2), (0, 0, 0, 128))
    if mode == "P":
        image = red.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE)
        hidden = image.getpixel((1, 2))
        pixels = read_image(save(tmp_path / "p.png", image, transparency=hidden)).pixels
    else:
        pixels = read_image(save(tmp_path / "a.png", red.convert(mode))).pixels
        assert np.abs(pixels[2, 2].astype(int) - 127).max() <= 1
    assert pixels[2, 1].tolist() == [255, 255, 255] and pixels[0, 0, 0] == (76 if mode == "LA" else 255)


def test_sixteen_bits_keep_their_upper_eight(tmp_path):
    values = RNG.integers(0, 65536, (6, 6)).astype(np.uint16)
    values[0, 0] = 65535
    found = read_image(save(tmp_path / "x.png", values), grey=True).pixels
    np.testing.assert_array_equal(found, values // 256)
    np.testing.assert_array_equal(read_image(save(tmp_path / "x.tif", values)).pixels[..., 1], values // 256)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_the_first_of_several_frames_is_taken_and_that_is_said(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    path = save(tmp_path / f"x.{suffix}", frames[0], save_all=True, append_images=frames[1:])
    assert len(list(ImageSequence.Iterator(Image.open(path)))) == 3
    picture = read_image(path)
    assert picture.note == "the first of 3 frames"
    assert picture.pixels[4, 4, 0] > 240 and picture.pixels[4, 4, 1] < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_cameras_orientation_is_applied(tmp_path, orientation):
    """What a viewer shows, from the definition: row 0 and column 0 of what is stored are these sides of the scene."""
    upright = smooth(16, 24)
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "x.jpg", np.ascontiguousarray(stored), exif=exif, quality=100, subsampling=0)
    found = read_image(path).pixels
    assert found.shape == upright.shape and np.abs(found.astype(int) - upright).max() < 8


def test_cmyk(tmp_path):
    path = save(tmp_path / "x.jpg", Image.fromarray(smooth(16, 16)).convert("CMYK"), quality=100, subsampling=0)
    assert np.abs(read_image(path).pixels.astype(int) - smooth(16, 16)).max() < 8


def test_a_photograph_is_shown_as_the_test_set_is(tmp_path):
    """The centre crop by Pillow: the shorter side 256, and its middle 224. Decoders differ by two values at most."""
    path = save(tmp_path / "x.jpg", smooth(300, 400), quality=95)
    whole = np.asarray(Image.open(path).resize((341, 256), Image.Resampling.BILINEAR))
    found = fit_image(read_image(path).pixels, 224)
    assert found.shape == (224, 224, 3) and np.abs(found.astype(int) - whole[16:240, 58:282]).max() <= 2


def test_small_images_are_shown_whole():
    pixels = RNG.integers(0, 256, (32, 32, 3)).astype(np.uint8)
    np.testing.assert_array_equal(fit_image(pixels, 32), pixels)
    grey = fit_image(pixels[..., 0], 8)
    assert grey.shape == (8, 8, 1)
    np.testing.assert_allclose(grey[..., 0], pixels[..., 0].reshape(8, 4, 8, 4).mean(axis=(1, 3)), atol=0.51)
    middle = fit_image(smooth(32, 96), 32)
    np.testing.assert_array_equal(middle, smooth(32, 96)[:, 32:64])


@pytest.mark.parametrize("shape", [(1, 1), (1, 20_000), (20_000, 3), (40_000, 10)])
def test_extreme_shapes(tmp_path, shape):
    pixels = np.full((*shape, 3), (10, 200, 30), np.uint8)
    found = fit_image(read_image(save(tmp_path / "x.png", pixels)).pixels, 224)
    assert found.shape == (224, 224, 3) and (found == (10, 200, 30)).all()


def test_a_huge_jpeg_is_decoded_at_a_fraction(tmp_path, monkeypatch):
    """Pillow's limit is for files that cannot be reduced; and the picture is the same picture."""
    path = save(tmp_path / "x.jpg", smooth(512, 1024), quality=95)
    whole = fit_image(read_image(path).pixels, 224)
    monkeypatch.setattr(image_files, "MOST_PIXELS", 150_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150_000)
    assert read_image(path).pixels.shape == (256, 512, 3)
    assert np.abs(fit_image(read_image(path).pixels, 224).astype(int) - whole).max() <= 6


def bomb(path):
    """The beginning of a PNG of 400 million pixels."""
    data = io.BytesIO()
    Image.new("1", (8, 8)).save(data, "PNG")
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + data.getvalue()[24:29]
    path.write_bytes(data.getvalue()[:12] + header + struct.pack(">I", zlib.crc32(header)) + data.getvalue()[33:])


def cut(path):
    data = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(data, "JPEG")
    path.write_bytes(data.getvalue()[:2000])


BAD = {
    "a bomb": (bomb, "an image of more than the 89,478,485 pixels"),
    "cut short": (cut, "is damaged: .*truncated"),
    "text": (lambda path: path.write_text("hello"), "is no image of a format"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "a folder": (lambda path: path.mkdir(), r"is a folder; give the images in it, as .*/x/\*"),
    "missing": (lambda path: None, "there is no file"),
    "only a JPEG's beginning": (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0"), "is damaged|is no image"),
    "floats": (lambda path: Image.fromarray(np.ones((4, 4), np.float32)).save(path, "TIFF"), "floating-point"),
    "32 bits": (lambda path: Image.fromarray(np.full((4, 4), 10**6, np.int32)).save(path, "TIFF"), "32 bits"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_image_is_said_by_its_name(tmp_path, bad):
    make, message = BAD[bad]
    make(tmp_path / "x")
    with pytest.raises(UserError, match=message) as error:
        read_image(tmp_path / "x")
    assert str(tmp_path / "x") in str(error.value) and "\n" not in str(error.value)


def test_the_standard_input(monkeypatch):
    data = io.BytesIO()
    Image.fromarray(smooth(4, 4)).save(data, "PNG")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data.getvalue())))
    np.testing.assert_array_equal(read_image("-").pixels, smooth(4, 4))
    with pytest.raises(UserError, match="the standard input is empty"):
        read_image("-")


def test_a_tiff_without_its_width_is_refused(tmp_path):
    """Found by the campaign of tests/attack: Pillow raises TypeError for it."""
    stream = io.BytesIO()
    Image.new("RGB", (6, 4)).save(stream, "TIFF")
    data = stream.getvalue()
    tag = struct.pack("<HH", 256, 4) if struct.pack("<HH", 256, 4) in data else struct.pack("<HH", 256, 3)
    path = tmp_path / "x.tif"
    path.write_bytes(data.replace(tag, struct.pack("<H", 60000) + tag[2:], 1))
    with pytest.raises(UserError, match=r"x\.tif"):
        read_image(path)
