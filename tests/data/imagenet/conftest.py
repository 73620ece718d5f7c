"""Small images made here, and the real ones where they are."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data.imagenet.originals import open_originals
from resnet_jax.data.imagenet.prepare import Recipe, prepare
from resnet_jax.data.imagenet.shards import ShardSource

SAMPLE = Path(__file__).parents[4] / "shared" / "data" / "imagenet_sample"

#: Three of the 1,000 ids.
WNIDS = ("n01440764", "n01443537", "n15075141")


def picture(seed: int = 0, size: tuple[int, int] = (60, 80), mode: str = "RGB", form: str = "JPEG") -> bytes:
    """A smooth random image of (height, width), as a file's bytes."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize(size[::-1], Image.Resampling.BICUBIC).convert(mode).save(buffer, form)
    return buffer.getvalue()


def fill(folder: Path, images: dict[str, bytes]) -> Path:
    """Writes files by their path in the folder."""
    for name, data in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def run(source, out, recipe=Recipe(per_shard=5), **options):  # noqa: B008
    """Prepares a part of ImageNet in this process: the manifests, and what the progress was told."""
    done = []
    splits = open_originals(source, allow_partial=True, **options)
    manifests = prepare(splits, out, recipe, 1, lambda *progress: done.append(progress))
    return manifests, done


def examples(directory, split):
    """What is stored, in its order."""
    source = ShardSource(directory, split)
    return [source.load(i) for i in range(len(source))]


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    """train/ and val/ with three classes of four and two images."""
    images = {f"train/{w}/{w}_{i}.JPEG": picture(10 * c + i) for c, w in enumerate(WNIDS) for i in range(4)}
    images |= {f"val/{w}/v_{c}{i}.JPEG": picture(100 + 10 * c + i) for c, w in enumerate(WNIDS) for i in range(2)}
    return fill(tmp_path / "tiny", images)


@pytest.fixture
def sample() -> Path:
    """The 240 real files."""
    if not SAMPLE.is_dir():
        pytest.skip("shared/data/imagenet_sample is not there")
    return SAMPLE
