"""Builds of llama.cpp's server as they are published: archives around :mod:`fakellama`, whose HTTP server is llama.cpp's own."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import fakellama
import pyarrow

DEVICE = "CUDA0: Tesla T4 (15102 MiB, 14995 MiB free)"

_FIRST = """
import sys
if "serve" in sys.argv: sys.argv.remove("serve")
if "--list-devices" in sys.argv:
    print("Available devices:"); [print("  " + d) for d in DEVICES]; sys.exit(0)
"""


def program(folder: Path, devices=(), broken: str | None = None) -> bytes:
    """``llama-server`` that sees ``devices``; ``broken``: the line with which it ends at once."""
    if broken is not None:
        return f"#!/bin/sh\necho '{broken}' >&2; exit 127\n".encode()
    text = fakellama.write(folder / "made").read_text()
    first, rest = text.split("\n", 1)
    return (
        first
        + _FIRST.replace("DEVICES", repr(list(devices)))
        + rest.replace("--version\n", "--version / --list-devices\n")
    ).encode()


def tar(*entries: tuple[str, bytes]) -> bytes:
    """A ``.tar.gz``."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zst(content: bytes) -> bytes:
    """A ``.zst`` of one file."""
    out = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(out, "zstd") as packed:
        packed.write(content)
    return out.getvalue().to_pybytes()
