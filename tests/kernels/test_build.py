"""Compiling the kernels: once, whole or not at all, and never the end of a run."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resnet_jax.kernels import build
from tests.kernels.direct import arrays, assert_sums, calls
from tests.kernels.test_convolution import SAME, gradients

ROOT = Path(__file__).parents[2]
CXX = os.environ.get("CXX") or "c++"

#: Says a version, counts the libraries it links, and writes what it is told to.
COMPILER = """#!/bin/sh
case "$*" in *--version*) echo version "$VERSION"; exit ;; *-shared*) echo "$@" >> calls ;; esac
for out; do :; done
printf %s "$CONTENT" > "$out"
"""


def script(path, text):
    """Write a program in one step: one that a process still runs cannot be opened for writing (ETXTBSY)."""
    written = path.with_suffix(".new")
    written.write_text(text)
    written.chmod(0o755)
    written.replace(path)
    return str(path)


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A compiler that takes no time; calls it has had are lines of the file that is returned."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXX", script(tmp_path / "compiler", COMPILER))
    monkeypatch.setenv("VERSION", "1")
    monkeypatch.setenv("CONTENT", "a library")
    (tmp_path / "calls").write_text("")
    return tmp_path / "calls"


def give_away(path):
    """To a user that need not exist."""
    if os.geteuid() != 0:
        pytest.skip("giving a file to another user needs root")
    os.chown(path, 12345, 12345)


def wait_until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def said(path):
    return path.read_text().splitlines()


class TestBuild:
    def test_once(self, compiler, tmp_path):
        path = build.build(tmp_path / "a" / "b")
        assert path.read_text() == "a library" and list(path.parent.iterdir()) == [path]
        assert build.build(tmp_path / "a" / "b") == path and len(said(compiler)) == 1

    @pytest.mark.parametrize("what", ["convolution.cc", "common.h", "compiler", "argument", "jaxlib", "option"])
    def test_another_file_for_another(self, compiler, tmp_path, monkeypatch, what):
        first = build.build(tmp_path / "cache")
        if what in ("convolution.cc", "common.h"):
            other = shutil.copytree(build.FOLDER, tmp_path / "other")
            (other / what).write_text((other / what).read_text() + "\n")
            monkeypatch.setattr(build, "FOLDER", other)
        elif what == "compiler":
            monkeypatch.setenv("VERSION", "2")
        elif what == "argument":
            monkeypatch.setenv("CXX", f"{os.environ['CXX']} -O1")
        elif what == "jaxlib":
            monkeypatch.setattr(build.jaxlib, "__version__", "another")
        else:
            monkeypatch.setattr(build, "OPTIONS", ("-O2", *build.OPTIONS))
        assert build.build(tmp_path / "cache") != first and len(said(compiler)) == 2

    def test_a_compiler_with_arguments(self, compiler, tmp_path, monkeypatch):
        """As CXX="ccache g++"; a folder's name may have blanks."""
        (tmp_path / "of blanks").mkdir()
        wrapper = script(tmp_path / "of blanks" / "wrapper", '#!/bin/sh\nexec "$@"\n')
        monkeypatch.setenv("CXX", f"'{wrapper}' {os.environ['CXX']}")
        assert build.build(tmp_path / "cache").read_text() == "a library"

    def test_half_a_library_is_none(self, compiler, tmp_path, monkeypatch):
        """A compiler that breaks off leaves nothing that a later process would take for the library."""
        script(tmp_path / "compiler", COMPILER + 'case "$*" in *-shared*) exit 1; esac\n')
        with pytest.raises(subprocess.CalledProcessError):
            build.build(tmp_path / "cache")
        assert len(said(compiler)) == 1 and list((tmp_path / "cache").iterdir()) == []
        script(tmp_path / "compiler", COMPILER)
        (tmp_path / "cache" / "tmp123").mkdir()  # of a process that was killed
        (tmp_path / "cache" / "tmp123" / "kernels-0.so").write_text("half")
        assert build.build(tmp_path / "cache").read_text() == "a library"

    def test_a_killed_compilation_leaves_nothing(self, compiler, tmp_path):
        """SIGKILL: the next process removes its scratch folder, but not that of one that still compiles."""
        cache = tmp_path / "cache"
        script(tmp_path / "compiler", COMPILER.replace("for out", "echo at it >> started; sleep 30; for out"))
        code = f"from pathlib import Path; from resnet_jax.kernels import build; build.build(Path({str(cache)!r}))"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen([sys.executable, "-c", code], env=environment, start_new_session=True)
        wait_until(lambda: (tmp_path / "started").exists())
        script(tmp_path / "compiler", COMPILER)
        path = build.build(cache)
        assert {p for p in cache.iterdir() if not p.name.startswith(build.SCRATCH)} == {path}
        assert len(list(cache.iterdir())) == 2, "the other's folder is gone while it compiles"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert build.build(cache) == path and list(cache.iterdir()) == [path]

    @pytest.mark.parametrize("mode", [0o720, 0o702])
    def test_a_file_that_others_can_write_to_is_not_loaded(self, compiler, tmp_path, mode):
        path = build.build(tmp_path / "cache")
        path.chmod(mode)
        assert build.build(tmp_path / "cache") == path and len(said(compiler)) == 2
        assert path.stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("mode", [0o770, 0o707])
    def test_a_folder_that_others_can_write_to_is_closed_and_its_libraries_made_anew(self, compiler, tmp_path, mode):
        """As `umask 002` makes it. Another file of the user's there stays."""
        path = build.build(tmp_path / "cache")
        (tmp_path / "cache/mine").write_text("")
        (tmp_path / "cache").chmod(mode)
        assert build.build(tmp_path / "cache") == path and len(said(compiler)) == 2
        assert (tmp_path / "cache").stat().st_mode & 0o777 == mode & 0o755
        assert (tmp_path / "cache/mine").exists()

    def test_a_link_in_place_of_the_library_is_not_loaded(self, compiler, tmp_path):
        path = build.build(tmp_path / "cache")
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
        assert build.build(tmp_path / "cache") == path and len(said(compiler)) == 2 and not path.is_symlink()

    def test_another_users_library_is_not_loaded(self, compiler, tmp_path):
        path = build.build(tmp_path / "cache")
        give_away(path)
        assert build.build(tmp_path / "cache") == path and len(said(compiler)) == 2
        assert path.stat().st_uid == os.geteuid()

    def test_another_users_folder_is_not_used(self, compiler, tmp_path):
        build.build(tmp_path / "cache")
        give_away(tmp_path / "cache")
        with pytest.raises(PermissionError, match="another user's"):
            build.build(tmp_path / "cache")

    def test_two_processes_at_once(self, compiler, tmp_path, compiled_folder):
        """Each compiles while the other does, and each computes with what it finds."""
        together = f"""#!/bin/sh
        test "$1" = --version && exec {CXX} --version
        case "$*" in *-shared*) ;; *) exit 0 ;; esac
        for out; do :; done
        echo at it >> calls
        for _ in $(seq 600); do test $(wc -l < calls) = 2 && break; sleep 0.1; done
        cp {tmp_path}/library "$out"
        """
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CXX", CXX)
            (tmp_path / "library").write_bytes(build.build(compiled_folder).read_bytes())
        script(tmp_path / "compiler", together)
        code = (
            "import jax.numpy as jnp; from resnet_jax.kernels import build, convolution as c; assert build.available();"
            "print(c.convolution(jnp.ones((8, 1, 1, 16)), jnp.ones((1, 1, 16, 16)), ((1, 1), ((0, 0), (0, 0)))).sum())"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path), "XLA_FLAGS": ""}
        environment.pop(build.SWITCH, None)
        processes = [
            subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        assert [process.communicate()[0].strip() for process in processes] == ["2048.0"] * 2
        assert said(compiler) == ["at it"] * 2 and len(list(tmp_path.glob("resnet_jax/*/kernels-*.so"))) == 1


def test_a_damaged_library_is_made_anew(tmp_path, compiled_folder, monkeypatch):
    whole = build.build(compiled_folder)
    copies = f"""#!/bin/sh
    test "$1" = --version && exec echo version 1
    case "$*" in *-shared*) ;; *) exit 0 ;; esac
    for out; do :; done
    echo at it >> {tmp_path}/calls
    cp {whole} "$out"
    """
    monkeypatch.setenv("CXX", script(tmp_path / "compiler", copies))
    path = build.build(tmp_path / "cache")
    path.write_bytes(whole.read_bytes()[:1000])
    assert build.build(tmp_path / "cache") == path
    assert said(tmp_path / "calls") == ["at it"] * 2 and path.read_bytes() == whole.read_bytes()


class TestAvailable:
    """Without a library, convolutions are XLA's, and the log says why, once."""

    @pytest.fixture(autouse=True)
    def empty_cache(self, asked_anew, compiler, tmp_path, monkeypatch):
        monkeypatch.setattr(build, "default_folder", lambda: tmp_path / "cache")

    def check_xlas(self, caplog, *words):
        operands = arrays(8, (4, 4), 16, 16, (3, 3), SAME)
        with caplog.at_level(logging.WARNING, "resnet_jax"):
            assert calls(gradients, *operands) == 0
            assert_sums(gradients(*operands), *operands, SAME)
        warnings = [record.getMessage() for record in caplog.records if record.name == build.__name__]
        assert len(warnings) == (1 if words else 0) and not any("\n" in warning for warning in warnings)
        assert all(word in warnings[0] for word in words)

    def test_no_compiler(self, caplog, monkeypatch, tmp_path):
        monkeypatch.delenv("CXX")
        monkeypatch.setenv("PATH", str(tmp_path))
        self.check_xlas(caplog, "XLA's own", "there is no C++ compiler")

    def test_one_that_is_not_there(self, caplog, monkeypatch):
        monkeypatch.setenv("CXX", "no-such-compiler -O1")
        self.check_xlas(caplog, "XLA's own", "no-such-compiler")

    def test_one_that_fails(self, caplog, tmp_path):
        script(tmp_path / "compiler", COMPILER + "echo error: -march=native is not known >&2; exit 1\n")
        self.check_xlas(caplog, "XLA's own", "error: -march=native is not known")

    def test_quotes_without_an_end(self, caplog, monkeypatch):
        monkeypatch.setenv("CXX", "'c++")
        self.check_xlas(caplog, "XLA's own", "No closing quotation")

    @pytest.mark.parametrize("name", ["/", "\udcff", "nul\n"])
    def test_a_name_of_no_program(self, caplog, monkeypatch, name):
        monkeypatch.setenv("CXX", name)
        self.check_xlas(caplog, "XLA's own")

    @pytest.mark.parametrize("status", [0, 1])
    def test_one_that_says_what_is_no_text(self, caplog, tmp_path, status):
        """In its version, and in its complaints over several lines: one line all the same."""
        odd = "printf '\\377\\376 two\\nlines' >&2; printf '\\377\\376'; "
        script(tmp_path / "compiler", COMPILER.replace("case", f"{odd} case", 1) + f"exit {status}\n")
        self.check_xlas(caplog, "XLA's own", "two lines" if status else "kernels-")

    def test_one_that_never_ends(self, caplog, tmp_path, monkeypatch):
        monkeypatch.setattr(build, "LONGEST", 0.5)
        script(tmp_path / "compiler", "#!/bin/sh\nexec sleep 30\n")
        self.check_xlas(caplog, "XLA's own", "timed out")

    def test_a_library_that_lacks_a_function(self, caplog, tmp_path, monkeypatch):
        """Of which one is there: XLA is told of none of them."""
        source = tmp_path / "one.cc"
        source.write_text('extern "C" void Convolution() {}')
        subprocess.run([CXX, "-shared", "-fPIC", str(source), "-o", str(tmp_path / "one")], check=True)
        told = []
        monkeypatch.setattr(build.jax.ffi, "register_ffi_target", lambda *a, **k: told.append(a))
        script(tmp_path / "compiler", COMPILER.replace("printf %s", 'exec cp one "$out"; :'))
        self.check_xlas(caplog, "XLA's own", "ConvolutionImagesGradient")
        assert told == []

    def test_another_users_cache(self, caplog, tmp_path):
        (tmp_path / "cache").mkdir()
        give_away(tmp_path / "cache")
        self.check_xlas(caplog, "XLA's own", "another user's")

    def test_one_whose_library_is_none(self, caplog):
        self.check_xlas(caplog, "XLA's own", "kernels-")

    def test_a_cache_that_cannot_be_written(self, caplog, tmp_path):
        (tmp_path / "cache").write_text("a file")
        self.check_xlas(caplog, "XLA's own", "cache")

    def test_no_home(self, caplog, monkeypatch):
        def homeless():
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(build, "default_folder", homeless)
        self.check_xlas(caplog, "XLA's own", "home directory")

    def test_switched_off(self, caplog, monkeypatch, compiler):
        """No word, and no compiler."""
        monkeypatch.setenv("RESNET_JAX_KERNELS", "0")
        self.check_xlas(caplog)
        assert said(compiler) == []


def test_this_processors_library_is_in_its_own_folder(monkeypatch, asked_anew, tmp_path):
    """A home may be shared with a machine whose processor lacks instructions of this one's."""
    found = []
    monkeypatch.setattr(build, "build", lambda folder: found.append(folder) or tmp_path / "none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    read = Path.read_text
    for processor in ("one", "another"):
        said = f"model name : {processor}\n"
        monkeypatch.setattr(Path, "read_text", lambda p, *a, said=said: said if "cpuinfo" in str(p) else read(p, *a))
        assert not build.available()
        build.library.cache_clear()
    assert len(set(found)) == 2 and all(folder.is_relative_to(tmp_path) for folder in found)
