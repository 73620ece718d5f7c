"""CIFAR on first use: downloaded once, whole or not at all."""

import contextlib
import dataclasses
import hashlib
import http.server
import sys
import threading

import pytest

from resnet_jax.data import cifar, sources
from resnet_jax.data.sources import load_cifar
from resnet_jax.errors import UserError
from tests.data.cifar_files import archive, binary_files
from tests.data.test_cifar import TEST, TRAIN, examples, same, small

__all__ = ["small"]  # a fixture


@contextlib.contextmanager
def serving(data, cut=None):
    """A server on loopback that answers every request with `data`, or ends after `cut` bytes; and what was asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:cut])

        def log_message(self, *_): ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def first_use(small, tmp_path, monkeypatch):
    """A user without any data, and the archive that the page would give."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    train, test = examples("cifar100", TRAIN, 1), examples("cifar100", TEST, 2)
    data = archive(binary_files("cifar100", train, test))
    known = cifar.SETS["cifar100"]
    right = dataclasses.replace(known.binary, md5=hashlib.md5(data).hexdigest())
    monkeypatch.setitem(cifar.SETS, "cifar100", dataclasses.replace(known, binary=right))
    return train, test, data


def test_cifar_is_downloaded_once_on_first_use(first_use, tmp_path, monkeypatch, capsys):
    train, test, data = first_use
    with serving(data) as (url, asked):
        monkeypatch.setattr(sources, "CIFAR_PAGE", url)
        threads = [threading.Thread(target=load_cifar, args=("cifar100",)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    same(load_cifar("cifar100"), "cifar100", train, test)  # no server any more
    assert asked == ["/cifar-100-binary.tar.gz"] and "tensorflow" not in sys.modules
    assert f"downloading {url}/cifar-100-binary.tar.gz" in capsys.readouterr().err
    folder = tmp_path / "cache/resnet_jax/data"
    assert (folder / "cifar-100-binary.tar.gz").read_bytes() == data and not list(folder.glob("*.part"))


@pytest.mark.parametrize(("wrong", "message"), [("bits", "of the MD5 .* and not"), ("short", "IncompleteRead")])
def test_a_download_that_is_not_whole_is_not_kept(wrong, message, first_use, tmp_path, monkeypatch):
    train, test, data = first_use
    other = data[:-1] + b"x"
    with serving(other if wrong == "bits" else data, None if wrong == "bits" else 500) as (url, _):
        monkeypatch.setattr(sources, "CIFAR_PAGE", url)
        with pytest.raises(
            UserError, match=f"cannot download cifar100.*{message}.*--config.data.data_dir=DIR"
        ) as raised:
            load_cifar("cifar100")
    assert "\n" not in str(raised.value)
    with serving(data) as (url, _):
        monkeypatch.setattr(sources, "CIFAR_PAGE", url)
        same(load_cifar("cifar100"), "cifar100", train, test)
