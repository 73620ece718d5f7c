"""tensorflow-datasets without TensorFlow: a set is downloaded, prepared and read; damaged ones are named."""

import contextlib
import http.server
import io
import shutil
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from resnet_jax.data import tfds
from resnet_jax.errors import UserError

CIFAR10 = Path(__file__).parents[3] / "shared/data/tensorflow_datasets"
needs_cifar10 = pytest.mark.skipif(not CIFAR10.is_dir(), reason=f"no prepared CIFAR-10 at {CIFAR10}")


def cifar100_archive(train, test):
    """An archive in CIFAR-100's binary format: coarse label, fine label, 1024 red, green and blue bytes each."""
    blob = io.BytesIO()
    with tarfile.open(fileobj=blob, mode="w:gz") as tar:
        files = {"train.bin": train, "test.bin": test}
        coarse, fine = "\n".join(f"coarse{i}" for i in range(20)), "\n".join(f"fine{i}" for i in range(100))
        contents = {f"cifar-100-binary/{name}": records.tobytes() for name, records in files.items()}
        contents["cifar-100-binary/coarse_label_names.txt"] = coarse.encode()
        contents["cifar-100-binary/fine_label_names.txt"] = fine.encode()
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return blob.getvalue()


@contextlib.contextmanager
def serving(data):
    """A server on loopback that answers every request with `data`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Disposition", 'attachment; filename="cifar-100-binary.tar.gz"')
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_): ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/cifar-100-binary.tar.gz"
    server.shutdown()


def test_cifar100_is_downloaded_prepared_and_read_without_tensorflow(tmp_path, monkeypatch):
    """The whole first use, from an archive of forty images; the second call reads what the first prepared."""
    from tensorflow_datasets.image_classification import cifar

    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, 2 + 3072), dtype=np.uint8) for n in (30, 10))
    for records in (train, test):
        records[:, 0] %= 20
        records[:, 1] %= 100
    original = cifar.Cifar100._cifar_info
    monkeypatch.setattr(tfds, "CIFAR_HOST", "127.0.0.1")
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with serving(cifar100_archive(train, test)) as url:
        local = property(lambda self: original.fget(self)._replace(url=url))
        monkeypatch.setattr(cifar.Cifar100, "_cifar_info", local)
        dataset = tfds.load_cifar("cifar100")
    again = tfds.load_cifar("cifar100", str(tmp_path))  # no server any more
    assert "tensorflow" not in sys.modules
    assert dataset.num_classes == again.num_classes == 100
    for found in (dataset, again):
        for split, records in ((found.train, train), (found.test, test)):
            # TFDS shuffles; as sets, images and labels must be those of the archive.
            pixels = records[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            expected = {p.tobytes(): int(label) for p, label in zip(pixels, records[:, 1], strict=True)}
            assert {i.tobytes(): int(n) for i, n in zip(split.images, split.labels, strict=True)} == expected


@pytest.fixture
def copy_of_cifar10(tmp_path):
    shutil.copytree(CIFAR10, tmp_path / "tfds")
    folder = tmp_path / "tfds/cifar10/3.0.2"
    for path in [tmp_path / "tfds", *(tmp_path / "tfds").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@needs_cifar10
def test_another_file_format_is_said(copy_of_cifar10):
    info = copy_of_cifar10 / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="array_record"):
        tfds.load_cifar("cifar10", str(copy_of_cifar10.parents[1]))


@needs_cifar10
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_set_is_said(copy_of_cifar10, damage):
    shard = copy_of_cifar10 / "cifar10-test.array_record-00002-of-00004"
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:100_000])
    with pytest.raises(UserError, match="cifar10"):
        tfds.load_cifar("cifar10", str(copy_of_cifar10.parents[1]))
