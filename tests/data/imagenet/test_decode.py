"""Pixels against Pillow's, crops against their definitions, hashes pinned."""

import collections
import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from resnet_jax.data.image_files import DecodeError, decode, image_size
from resnet_jax.data.imagenet.crops import aspect_box, batch_draws, center_box, crop_box, scale_box
from resnet_jax.data.imagenet.decode import crop_resize, decode_crop, reduction, resize, resize_crop
from tests.data.imagenet.conftest import picture


def pillow(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_whole_images_are_pillows(sample):
    """Both decode with libjpeg-turbo's exact method: no pixel is off by more than 2 of 255."""
    worst = 0
    for path in sorted(sample.glob("val/*/*")):
        data = path.read_bytes()
        theirs = np.asarray(pillow(data)).astype(int)
        assert image_size(data) == theirs.shape[:2]
        worst = max(worst, abs(decode(data) - theirs).max())
    assert worst <= 2


def differences(sample, size, theirs):
    """Mean absolute difference of pixels of one random crop of each image from another way to make it."""
    found = []
    for row, path in zip(batch_draws(0, 0, 40), sorted(sample.glob("val/*/*")), strict=True):
        data = path.read_bytes()
        box = aspect_box(row, *image_size(data))
        found.append(abs(decode_crop(data, box, size).astype(int) - theirs(data, box)).mean())
    return found


def test_crops_are_near_pillows(sample):
    """Against Pillow's antialiased resize of the same box of the whole image: below 1 of 255 on average, below 8 in any
    image (0.93 and 5.7 measured)."""

    def theirs(data, box):
        top, left, height, width = box
        edges = (left, top, left + width, top + height)
        return np.asarray(pillow(data).resize((224, 224), Image.Resampling.BILINEAR, box=edges))

    found = differences(sample, 224, theirs)
    assert np.mean(found) < 1 and max(found) < 8


def test_reduced_decoding_changes_little(sample):
    """At 64 pixels most crops are decoded at a half or less: against the same box, with edges on those pixels, cut out
    of all of the image's pixels."""

    def theirs(data, box):
        grid, shape = reduction(box, 64), image_size(data)
        rows, columns = (-(-side // grid) for side in shape)
        top, bottom = (round(edge * rows / shape[0]) * grid for edge in (box[0], box[0] + box[2]))
        left, right = (round(edge * columns / shape[1]) * grid for edge in (box[1], box[1] + box[3]))
        return crop_resize(decode(data), (top, left, bottom - top, right - left), shape, 64)

    found = differences(sample, 64, theirs)
    assert np.mean(found) < 2.5 and max(found) < 9  # 2.1 and 7.4 measured


def whole_then_crop(data, box, size):
    return crop_resize(decode(data, reduction(box, size)), box, image_size(data), size)


@pytest.mark.parametrize("size", [224, 64])
def test_a_crop_is_that_of_the_whole_image_bit_by_bit(size, sample):
    """At 64 pixels most are reduced too."""
    for row, path in zip(batch_draws(0, 0, 40), sorted(sample.glob("val/*/*")), strict=True):
        data = path.read_bytes()
        box = aspect_box(row, *image_size(data))
        assert np.array_equal(decode_crop(data, box, size), whole_then_crop(data, box, size))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "gray", "progressive", "restarts"])
def test_every_bottom_of_a_crop(subsampling):
    """Of noise, in which every pixel and every interpolated colour counts, wherever the decoder stops."""
    options = {
        "subsampling": subsampling if ":" in subsampling else "4:2:0",
        "progressive": subsampling == "progressive",
    }
    if subsampling == "restarts":
        options["restart_marker_blocks"] = 3
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 75, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    noise.convert("L" if subsampling == "gray" else "RGB").save(buffer, "JPEG", quality=95, **options)
    data = buffer.getvalue()
    for bottom in range(1, 101):
        box = (max(0, bottom - 20), 10, min(bottom, 20), 40)
        assert np.array_equal(decode_crop(data, box, 33), whole_then_crop(data, box, 33))
    assert np.array_equal(decode_crop(data, (0, 0, 50.5, 70), 16), whole_then_crop(data, (0, 0, 50.5, 70), 16))


def test_what_lies_below_a_crop_is_not_decoded(sample):
    """Zeros in the place of the last third of the file; without its end it counts as cut short."""
    data = max((path.read_bytes() for path in sample.glob("val/*/*")), key=len)
    height, width = image_size(data)
    kept = len(data) * 2 // 3
    damaged = data[:kept] + bytes(len(data) - kept - 2) + data[-2:]
    box = (0, 0, height // 4, width)
    assert np.array_equal(decode_crop(damaged, box, 64), decode_crop(data, box, 64))
    assert not np.array_equal(decode(data), np.asarray(pillow(damaged)))
    for whole_box in ((0, 0, height, width), (0, 0, height // 4, width)):
        with pytest.raises(DecodeError):
            decode_crop(data[:kept], whole_box, 64)


@pytest.mark.parametrize(
    ("scales", "most"),
    [((0.5, 0.7), 0.3), ((1, 1), 0), ((1.2, 1.2), 0.75), ((1.5, 1.4), 0.72), ((1.8, 1.9), 0.4), ((1.9, 0.6), 0.35),
     ((2.5, 2.5), 1.3)],
)  # fmt: skip
def test_the_crops_filter_is_near_pillows_triangle(scales, most, sample):
    """On a photograph, mean absolute difference of pixels; linear alone is 0.91, 1.37, 1.88, 1.77 and 2.7 away where it
    shrinks."""
    pixels = np.asarray(pillow(max((path.read_bytes() for path in sample.glob("val/*/*")), key=len)))
    height, width = (round(100 * scale) for scale in scales)
    part = pixels[100 : 100 + height, 200 : 200 + width]
    theirs = np.asarray(Image.fromarray(part).resize((100, 100), Image.Resampling.BILINEAR)).astype(int)
    assert abs(resize_crop(part, 100, 100) - theirs).mean() <= most


def test_pixels_are_pinned():
    """Of a JPEG made of plain blocks, whose coefficients every exact decoder gives back alike."""
    data = picture(5, (96, 96))
    crops = [decode(data), decode_crop(data, (8, 8, 64, 64), 32), decode_crop(data, (0, 0, 96, 96), 24)]
    digests = [hashlib.sha256(crop.tobytes()).hexdigest()[:12] for crop in crops]
    assert digests == ["04e427d30aba", "17172790aa92", "1391a7d791f9"]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_everything_becomes_rgb(mode, form):
    if (mode, form) == ("CMYK", "PNG"):
        return  # there is no such PNG
    data = picture(1, (30, 50), mode, form)
    assert image_size(data) == (30, 50)
    assert abs(decode(data).astype(int) - np.asarray(pillow(data))).max() <= 2


def test_damage_is_noticed():
    whole = picture(0, (120, 160))
    for data in (b"", b"text", whole[:20], whole[: len(whole) // 2], whole[:-200]):
        with pytest.raises(DecodeError):
            decode_crop(data, (0, 0, 60, 60), 16)
    assert decode(whole + b"\0\0").shape == (120, 160, 3)  # junk behind the end is harmless


@pytest.mark.parametrize("kind", ["scale", "aspect", "center"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (300, 2), (480, 640)])
def test_every_crop_lies_inside_and_can_be_cut(kind, shape):
    data = picture(2, shape)
    for row in batch_draws(3, 4, 8):
        top, left, height, width = crop_box(kind, row, *shape, 8, (9, 16))
        assert top >= 0 and left >= 0 and top + height <= shape[0] + 1 and left + width <= shape[1] + 1
        assert decode_crop(data, (top, left, height, width), 8).shape == (8, 8, 3)


def test_the_papers_scale_augmentation():
    """Section 3.4: the shorter side uniform in [256, 480], all of them; then 224 pixels anywhere."""
    boxes = np.array([scale_box(row, 400, 600, 224, (256, 480)) for row in batch_draws(0, 1, 20_000)])
    sides = 224 * 400 / boxes[:, 2]
    values, counts = np.unique(np.rint(sides), return_counts=True)
    assert list(values) == list(range(256, 481)) and np.allclose(sides, np.rint(sides))
    assert counts.std() / counts.mean() < 0.15  # 20,000 draws of 225 values: 0.106 expected
    whole_pixels = boxes[:, 0] * sides / 400
    assert np.allclose(whole_pixels, np.rint(whole_pixels))
    at_largest = boxes[np.rint(sides) == 480]
    assert at_largest[:, 1].max() > 0.95 * (600 - 224 * 400 / 480) and at_largest[:, 1].min() < 15


def test_the_inception_crop():
    """8 to 100 % of the area, ratio from 3/4 to 4/3, even in its logarithm; the centre if nothing fits."""
    boxes = np.array([aspect_box(row, 500, 500) for row in batch_draws(0, 2, 4000)])
    areas, ratios = boxes[:, 2] * boxes[:, 3] / 250_000, boxes[:, 3] / boxes[:, 2]
    assert 0.079 < areas.min() < 0.09 and areas.max() > 0.95
    # Of the larger ones some stick out, and are drawn again.
    assert abs(areas[areas < 0.7].mean() - 0.39) < 0.01
    assert 0.74 < ratios.min() < 0.76 and 1.32 < ratios.max() < 1.35 and abs(np.log(ratios).mean()) < 0.01
    assert aspect_box(batch_draws(0, 2, 1)[0], 10, 1000) == (0, (1000 - 13) / 2, 10, 13)


def test_a_crop_may_lie_at_every_place():
    """From the first row and column to the last, all alike, by chi-square: one too few would never be missed by eye."""
    draws = batch_draws(0, 3, 4000)
    corners = np.array([scale_box(row, 10, 12, 8, (10, 10))[:2] for row in draws])
    counts = np.histogram2d(*corners.T, bins=(range(4), range(6)))[0]
    assert counts.sum() == 4000 and stats.chisquare(counts.ravel()).pvalue > 1e-3

    places = collections.defaultdict(list)  # of boxes of one size, which have the same places
    for row in batch_draws(0, 4, 30_000):
        top, left, *shape = aspect_box(row, 6, 7)
        places[tuple(map(int, shape))].append((top, left))
    tested = 0
    for (height, width), corners in places.items():
        rows, columns = 6 - height + 1, 7 - width + 1
        counts = np.histogram2d(*np.array(corners).T, bins=(range(rows + 1), range(columns + 1)))[0]
        assert counts.sum() == len(corners)
        if rows * columns > 1 and len(corners) > 20 * rows * columns:
            assert stats.chisquare(counts.ravel()).pvalue > 1e-4, (height, width)
            tested += 1
    assert tested > 5


def test_the_centre():
    assert center_box(512, 1024, 224, 256) == (32, 288, 448, 448)


def test_draws_depend_on_seed_number_and_place_alone():
    a = batch_draws(1, 2, 8)
    assert np.array_equal(a, batch_draws(1, 2, 8)) and np.array_equal(a[:4], batch_draws(1, 2, 4))
    assert not np.array_equal(a, batch_draws(1, 3, 8)) and not np.array_equal(a, batch_draws(2, 2, 8))
    assert len({tuple(row) for row in a}) == 8


def test_shrinking_takes_means():
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.unique(resize(stripes, 4, 4)) == [100]
