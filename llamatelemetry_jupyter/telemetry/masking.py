"""Secrets in text, recognised and masked: in prompts, answers, attributes and names, whoever wrote them.

Two ways together. Values that are known here (keys that we made, variables of the environment whose name says what they
are) are found wherever they stand; keys of other places by their published form. A password without a form of its own
is recognised by what stands before it (``password=…``) and otherwise not at all: :func:`..privacy.redact` is for those.
"""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from .. import secrets


class Form(NamedTuple):
    """How a secret looks; where ``pattern`` has a group, the group is the secret.

    Text that holds none of the ``needles`` (in lower case) is not searched: most text costs a few µs.
    """

    kind: str
    needles: tuple[str, ...]
    pattern: re.Pattern[str]


def _form(kind: str, needles: str, pattern: str) -> Form:
    return Form(kind, tuple(needles.split()), re.compile(pattern))


#: A quote may be escaped: content is JSON in an attribute.
_QUOTE = r"(?:\\?[\"'])?"
#: Sources: GitHub's list of supported secrets (docs.github.com, secret scanning patterns), the rules of gitleaks
#: (config/gitleaks.toml), and the issuers' own pages where they say how their keys look.
FORMS = (
    _form(
        "private key", "private", r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    ),
    _form("JSON web token", "eyj", r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{8,}"),
    _form("API key", "sk- pk- rk-", r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{20,}"),  # OpenAI, Anthropic, OpenRouter, Langfuse
    _form("Hugging Face token", "hf_ api_org_", r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}"),
    _form("Kaggle token", "kgat_", r"\bKGAT_[0-9a-fA-F]{32}"),
    _form("GitHub token", "gh github_pat_", r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})"),
    _form("GitLab token", "gl", r"\bgl(?:pat|dt|rt|cbt)-[\w-]{20,}"),
    _form("AWS key", "akia asia abia acca", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"),
    _form("Google key", "aiza ya29.", r"\bAIza[\w-]{35}|\bya29\.[\w-]{20,}"),
    _form("NVIDIA key", "nvapi-", r"\bnvapi-[\w-]{20,}"),
    _form("Slack token", "xox", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    _form("PyPI token", "pypi-age", r"\bpypi-AgE[\w-]{50,}"),
    _form("npm token", "npm_", r"\bnpm_[A-Za-z0-9]{36}"),
    _form("Stripe key", "sk_ rk_", r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    _form(  # Groq, Replicate, DigitalOcean, Weights & Biases, LangSmith, Together
        "token",
        "gsk_ r8_ dop_v1_ wandb_v1_ lsv2_ tgp_v1_",
        r"\b(?:gsk|r8|dop_v1|wandb_v1|lsv2_[ps]t|tgp_v1)_[\w-]{24,}",
    ),
    _form("credentials", "bearer basic", r"\b(?i:bearer|basic)\s+([A-Za-z0-9._~+/=-]{12,})"),
    _form("password", "://", r"://[^\s/:@]*:([^\s/@]{3,})@"),  # in an address
    _form(
        "password", "passw passphrase", rf"(?i:passw(?:or)?d|passphrase){_QUOTE}\s*[:=]\s*{_QUOTE}([^\s\"'\\,;&]{{4,}})"
    ),
    _form(
        "secret",
        "key secret token",
        r"(?i:api[_-]?key|secret(?:[_-]?\w{1,16})?|access[_-]?key(?:[_-]?id)?|(?:auth|access|client)[_-]?(?:token|secret)"
        rf"|\bkey|\btoken){_QUOTE}\s*[:=]\s*{_QUOTE}([^\s\"'\\,;&<>(){{}}\[\]]{{8,}})",
    ),
)
_SHORTEST = 8
_WORD = 20  # words of letters alone are hardly longer
_REFRESH_S = 1.0
_REPEATED = 64  # short texts come again and again: names of models, addresses
_MOST_CLEAN = 4096
_known: tuple[str, ...] = ()
_until_s = 0.0
_clean: set[str] = set()


def mask(text: str) -> str:
    """``text`` with ``[masked: what it was]`` in the place of each secret; other text is the same object."""
    if len(text) < _SHORTEST:
        return text
    if text in ordinary():
        return text
    given = text
    for value in _known:
        if value in text:
            text = text.replace(value, "[masked: key]")
    lower = text.lower()
    for form in FORMS:
        if any(needle in lower for needle in form.needles):
            text = form.pattern.sub(lambda found, kind=form.kind: _masked(found, kind), text)  # type: ignore[misc]
    if text == given:
        if len(given) <= _REPEATED and len(_clean) < _MOST_CLEAN:
            _clean.add(given)
        return given
    return text


def _masked(found: re.Match[str], kind: str) -> str:
    if found.re.groups == 0:
        return f"[masked: {kind}]"
    secret = found[1]
    # "token: therefore" and "basic introduction" are prose, "key = variable" is code; "[masked: …" is done already.
    plain = kind in ("secret", "credentials") and (secret.isalpha() or secret.isdigit()) and len(secret) < _WORD
    if plain or secret.startswith("[masked"):
        return found[0]
    start = found.start(1) - found.start()
    return f"{found[0][:start]}[masked: {kind}]{found[0][start + len(secret) :]}"


def ordinary() -> set[str]:
    """Short texts that were looked at and hold no secret; look into it anew for each span."""
    global _known, _until_s  # noqa: PLW0603 (a cache)
    now = time.monotonic()
    if now >= _until_s:
        found, _until_s = tuple(secrets.known()), now + _REFRESH_S
        if found != _known:
            _known = found
            _clean.clear()
    return _clean
