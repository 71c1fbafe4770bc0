"""Pictures and sound as parts of a message."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from llamatelemetry_jupyter.api.parts import audio, image, message
from llamatelemetry_jupyter.errors import CommandError

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 8
WAV = b"RIFF\x00\x00\x00\x00WAVE" + b"x" * 8


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "png"),
        (b"\xff\xd8\xff\xe0rest", "jpeg"),
        (b"GIF89a....", "gif"),
        (b"BM......", "bmp"),
        (b"RIFF....WEBPrest", "webp"),
    ],
)
def test_a_picture_travels_as_it_is(data: bytes, kind: str, tmp_path: Path) -> None:
    file = tmp_path / "no-ending"
    file.write_bytes(data)
    for source in (data, file, str(file)):
        part = image(source)
        url = part["image_url"]["url"]
        assert url.startswith(f"data:image/{kind};base64,")
        assert base64.b64decode(url.partition(",")[2]) == data


def test_addresses_stay_addresses() -> None:
    for url in ("https://example.org/a.png", "data:image/png;base64,AA=="):
        assert image(url) == {"type": "image_url", "image_url": {"url": url}}


def test_sound_names_its_format() -> None:
    assert audio(WAV)["input_audio"] == {"data": base64.b64encode(WAV).decode(), "format": "wav"}
    assert audio(b"ID3rest")["input_audio"]["format"] == "mp3"


def test_a_message_keeps_the_order() -> None:
    made = message("Compare", image(PNG), "with", image(PNG))
    assert made["role"] == "user"
    assert [part["type"] for part in made["content"]] == ["text", "image_url", "text", "image_url"]


@pytest.mark.parametrize("source", [b"", b"RIFF....", b"<svg>", b"%PDF", "/no/such/file", "a\0b", "."])
def test_what_is_neither(source: str | bytes) -> None:
    for part in (image, audio):
        with pytest.raises(CommandError) as caught:
            part(source)
        assert caught.value.hint
        assert len(caught.value._render_traceback_()) == 2
