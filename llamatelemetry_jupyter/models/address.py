"""What people type for a model, taken apart: a name, a path, or where it comes from.

``qwen2.5-7b:Q4_K_M`` · ``model.gguf`` · ``file:model.gguf`` · ``hf:owner/repo@revision:Q4_K_M`` ·
``hf:owner/repo/x.gguf`` · ``kaggle:owner/model/framework/variation/version/x.gguf`` · ``https://host/x.gguf#sha256=…``
· ``pypi:project==version/member#sha256=…``
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from ..errors import ModelError

Scheme = Literal["name", "path", "hf", "kaggle", "https", "pypi"]

_SLUG = r"[A-Za-z0-9][\w.-]*"
_HF = re.compile(
    rf"hf:(?://)?(?P<repo>{_SLUG}/{_SLUG})(?:@(?P<revision>\w[\w.-]*))?"
    r"(?:/(?P<file>[^:?#]+\.gguf)|:(?P<quant>[\w-]+))?",
    re.IGNORECASE,
)
_HF_PAGE = re.compile(
    rf"https://(?:huggingface\.co|hf\.co)/(?P<repo>{_SLUG}/{_SLUG})/(?:resolve|blob|raw)/(?P<revision>[^/?#]+)/"
    r"(?P<file>[^?#]+\.gguf)(?:\?download=true)?",
    re.IGNORECASE,
)
_KAGGLE = re.compile(
    rf"kaggle:(?P<repo>{_SLUG}/{_SLUG}/{_SLUG}/{_SLUG})(?:/(?P<revision>\d+))?"
    r"(?:/(?P<file>[^:?#]+\.gguf)|:(?P<quant>[\w-]+))?",
    re.IGNORECASE,
)
_PYPI = re.compile(
    r"pypi:(?P<repo>[\w.-]+)==(?P<revision>[\w.+!-]+)/(?P<file>[^#]+)#sha256=(?P<sha256>[0-9a-fA-F]{64})"
)
_SHA256 = re.compile(r"sha256=([0-9a-fA-F]{64})")
_NAME = re.compile(r"(?P<name>[\w.+-]+)(?::(?P<quant>[\w-]+))?")

FORMS = {
    "hf": "hf:OWNER/REPOSITORY:Q4_K_M   or   hf:OWNER/REPOSITORY/FILE.gguf",
    "kaggle": "kaggle:OWNER/MODEL/gguf/VARIATION   or   …/VARIATION/VERSION/FILE.gguf",
    "pypi": "pypi:PROJECT==VERSION/FILE#sha256=…",
}


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of an address; ``where`` is a name, a path, ``owner/repo`` or a URL, ``text`` what was typed."""

    scheme: Scheme
    where: str
    text: str
    revision: str | None = None
    file: str | None = None
    quant: str | None = None
    sha256: str | None = None


def parse(text: str) -> Address:
    """The parts of ``text``; raises ModelError when it begins like an address and is none."""
    text = text.strip()
    scheme = text.split(":", 1)[0].lower() if ":" in text else ""
    if page := _HF_PAGE.fullmatch(text):
        file = unquote(page["file"])
        at = "" if page["revision"] == "main" else f"@{page['revision']}"
        return parse(f"hf:{page['repo']}{at}/{file}")
    if scheme == "hf":
        return _matched("hf", _HF, text)
    if scheme == "kaggle":
        return _matched("kaggle", _KAGGLE, text)
    if scheme == "pypi":
        return _matched("pypi", _PYPI, text)
    if scheme in ("https", "http"):
        return _web(text)
    if scheme == "file":
        return Address("path", _local(text), text)
    if is_path(text):
        return Address("path", text, text)
    named = _NAME.fullmatch(text)
    if named is None:
        return Address("name", text, text)
    return Address("name", named["name"].lower(), text, quant=named["quant"])


def is_path(text: str) -> bool:
    """Whether ``text`` is meant as a file on this machine."""
    return text.lower().endswith(".gguf") or os.sep in text or text.startswith("~") or os.path.exists(text)


def _matched(scheme: Scheme, pattern: re.Pattern[str], text: str) -> Address:
    found = pattern.fullmatch(text)
    parts = {} if found is None else found.groupdict()
    # A path that climbs could leave the cache; hubs have no such names.
    if found is None or ".." in (parts.get("file") or "").split("/"):
        raise ModelError(f"{text!r} is no address of a model", hint=FORMS[scheme])
    return Address(
        scheme,
        found["repo"],
        text,
        parts.get("revision"),
        parts.get("file"),
        parts.get("quant"),
        (parts.get("sha256") or "").lower() or None,
    )


def _web(text: str) -> Address:
    url, _, fragment = text.partition("#")
    hashed = _SHA256.fullmatch(fragment)
    if not urlsplit(url).hostname:
        raise ModelError(f"{text!r} is no address of a model", hint="https://HOST/FILE.gguf#sha256=…")
    if hashed is None:
        raise ModelError(
            f"{url} is fetched only with the SHA-256 of the file: nobody else vouches for it",
            hint=f"{url}#sha256=…   (64 hexadecimal digits)",
        )
    return Address("https", url, text, sha256=hashed[1].lower())


def _local(text: str) -> str:
    rest = text.partition(":")[2]
    if not rest.startswith("//"):
        return rest
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise ModelError(f"{text!r} names another machine", hint="file:/PATH/FILE.gguf")
    return unquote(parts.path)
