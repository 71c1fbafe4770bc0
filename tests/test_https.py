"""A file from a web server: continued, checked, and refused when it is not the one that was promised."""

from __future__ import annotations

import hashlib
from collections import namedtuple

import pytest
from downloadhost import File, download_host

from llamatelemetry_jupyter import _files, _https
from llamatelemetry_jupyter.errors import FetchError
from llamatelemetry_jupyter.fetch import HttpsSource, cached, fetch
from llamatelemetry_jupyter.progress import silent

pytestmark = pytest.mark.floor

CONTENT = bytes(range(256)) * 12_000
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr(_https, "_WAIT_S", 0.0)


@pytest.fixture
def host():
    with download_host() as running:
        running.files["/a/engine.zst"] = File(CONTENT)
        yield running


@pytest.fixture
def get(host, tmp_path):
    """Fetches the host's file into an empty folder; ``get(sha256=None, …)`` changes the source."""

    def run(say=silent, path="/a/engine.zst", sha256=SHA, file_bytes=None):
        return fetch(HttpsSource(host.url + path, sha256, file_bytes), say, folder=tmp_path / "files", hint="bring it")

    return run


def left(tmp_path):
    return sorted(p.name for p in (tmp_path / "files").iterdir() if not p.name.endswith(".lock"))


def ranges(host):
    return [asked for _, _, asked, _ in host.hits]


def test_a_file_is_fetched_once_under_its_own_name(host, get, tmp_path):
    seen = []
    path = get(lambda step: seen.append((step.what, step.fraction)))
    assert path.read_bytes() == CONTENT
    assert path.name == "engine.zst"
    assert left(tmp_path) == ["engine.zst"]
    fractions = [f for stage, f in seen if stage == "downloading engine.zst"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert get() == path
    assert len(host.hits) == 1


def test_a_broken_connection_goes_on_where_it_broke(host, get):
    host.files["/a/engine.zst"].cuts = [1_000_000, 700_000]
    assert get().read_bytes() == CONTENT
    assert host.hits == [
        ("GET", "/a/engine.zst", None, None),
        ("GET", "/a/engine.zst", "bytes=1000000-", '"v1"'),
        ("GET", "/a/engine.zst", "bytes=1700000-", '"v1"'),
    ]


def interrupted(get, **source):
    """A download that its user stops in the middle."""

    def stop(step):
        if step.fraction and step.fraction > 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(stop, **source)


def test_an_interrupted_download_is_no_file_and_is_continued(host, get, tmp_path):
    interrupted(get)
    assert left(tmp_path) == [".engine.zst.part", ".engine.zst.part.json"]
    there = (tmp_path / "files" / ".engine.zst.part").stat().st_size
    assert 0 < there < len(CONTENT)
    assert get().read_bytes() == CONTENT
    assert ranges(host) == [None, f"bytes={there}-"]
    assert left(tmp_path) == ["engine.zst"]


def test_a_process_that_died_between_the_last_byte_and_the_name(host, get, tmp_path):
    interrupted(get)
    (tmp_path / "files" / ".engine.zst.part").write_bytes(CONTENT)
    assert get().read_bytes() == CONTENT
    assert ranges(host)[-1] == f"bytes={len(CONTENT)}-"


@pytest.mark.parametrize("change", ["etag", "ranges"])
def test_another_version_or_a_server_without_ranges_starts_anew(host, get, change):
    interrupted(get, sha256=None)
    if change == "etag":
        host.files["/a/engine.zst"] = File(CONTENT[::-1], etag='"v2"')
    else:
        host.files["/a/engine.zst"].ranges = False
    assert get(sha256=None).read_bytes() == host.files["/a/engine.zst"].content


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_without_hash_and_strong_validator_nothing_is_continued(host, get, etag):
    host.files["/a/engine.zst"].etag = etag
    interrupted(get, sha256=None)
    assert get(sha256=None).read_bytes() == CONTENT
    assert ranges(host) == [None, None]


def test_a_range_that_was_not_asked_for_is_never_glued_on(host, get):
    host.files["/a/engine.zst"].cuts = [1000]
    host.files["/a/engine.zst"].range_start = 5
    assert get().read_bytes() == CONTENT
    assert ranges(host) == [None, "bytes=1000-", None]


def test_no_content_length(host, get):
    host.files["/a/engine.zst"].length = False
    assert get(sha256=None).read_bytes() == CONTENT


def test_a_cut_without_content_length_is_noticed_by_the_size_or_the_hash(host, get, tmp_path):
    host.files["/a/engine.zst"].length = False
    host.files["/a/engine.zst"].cuts = [5000]
    assert get(file_bytes=len(CONTENT)).read_bytes() == CONTENT
    (tmp_path / "files" / "engine.zst").unlink()
    host.files["/a/engine.zst"].cuts = [5000]
    with pytest.raises(FetchError, match="not the file that was expected"):
        get()


@pytest.mark.parametrize(
    ("source", "file", "said"),
    [
        ({"sha256": "0" * 64}, {}, r"SHA-256 [0-9a-f]{16}…, expected 0000"),
        ({"file_bytes": 10}, {}, "3,072,000 bytes, expected 10"),
        ({"file_bytes": 10}, {"length": False}, "sends more than its 10 B"),
    ],
)
def test_another_file_than_the_promised_one_leaves_nothing(host, get, tmp_path, source, file, said):
    for name, value in file.items():
        setattr(host.files["/a/engine.zst"], name, value)
    with pytest.raises(FetchError, match=said) as problem:
        get(**source)
    assert problem.value.hint == "bring it"
    assert "engine.zst" not in left(tmp_path)
    assert get().read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "said"), [(404, "not there"), (403, "refused"), (401, "login"), (418, "HTTP 418")])
def test_a_refusal_is_said_at_once(host, get, status, said):
    host.files["/a/engine.zst"].statuses = [status]
    with pytest.raises(FetchError, match=said):
        get()
    assert len(host.hits) == 1


def test_a_busy_server_is_asked_again_but_not_for_ever(host, get):
    host.files["/a/engine.zst"].statuses = [503, 429]
    assert get().read_bytes() == CONTENT
    host.files["/a/engine.zst"].statuses = [500] * 50
    with pytest.raises(FetchError, match="busy"):
        get(path="/a/engine.zst", sha256="1" * 64, file_bytes=1)
    assert len(host.hits) == 3 + _https._TRIES


def test_redirects_lead_to_the_file_and_nowhere_unsafe(host, get):
    host.files["/old"] = File(location="/a/engine.zst")
    assert get(path="/old").read_bytes() == CONTENT
    for target, said in (
        ("/loop", "without an end"),
        ("http://192.0.2.1/x", "not https"),
        ("file:///etc/passwd", "not https"),
    ):
        host.files["/loop"] = File(location=target)
        with pytest.raises(FetchError, match=said):
            get(path="/loop")


@pytest.mark.parametrize("url", ["http://example.org/x", "ftp://127.0.0.1/x", "https://"])
def test_addresses_that_are_not_asked(url, tmp_path):
    with pytest.raises(FetchError):
        fetch(HttpsSource(url, None, name="x"), folder=tmp_path)


def test_a_proxy_that_is_not_there_and_a_server_that_speaks_no_tls(host, monkeypatch, tmp_path):
    with pytest.raises(FetchError, match=r"certificate of 127\.0\.0\.1 is not accepted"):
        fetch(HttpsSource(host.url.replace("http:", "https:") + "/x", None), folder=tmp_path)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(FetchError, match="the proxy does not answer"):
        fetch(HttpsSource("https://example.invalid/x", None), folder=tmp_path)


def test_a_cache_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match="cannot be made") as problem:
        fetch(HttpsSource("http://127.0.0.1:9/x", None), folder=tmp_path / "file" / "cache")
    assert problem.value.hint.startswith("%env LLAMATELEMETRY_CACHE=")


def test_nobody_there(tmp_path):
    with pytest.raises(FetchError, match=r"127\.0\.0\.1 does not answer \(is this machine offline\?\)") as problem:
        fetch(HttpsSource("http://127.0.0.1:9/x", None), folder=tmp_path, hint="bring it")
    assert problem.value.hint == "bring it"


def test_proxies_are_not_asked_for_this_machine(host, get, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert get().read_bytes() == CONTENT


def test_a_full_disk_is_said_before_anything_is_written(host, get, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(_files.shutil, "disk_usage", lambda _: usage(0, 0, 1000))
    with pytest.raises(FetchError, match=r"2\.9 MiB are needed .* 1000 B are free"):
        get()
    assert not [name for name in left(tmp_path) if name.endswith(".part")]


def test_a_name_with_another_size_is_not_the_file(host, get, tmp_path):
    path = get(file_bytes=len(CONTENT))
    path.write_bytes(b"half")
    source = HttpsSource(f"{host.url}/a/engine.zst", SHA, len(CONTENT))
    assert cached(source, tmp_path / "files") is None
    assert get(file_bytes=len(CONTENT)).read_bytes() == CONTENT


def test_the_size_is_known_before_the_download(host):
    source = HttpsSource(f"{host.url}/a/engine.zst", None)
    assert _https.remote_size(source, "x") == len(CONTENT)
    host.files["/a/engine.zst"].length = False
    assert _https.remote_size(source, "x") is None
    host.files["/a/engine.zst"].statuses = [403]
    assert _https.remote_size(source, "x") is None
    assert {method for method, *_ in host.hits} == {"HEAD"}
    with pytest.raises(FetchError, match="404"):
        _https.remote_size(HttpsSource(f"{host.url}/none", None), "x")
