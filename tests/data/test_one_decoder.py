"""Training, evaluation and `predict` see the same pixels of a file, whatever its mode and format."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data.folders import open_folder
from resnet_jax.data.image_files import DecodeError, decode, image_size
from resnet_jax.data.imagenet.crops import aspect_box, batch_draws
from resnet_jax.data.imagenet.decode import crop_resize, decode_crop, reduction
from resnet_jax.data.imagenet.loaders import TestLoader, TrainLoader, Unreadable
from resnet_jax.data.imagenet.test_crops import Crops
from resnet_jax.data.sampling import batch_indices
from resnet_jax.errors import UserError
from resnet_jax.evaluation.predict import prepare_image
from resnet_jax.interop.weights import Weights
from tests.data.imagenet.conftest import fill

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "I;16B")

#: Those whose pixels are known without Pillow, but for palettes.
EXACT = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I;16B")

#: What is written otherwise: WebP has 8 bits, a BMP's fourth channel is no alpha, and Pillow 13 swaps the bytes.
CHANGED = {("WEBP", "I;16"), ("WEBP", "I;16B"), ("BMP", "RGBA"), ("JPEG2000", "I;16B")}

#: Formats that lose nothing, with what the writer needs for that.
LOSSLESS = {"PNG": {}, "TIFF": {}, "TGA": {}, "BMP": {}, "QOI": {}, "SGI": {}, "PCX": {}, "IM": {}, "JPEG2000": {},
            "WEBP": {"lossless": True, "exact": True}}  # fmt: skip

#: What JPEGs and other formats note of a camera that was turned, and what that does to the stored rows of a scene.
STORED = {
    1: lambda scene: scene, 2: lambda scene: scene[:, ::-1], 3: lambda scene: scene[::-1, ::-1],
    4: lambda scene: scene[::-1], 5: lambda scene: scene.swapaxes(0, 1), 6: np.rot90,
    7: lambda scene: scene[::-1, ::-1].swapaxes(0, 1), 8: lambda scene: np.rot90(scene, -1),
}  # fmt: skip


def scene(height=40, width=48):
    """A smooth picture whose corners differ, with what is transparent on the right: RGBA."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([255 * y, 255 * x, 255 * (1 - y) * x, 255 * (1 - x)], axis=-1).astype(np.uint8)


def image_of(mode):
    pixels = Image.fromarray(scene())
    colour = pixels.convert("RGB")
    if mode.startswith("I;16"):
        deep = (np.asarray(colour.convert("L")).astype(np.uint16) * 257) ^ 0xA5
        return Image.frombytes(mode, colour.size, deep.astype(">u2" if mode.endswith("B") else "<u2").tobytes())
    if mode in ("P", "PA"):
        return colour.quantize(64).convert(mode)
    if mode == "LAB":
        return Image.merge("LAB", colour.split())
    return (pixels if mode in ("LA", "RGBA") else colour).convert(mode)


def expected(image):
    """The pixels of an image by their definitions, (height, width, 3)."""
    pixels = np.asarray(image).astype(np.float64)
    if image.mode.startswith("I;16"):
        return np.repeat((pixels // 256)[..., None], 3, axis=-1)
    if image.mode == "1":
        return np.repeat(255 * pixels[..., None], 3, axis=-1)
    if image.mode == "P":
        return np.asarray(image.convert("RGB")).astype(np.float64)
    if image.mode == "CMYK":
        return (255 - pixels[..., :3]) * (255 - pixels[..., 3:]) / 255
    if image.mode in ("LA", "RGBA"):
        alpha = pixels[..., -1:] / 255
        return np.broadcast_to(pixels[..., :-1] * alpha + 255 * (1 - alpha), (*pixels.shape[:2], 3))
    return np.broadcast_to(pixels[..., None] if pixels.ndim == 2 else pixels[..., :3], (*pixels.shape[:2], 3))


def net(size, shorter_side):
    """Weights as far as `prepare_image` looks at them."""
    return Weights("cifar_resnet20", {}, {}, size, np.zeros(3), np.ones(3), shorter_side=shorter_side)


def shown(folder, size, side):
    """What training, evaluation and `predict` are shown of each file: pixels, or None and why it cannot be read."""
    source = open_folder(folder, share=0.01).train
    count, unreadable = len(source), Unreadable()
    test = TestLoader(source, views=Crops(size, side), unreadable=unreadable, workers=1)
    (evaluated,), _, grey = test.begin(np.arange(count)).result()
    why = {sentence.split(" ")[2]: sentence.partition("cannot be read: ")[2] for sentence in unreadable.new_warnings()}
    loader = TrainLoader(source, seed=0, batch_size=count, rows=(0, count), size=size, crop="center",
                         sides=(side, side), workers=1)  # fmt: skip
    trained = np.empty_like(evaluated)
    trained[batch_indices(0, 0, count, count)] = loader.batches([0])[0][0]
    assert len(loader.unreadable) == grey.sum()  # they are replaced by others
    found = {}
    for index, path in enumerate(source.paths):
        try:
            predicted = prepare_image(net(size, side), path).pixels
        except UserError as error:
            assert grey[index] and f"is {why[source.names[index]]}" in str(error)
            found[path.name] = None
        else:
            assert not grey[index]
            found[path.name] = trained[index], evaluated[index], predicted
    return found


def written(form, mode):
    data = io.BytesIO()
    try:
        image_of(mode).save(data, form, **LOSSLESS.get(form, {}))
    except Exception:  # there is no such file
        return None
    return data.getvalue()


def formats():
    Image.init()
    unread = {"PDF", "PALM", "WMF", "BUFR", "GRIB", "HDF5"}
    return sorted(set(Image.SAVE) - unread - {"ICNS", "ICO"})  # those resize what they write


@pytest.mark.parametrize("form", formats())
def test_every_mode_and_format_is_read_alike(form, tmp_path):
    """At a scale of 1, where no resizing differs; the right pixels where the format loses none."""
    files = {f"{mode.replace(';', '_')}.jpg": data for mode in MODES if (data := written(form, mode)) is not None}
    fill(tmp_path, {f"a/{name}": data for name, data in files.items()})
    fill(tmp_path, {"b/0.png": written("PNG", "L"), "b/1.png": written("PNG", "L"), "a/zz.png": written("PNG", "L")})
    for name, pixels in shown(tmp_path, 40, 40).items():
        if name not in files:
            continue
        mode = name.removesuffix(".jpg").replace("_", ";")
        if pixels is None:
            assert mode in ("F", "I") or form in ("EPS", "SPIDER"), (form, mode)
            continue
        assert mode != "F" or form in ("AVIF", "GIF", "WEBP"), (form, mode)  # which store 8 bits
        trained, evaluated, predicted = pixels
        np.testing.assert_array_equal(predicted, evaluated, f"{form} {mode}")
        np.testing.assert_array_equal(predicted, trained, f"{form} {mode}")
        if form in LOSSLESS and mode in EXACT and (form, mode) not in CHANGED:
            theirs = expected(image_of(mode))[:, 4:44]
            assert np.abs(predicted - theirs).max() <= 1.01, (form, mode)


TURNED = ["JPEG", "JPEG grey", "JPEG CMYK", "JPEG progressive", "PNG", "WEBP", "TIFF", "AVIF"]


def turned(how, orientation, size=(40, 48)):
    """A file of the scene as a camera stores it that was held so."""
    form, _, kind = how.partition(" ")
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](scene(*size)[..., :3])))
    stored = stored.convert({"grey": "L", "CMYK": "CMYK"}.get(kind, "RGB"))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    data = io.BytesIO()
    stored.save(data, form, exif=exif, progressive=kind == "progressive", **options)
    return data.getvalue()


@pytest.mark.parametrize("how", TURNED)
def test_a_turned_camera_is_turned_back_everywhere(how, tmp_path):
    """The case folder_exif_orientation: all eight ways, against the scene."""
    fill(tmp_path, {f"{c}/{orientation}.jpg": turned(how, orientation) for orientation in STORED for c in "ab"})
    upright = scene()[..., :3].astype(int)
    if how.endswith("grey"):
        upright = np.repeat(np.asarray(Image.fromarray(scene()[..., :3]).convert("L"))[..., None], 3, -1).astype(int)
    found = shown(tmp_path, 40, 40)
    assert len(found) == 8
    for name, (trained, evaluated, predicted) in found.items():
        assert np.abs(predicted - upright[:, 4:44]).max() <= 12, name
        assert np.array_equal(predicted, evaluated) and np.array_equal(predicted, trained), name
        data = (tmp_path / "a" / name).read_bytes()
        assert image_size(data) == decode(data).shape[:2] == (40, 48)


@pytest.mark.parametrize("kind", ["JPEG", "JPEG grey", "JPEG CMYK", "JPEG progressive"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_crops_of_jpegs_are_those_of_the_whole_image(kind, orientation):
    """Bit by bit, at every reduction: the fast way is a case of the one way."""
    data = turned(kind, orientation, (300, 400))
    for size, row in zip((224, 64, 30, 16), batch_draws(0, 0, 4), strict=True):
        box = aspect_box(row, *image_size(data))
        whole = crop_resize(decode(data, reduction(box, size)), box, (300, 400), size)
        np.testing.assert_array_equal(decode_crop(data, box, size), whole)


def test_evaluation_and_predict_resize_alike(tmp_path):
    """A fine-tuned net is shown in `predict` what it was evaluated on, for any size and proportion."""
    sizes = [(60, 80), (300, 200), (33, 500), (1, 1), (1, 1000), (64, 64)]
    fill(tmp_path, {f"{c}/{i}.jpg": turned("JPEG", 1 + i % 8, size) for i, size in enumerate(sizes) for c in "ab"})
    for size, side in ((32, 37), (16, 16), (96, 110)):
        for name, (_, evaluated, predicted) in shown(tmp_path, size, side).items():
            np.testing.assert_array_equal(predicted, evaluated, name)


def test_transparent_colours_of_png_are_white():
    """A colour that counts as transparent: in palettes by bytes or index, of grey and RGB, and of 16 bits."""
    grey = Image.fromarray(np.array([[0, 100], [200, 255]], np.uint8))
    palette = grey.convert("RGB").quantize(4)
    where = np.asarray(palette)
    clear = int(where[0, 0])
    cases = [
        (grey, {"transparency": 0}), (grey.convert("RGB"), {"transparency": (0, 0, 0)}),
        (palette, {"transparency": clear}),
        (palette, {"transparency": bytes(0 if i == clear else 255 for i in range(4))}),
        (Image.fromarray(np.array([[7, 100 << 8], [200 << 8, 255 << 8]], np.uint16)), {"transparency": 7}),
    ]  # fmt: skip
    for image, options in cases:
        data = io.BytesIO()
        image.save(data, "PNG", **options)
        assert decode(data.getvalue())[..., 0].tolist() == [[255, 100], [200, 255]], image.mode


def png(depth, colour, row, clear):
    """A PNG of one row of 2 pixels, as its bytes are defined; Pillow writes no such files."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 2, 1, depth, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"tRNS", clear) + chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")


def test_transparent_colours_of_2_4_and_16_bits_are_white():
    """The second of two pixels."""
    assert decode(png(2, 0, b"\x60", b"\0\2"))[..., 0].tolist() == [[85, 255]]
    assert decode(png(4, 0, b"\x3a", b"\0\x0a"))[..., 0].tolist() == [[51, 255]]
    deep = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x2211, 0x4433, 0x6655)
    assert decode(png(16, 2, deep, deep[6:])).tolist() == [[[0x12, 0x56, 0x9A], [255, 255, 255]]]


def claims(height, width, progressive, end=b"\xff\xd9"):
    """A JPEG of 16x16 pixels whose header claims others."""
    data = io.BytesIO()
    Image.new("RGB", (16, 16)).save(data, "JPEG", progressive=progressive)
    data = data.getvalue()[:-2] + end
    at = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


MEMORY = """
import resource, sys, time
from pathlib import Path
from resnet_jax.data.image_files import DecodeError, decode
from resnet_jax.data.imagenet.decode import decode_crop
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.process_time()
for data in map(Path.read_bytes, map(Path, sys.argv[1:])):
    for way in (decode, lambda data: decode_crop(data, (0, 0, 100, 100), 32)):
        try:
            way(data)
        except DecodeError as error:
            print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.process_time() - began)
"""


def test_a_header_that_claims_a_huge_image_takes_neither_memory_nor_time(tmp_path):
    """40,000 by 40,000 pixels in half a kilobyte: 61 s and 4.6 GB without a bound."""
    paths = []
    for progressive in (False, True):
        for end in (b"\xff\xd9", b"", bytes(1000)):
            paths.append(tmp_path / f"{progressive}{len(end)}.jpg")
            paths[-1].write_bytes(claims(40_000, 40_000, progressive, end))
    found = subprocess.run([sys.executable, "-c", MEMORY, *paths], capture_output=True, text=True, check=True)
    *errors, last = found.stdout.splitlines()
    assert len(errors) == 12
    assert sum("progressive JPEG of 1,600,000,000 pixels" in error for error in errors) == 6
    assert sum("cannot be a JPEG of 1,600,000,000 pixels" in error for error in errors) == 6
    kilobytes, seconds = map(float, last.split())
    assert kilobytes < 100_000 and seconds < 1


def test_a_large_file_that_claims_a_huge_image_is_decoded_at_an_eighth(monkeypatch):
    """Padded, so that its length proves nothing; at a smaller bound here, to be quick."""
    monkeypatch.setattr("resnet_jax.data.image_files.MOST_PIXELS", 10_000)
    data = claims(800, 800, False, bytes(10_000))
    with pytest.raises(DecodeError, match="damaged"):
        decode(data)
    whole = io.BytesIO()
    Image.fromarray(scene(400, 640)[..., :3]).save(whole, "JPEG")
    assert decode(whole.getvalue()).shape == (50, 80, 3)
    assert decode_crop(whole.getvalue(), (0, 0, 100, 100), 50).shape == (50, 50, 3)
