"""Archives from elsewhere: what they may do, and what they may not."""

from __future__ import annotations

import gzip
import io
import shutil
import stat
import tarfile
from importlib.util import find_spec

import pytest

from llamatelemetry_jupyter import archive
from llamatelemetry_jupyter.errors import FetchError

pytestmark = pytest.mark.floor


def entry(name, content=b"x", **fields):
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    info.size = len(content) if info.isreg() else 0
    return info, content


def write(path, *entries):
    with tarfile.open(path, "w:gz") as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(params=["data filter", "no data filter"])
def _filters(request, monkeypatch):
    """Python 3.10.11 and 3.11.3 have no data filter."""
    if request.param == "no data filter":
        monkeypatch.delattr(tarfile, "data_filter")
        monkeypatch.setattr(
            tarfile.TarFile, "extraction_filter", staticmethod(lambda member, path: member), raising=False
        )
    elif not hasattr(tarfile, "data_filter"):
        pytest.skip("this Python has none")


def run(path, folder, limit=1 << 20):
    folder.mkdir(exist_ok=True)
    archive.unpack(path, folder, limit, lambda *_: None)


@pytest.mark.usefixtures("_filters")
def test_programs_libraries_and_their_links_come_out(tmp_path):
    path = write(
        tmp_path / "a.tar.gz",
        entry("./b1/", type=tarfile.DIRTYPE),
        entry("./b1/llama-server", b"#!/bin/sh\n", mode=0o4755, uid=12345),
        entry("./b1/libggml.so.0.1", b"lib", mode=0o644),
        entry("./b1/libggml.so.0", type=tarfile.SYMTYPE, linkname="libggml.so.0.1"),
        entry("./b1/libggml.so", type=tarfile.SYMTYPE, linkname="libggml.so.0"),
    )
    run(path, tmp_path / "out")
    out = tmp_path / "out" / "b1"
    assert stat.S_IMODE((out / "llama-server").stat().st_mode) == 0o755  # no set-user-id bit
    assert (out / "llama-server").stat().st_uid == tmp_path.stat().st_uid
    assert (out / "libggml.so").read_bytes() == b"lib"


@pytest.mark.usefixtures("_filters")
@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([entry("../evil")], "outside the archive"),
        ([entry("a/../../evil")], "outside the archive"),
        ([entry("/tmp/llamatelemetry-evil")], "outside the archive"),
        ([entry("l", type=tarfile.SYMTYPE, linkname="/etc")], "leads outside"),
        ([entry("l", type=tarfile.SYMTYPE, linkname="../..")], "leads outside"),
        ([entry("d/l", type=tarfile.SYMTYPE, linkname="../../evil")], "leads outside"),
        # Each link is inside by its letters; followed one after the other they leave.
        (
            [
                entry("d/", type=tarfile.DIRTYPE),
                entry("a", type=tarfile.SYMTYPE, linkname="d"),
                entry("a/b", type=tarfile.SYMTYPE, linkname="../.."),
                entry("a/b/evil"),
            ],
            "outside",
        ),
        ([entry("h", type=tarfile.LNKTYPE, linkname="/etc/passwd")], "neither file, folder nor link"),
        ([entry("dev", type=tarfile.CHRTYPE, devmajor=1, devminor=3)], "neither file, folder nor link"),
        ([entry("fifo", type=tarfile.FIFOTYPE)], "neither file, folder nor link"),
        ([entry("big", b"x" * 2_000_000)], "more than 1.0 MiB"),
        ([entry(f"n{i}", b"x" * 300_000) for i in range(5)], "more than 1.0 MiB"),
        ([entry("x" * 6_000_000)], "header"),
    ],
)
def test_what_is_hostile_is_refused_and_nothing_leaves_the_folder(tmp_path, entries, said):
    path = write(tmp_path / "a.tar.gz", *entries)
    with pytest.raises(FetchError, match=said) as problem:
        run(path, tmp_path / "in")
    assert problem.value.hint
    assert not list(tmp_path.rglob("evil"))
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.usefixtures("_filters")
def test_a_link_is_replaced_and_never_written_through(tmp_path):
    path = write(
        tmp_path / "a.tar.gz",
        entry("target", b"old"),
        entry("l", type=tarfile.SYMTYPE, linkname="target"),
        entry("l", b"new"),
    )
    run(path, tmp_path / "out")
    assert (tmp_path / "out" / "target").read_bytes() == b"old"
    assert (tmp_path / "out" / "l").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>log in first</html>", "neither .tar.gz nor .zst"),
        (b"", "neither .tar.gz nor .zst"),
        (gzip.compress(b"no tar"), "damaged"),
        (b"\x1f\x8b\x08\x00garbage", "damaged"),
        (b"\x28\xb5\x2f\xfdgarbage", "damaged"),
    ],
)
def test_what_is_no_archive_says_so(tmp_path, content, said):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    with pytest.raises(FetchError, match=said):
        run(path, tmp_path / "out")


def test_a_tar_that_ends_early_is_damaged(tmp_path):
    import random

    path = write(tmp_path / "a.tar.gz", entry("a", random.Random(1).randbytes(200_000)))
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(FetchError, match="damaged"):
        run(path, tmp_path / "out")


# ----------------------------------------------------------------------------------------------------------------- zstd


def decoders():
    found = [name for name in ("compression.zstd", "pyarrow") if there(name)]
    return [*found, *(["zstd program"] if shutil.which("zstd") else [])]


def there(name):
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture(params=decoders())
def decoder(request, monkeypatch):
    """Only this decoder is there."""
    wanted = request.param

    def only(name):
        return find_spec(name) if wanted.startswith(name) or name == wanted else None

    monkeypatch.setattr(archive, "find_spec", only)
    return wanted


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """``packed(content)`` → a .zst file, by whatever packs here."""
    folder = tmp_path_factory.mktemp("zst")

    def pack(content):
        import pyarrow

        path = folder / f"{len(content)}.zst"
        with pyarrow.CompressedOutputStream(str(path), "zstd") as out:
            out.write(content)
        return path

    return pack


def test_a_single_file_comes_out_of_zstd(tmp_path, decoder, packed):
    content = bytes(range(256)) * 20_000
    archive.unpack(packed(content), tmp_path, 1 << 24, lambda *_: None, name="llama")
    assert (tmp_path / "llama").read_bytes() == content


def test_a_zstd_bomb_stops_at_the_limit(tmp_path, decoder, packed):
    path = packed(bytes(64 << 20))
    assert path.stat().st_size < 20_000
    with pytest.raises(FetchError, match=r"more than 1\.0 MiB"):
        archive.unpack(path, tmp_path, 1 << 20, lambda *_: None)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 1 << 20


@pytest.mark.parametrize("where", [0.3, 0.99])
def test_a_zstd_file_that_ends_early_is_damaged(tmp_path, decoder, packed, where):
    import random

    path = tmp_path / "short.zst"
    whole = packed(random.Random(1).randbytes(3_000_000)).read_bytes()
    path.write_bytes(whole[: int(len(whole) * where)])
    with pytest.raises(FetchError, match="damaged"):
        archive.unpack(path, tmp_path, 1 << 24, lambda *_: None)


def test_without_any_decoder_the_remedy_is_named(tmp_path, monkeypatch, packed):
    monkeypatch.setattr(archive, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(FetchError) as problem:
        archive.unpack(packed(b"x"), tmp_path, 1 << 20, lambda *_: None)
    assert problem.value.hint == "%pip install pyarrow"
