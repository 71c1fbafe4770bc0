"""Pictures and sound as parts of a message: ``message("What is this?", image("llama.jpg"))``."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from ..errors import CommandError
from ..values import JSON
from .failures import quoted

# First bytes of the formats that llama.cpp decodes (stb_image, miniaudio).
_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"RIFF", "image/webp"),
)
_SOUNDS = ((b"RIFF", "wav"), (b"ID3", "mp3"), (b"\xff\xfb", "mp3"), (b"\xff\xf3", "mp3"), (b"fLaC", "flac"))


def image(source: str | Path | bytes) -> dict[str, JSON]:
    """A picture as a message's part: a file, its bytes, or an ``http(s):`` or ``data:`` address.

    Files and bytes travel in the request; an address is fetched by the server. Raises :class:`CommandError` for what is
    no picture that llama.cpp reads (PNG, JPEG, GIF, BMP, WebP).
    """
    if isinstance(source, str) and source.startswith(("http://", "https://", "data:")):
        return {"type": "image_url", "image_url": {"url": source}}
    data = _content(source)
    kind = _kind(data, _IMAGES)
    if kind is None or (kind == "image/webp" and data[8:12] != b"WEBP"):
        raise CommandError(f"not a picture: {_named(source)}", hint="a PNG, JPEG, GIF, BMP or WebP file")
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}}


def audio(source: str | Path | bytes) -> dict[str, JSON]:
    """Sound as a message's part: a file or its bytes (WAV, MP3, FLAC); raises :class:`CommandError` for the rest."""
    data, kind = sound(source)
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": kind}}


def message(*parts: str | dict[str, JSON], role: str = "user") -> dict[str, JSON]:
    """A message of texts and parts, in this order."""
    content: list[JSON] = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"role": role, "content": content}


def sound(source: str | Path | bytes) -> tuple[bytes, str]:
    """The bytes of a sound and ``wav``, ``mp3`` or ``flac``; raises :class:`CommandError` for anything else."""
    data = _content(source)
    kind = _kind(data, _SOUNDS)
    if kind is None or (kind == "wav" and data[8:12] != b"WAVE"):
        raise CommandError(f"not a sound: {_named(source)}", hint="a WAV, MP3 or FLAC file")
    return data, kind


def _kind(data: bytes, known: Sequence[tuple[bytes, str]]) -> str | None:
    return next((kind for start, kind in known if data.startswith(start)), None)


def _content(source: str | Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).expanduser().read_bytes()
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise CommandError(f"cannot read {_named(source)}: {why}", hint="a path that exists, or the bytes") from exc


def _named(source: str | Path | bytes) -> str:
    return f"{len(source)} bytes" if isinstance(source, bytes) else quoted(source)
