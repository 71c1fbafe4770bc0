"""What a server is started with: one field a setting, with its check, its default's reason and both engines' names.

The rendering is :mod:`.options`'; a test compares what each engine then reports in ``/props``. Long, because it is the
one table of all settings.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import CommandError, EngineError
from ..models.gguf import GGUFHeader
from ..values import JSON, ModelRef
from .options import Option, option, options, spelled

KVType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]
Pooling = Literal["none", "mean", "cls", "last", "rank"]
SplitMode = Literal["layer", "none", "row", "tensor"]
LoadMode = Literal["auto", "none", "mmap", "mlock", "mmap+mlock", "dio"]
Speculation = Literal[
    "none", "draft-simple", "draft-eagle3", "draft-mtp", "ngram-simple", "ngram-map-k", "ngram-mod", "ngram-cache"
]
#: Context per slot when nobody asks. The engine's own default is all that the model was trained for, and for a 128k
#: model that is more KV cache than a free GPU has memory.
DEFAULT_CONTEXT = 8192
_MOE = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"  # llama.cpp's LLM_FFN_EXPS_REGEX


def _ggml(value: str) -> JSON:
    return f"GGML_TYPE_{value}".upper()


def _enum(prefix: str, **special: str) -> Any:
    return lambda value: f"{prefix}_{special.get(value, str(value).replace('-', '_').replace('+', '_').upper())}"


def _adapter(text: str) -> tuple[str, float]:
    """``PATH`` or ``PATH:SCALE``."""
    path, _, scale = text.rpartition(":")
    try:
        return (path, float(scale)) if path else (text, 1.0)
    except ValueError:
        return text, 1.0


def _experts(value: str) -> JSON:
    """llama.cpp's tensor overrides that keep all experts, or those of the first N layers, in host memory."""
    if value == "all":
        return f"{_MOE}=CPU"
    return ",".join(rf"blk\.{layer}{_MOE}=CPU" for layer in range(int(value)))


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of one server; ``None`` leaves a choice to the engine.

    Raises CommandError for a value that no engine takes.
    """

    model: str = option(
        "smollm2-135m", "a known name or a .gguf file", group="model", flags=("--model",), attributes=("model.path",)
    )
    alias: str | None = option(
        None, "name under which clients ask for the model", "The model's id.",
        group="model", flags=("--alias",), attributes=("model_alias",), param=lambda v: [v],
    )  # fmt: skip
    mmproj: str | None = option(
        None, "projector file of a model that sees or hears",
        group="model", flags=("--mmproj",), attributes=("mmproj.path",),
    )  # fmt: skip
    mmproj_offload: bool = option(
        True, "keep the projector on the GPU", group="model", kind="switch", silent=(True,),
        flags=("--mmproj-offload",), off=("--no-mmproj-offload",), attributes=("mmproj_use_gpu",), everywhere=False,
    )  # fmt: skip
    lora: tuple[str, ...] = option(
        (), "adapters, each PATH or PATH:SCALE",
        group="model", kind="texts", flags=("--lora-scaled",), attributes=("lora_adapters",),
        value=lambda s: [f"{path}:{scale:g}" for path, scale in map(_adapter, s.lora)] or None,
        param=lambda v: [{"path": path, "scale": scale} for path, scale in map(_adapter, v)],
    )  # fmt: skip
    load_mode: LoadMode | None = option(
        None, "how weights are read", "The engine maps the file where the device allows it.",
        group="model", kind="choice", choices=get_args(LoadMode), flags=("--load-mode",), attributes=("load_mode",),
        param=_enum("LLAMA_LOAD_MODE", dio="DIRECT_IO"), everywhere=False,
    )  # fmt: skip
    warmup: bool = option(
        True, "a first empty run", "The first real token is then not the one that pages the weights in.",
        group="model", kind="switch", silent=(True,), flags=("--warmup",), off=("--no-warmup",), attributes=("warmup",),
    )  # fmt: skip
    ctx: int | None = option(
        None, "tokens of context per slot",
        "What the model was trained for, at most 8,192, less where that does not fit. (llama.cpp's is of all slots.)",
        group="context and memory", kind="int", low=256, high=1 << 24, flags=("--ctx-size",), attributes=("n_ctx",),
        value=lambda s: s.context,
    )  # fmt: skip
    slots: int = option(
        1, "requests answered at the same time",
        "A notebook asks one thing at a time, and each further slot costs the same KV cache again, also idle.",
        group="context and memory", kind="int", low=1, high=64, flags=("--parallel",), attributes=("n_parallel",),
    )  # fmt: skip
    kv_unified: bool = option(
        False, "one KV cache that all slots share",
        "Of a shared one a long conversation in one slot fails the requests of all others.",
        group="context and memory", kind="switch", silent=(), flags=("--kv-unified",), off=("--no-kv-unified",),
        attributes=("kv_unified",), everywhere=False,
    )  # fmt: skip
    cache_type_k: KVType = option(
        "f16", "type of the cache's keys", group="context and memory", kind="choice", choices=get_args(KVType),
        flags=("--cache-type-k",), attributes=("cache_type_k",), param=_ggml, everywhere=False,
    )  # fmt: skip
    cache_type_v: KVType | None = option(
        None, "type of its values", "As the keys: CUDA builds have fast kernels only for equal types.",
        group="context and memory", kind="choice", choices=get_args(KVType), flags=("--cache-type-v",),
        attributes=("cache_type_v",), value=lambda s: s.cache_type_v or s.cache_type_k, param=_ggml, everywhere=False,
    )  # fmt: skip
    flash_attention: Literal["on", "off", "auto"] = option(
        "auto", "attention without the large intermediate matrix", group="context and memory", kind="choice",
        choices=("on", "off", "auto"), flags=("--flash-attn",), attributes=("flash_attn_type",), everywhere=False,
        param=_enum("LLAMA_FLASH_ATTN_TYPE", on="ENABLED", off="DISABLED"),
    )  # fmt: skip
    batch: int | None = option(
        None, "prompt tokens handed over at once", "2,048 in llama.cpp.",
        group="context and memory", kind="int", low=1, high=1 << 16, flags=("--batch-size",), attributes=("n_batch",),
        value=lambda s: s.batch or (max(s.ubatch, 2048) if s.ubatch else None),
    )  # fmt: skip
    ubatch: int | None = option(
        None, "prompt tokens computed at once", "512 in llama.cpp; for embeddings the context: a text must fit whole.",
        group="context and memory", kind="int", low=1, high=1 << 16, flags=("--ubatch-size",), attributes=("n_ubatch",),
    )  # fmt: skip
    context_shift: bool = option(
        False, "forget the oldest tokens when the context is full", "An answer without its question is worth nothing.",
        group="context and memory", kind="switch", silent=(False,), flags=("--context-shift",),
        off=("--no-context-shift",), attributes=("ctx_shift",), everywhere=False,
    )  # fmt: skip
    swa_full: bool = option(
        False, "full KV cache for sliding-window layers", "Only needed to go back far in a long conversation.",
        group="context and memory", kind="switch", silent=(False,), flags=("--swa-full",), attributes=("swa_full",),
        everywhere=False,
    )  # fmt: skip
    cache_ram_mib: int = option(
        1024, "host memory for the caches of earlier prompts, MiB",
        "llama.cpp's 8,192 are two thirds of a Colab machine.",
        group="context and memory", kind="int", high=1 << 20, flags=("--cache-ram",), attributes=("cache_ram_mib",),
        everywhere=False,
    )  # fmt: skip
    cache_reuse: int | None = option(
        None, "shortest piece of an earlier prompt to reuse by shifting, tokens", "0 in llama.cpp: never.",
        group="context and memory", kind="int", high=1 << 20, flags=("--cache-reuse",), attributes=("n_cache_reuse",),
        everywhere=False,
    )  # fmt: skip
    slot_save_path: str | None = option(
        None, "folder for saved slots", "One in the runtime folder, which goes with the kernel.",
        group="context and memory", flags=("--slot-save-path",), attributes=("slot_save_path",),
    )  # fmt: skip
    gpu_layers: int | None = option(
        None, "layers on the GPU", "All that fit: llama.cpp measures the free memory before it loads.",
        group="GPU", kind="int", high=10_000, flags=("--n-gpu-layers", "--gpu-layers"), attributes=("n_gpu_layers",),
    )  # fmt: skip
    devices: tuple[str, ...] = option(
        (), "devices to use, by the engine's names (CUDA0,CUDA1)", "All that the engine sees.",
        group="GPU", kind="texts", flags=("--device",), everywhere=False,
    )  # fmt: skip
    split_mode: SplitMode | None = option(
        None, "how a model is spread over several GPUs", "By layers: needs no fast link between them.",
        group="GPU", kind="choice", choices=get_args(SplitMode), flags=("--split-mode",), attributes=("split_mode",),
        param=_enum("LLAMA_SPLIT_MODE"),
    )  # fmt: skip
    tensor_split: tuple[float, ...] = option(
        (), "part of the model on each GPU", "By free memory.",
        group="GPU", kind="numbers", high=1 << 20, flags=("--tensor-split",), attributes=("tensor_split",),
        param=lambda v: [*map(float, v), *[0.0] * (128 - len(v))],  # llama.cpp's array has 128 places
    )  # fmt: skip
    main_gpu: int | None = option(
        None, "the GPU of split modes none and row", group="GPU", kind="int", high=127, flags=("--main-gpu",),
        attributes=("main_gpu",),
    )  # fmt: skip
    cpu_moe: str | None = option(
        None, "experts that stay in host memory: of the first N layers, or all",
        group="GPU", flags=("--n-cpu-moe",), attributes=("tensor_buft_overrides",), param=_experts, everywhere=False,
    )  # fmt: skip
    kv_offload: bool = option(
        True, "keep the KV cache on the GPU", group="GPU", kind="switch", silent=(True,), flags=("--kv-offload",),
        off=("--no-kv-offload",), attributes=("no_kv_offload",), param=lambda v: not v, everywhere=False,
    )  # fmt: skip
    fit: bool = option(
        True, "measure first, and split a model that is too large for the GPU",
        "Off, the same model fails to load.",
        group="GPU", kind="switch", silent=(), flags=("--fit",), attributes=("fit_params",),
        value=lambda s: "on" if s.fit else "off", param=lambda v: v == "on", everywhere=False,
    )  # fmt: skip
    fit_margin_mib: int | None = option(
        None, "memory of each GPU that stays free, MiB",
        "1,024 in llama.cpp; 512 is enough on a GPU that nobody else uses.",
        group="GPU", kind="int", high=1 << 20, flags=("--fit-target",), attributes=("fit_params_target",),
        param=lambda v: [v << 20] * 128, everywhere=False,
    )  # fmt: skip
    rpc: str | None = option(
        None, "workers of llama.cpp's RPC backend, HOST:PORT,…", "Unauthenticated: private networks only.",
        group="GPU", flags=("--rpc",), everywhere=False,
    )  # fmt: skip
    chat_template: str | None = option(
        None, "a built-in template's name, a file, or Jinja text", "The model's own.",
        group="chat", flags=("--chat-template",), attributes=("chat_template",),
    )  # fmt: skip
    reasoning: Literal["on", "off", "auto"] | None = option(
        None, "whether a model that can think does", group="chat", kind="choice", choices=("on", "off", "auto"),
        flags=("--reasoning",), attributes=("enable_reasoning",), param={"on": 1, "off": 0, "auto": -1}.__getitem__,
        everywhere=False,
    )  # fmt: skip
    reasoning_format: Literal["auto", "none", "deepseek", "deepseek-legacy"] | None = option(
        None, "where thoughts are in an answer", "Apart from the text.",
        group="chat", kind="choice", choices=("auto", "none", "deepseek", "deepseek-legacy"),
        flags=("--reasoning-format",), attributes=("reasoning_format",), param=_enum("COMMON_REASONING_FORMAT"),
        everywhere=False,
    )  # fmt: skip
    reasoning_budget: int | None = option(
        None, "tokens that thinking may take; -1 without limit", group="chat", kind="int", low=-1, high=1 << 24,
        flags=("--reasoning-budget",), attributes=("sampling.reasoning_budget_tokens",), everywhere=False,
    )  # fmt: skip
    seed: int | None = option(
        None, "of requests that bring none", "A random one.", group="chat", kind="int", high=(1 << 32) - 2,
        flags=("--seed",), attributes=("sampling.seed",),
    )  # fmt: skip
    embeddings: bool = option(
        False, "answer /v1/embeddings",
        group="other tasks", kind="switch", silent=(False,), flags=("--embeddings", "--embedding"),
        attributes=("embedding",), value=lambda s: s.embeddings or s.reranking,
    )  # fmt: skip
    pooling: Pooling | None = option(
        None, "how token vectors become one", "The model's own, mean where it names none.",
        group="other tasks", kind="choice", choices=get_args(Pooling), flags=("--pooling",),
        attributes=("pooling_type",), param=_enum("LLAMA_POOLING_TYPE"),
        value=lambda s: "rank" if s.reranking else s.pooling,
    )  # fmt: skip
    reranking: bool = option(
        False, "answer /v1/rerank: order documents by a query", group="other tasks", kind="switch", silent=(False,),
        flags=("--reranking", "--rerank"), attributes=("embedding",),
    )  # fmt: skip
    spec_type: Speculation | None = option(
        None, "how tokens are guessed ahead", "ngram types need no memory and no second model.",
        group="speculation", kind="choice", choices=get_args(Speculation), flags=("--spec-type",),
        attributes=("speculative.types",), everywhere=False,
        value=lambda s: s.spec_type or ("draft-simple" if s.draft_model else None),
        param=lambda v: [_enum("COMMON_SPECULATIVE_TYPE")(v)],
    )  # fmt: skip
    draft_model: str | None = option(
        None, "a small model of the same vocabulary that guesses", group="speculation",
        flags=("--spec-draft-model", "--model-draft"), attributes=("speculative.draft.mparams.path",),
    )  # fmt: skip
    draft_max: int | None = option(
        None, "tokens guessed at once", "3 in llama.cpp.", group="speculation", kind="int", low=1, high=1024,
        flags=("--spec-draft-n-max", "--draft-max"), attributes=("speculative.draft.n_max",), everywhere=False,
    )  # fmt: skip
    host: str = option(
        "127.0.0.1", "address to listen on", "This machine only: a notebook's server is nobody else's.",
        flags=("--host",), attributes=("hostnames",), param=lambda v: [v],
    )  # fmt: skip
    port: int = option(
        0, "port to listen on", "A free one: a fixed port is a thing to collide on and to be guessed by others.",
        kind="int", high=65535, flags=("--port",), attributes=("port",),
    )  # fmt: skip
    threads: int | None = option(
        None, "CPU threads", "As many as there are cores.", kind="int", low=1, high=1024, flags=("--threads",),
        attributes=("cpuparams.n_threads",),
    )  # fmt: skip
    threads_batch: int | None = option(
        None, "CPU threads while a prompt is read", "As threads.", kind="int", low=1, high=1024,
        flags=("--threads-batch",), attributes=("cpuparams_batch.n_threads",),
        value=lambda s: s.threads_batch or s.threads,
    )  # fmt: skip
    sleep_idle_seconds: int | None = option(
        None, "give the memory back after so long without a request", "Never.", kind="int", low=1, high=1 << 24,
        flags=("--sleep-idle-seconds",), attributes=("sleep_idle_seconds",), everywhere=False,
    )  # fmt: skip
    verbosity: int = option(
        4, "of the log", "Below 4 it holds no line about buffers, and memory could not be told apart by owner.",
        kind="int", low=4, high=5, flags=("--verbosity", "--log-verbosity", "-lv"), attributes=("verbosity",),
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name, one in options(type(self)).items():
            one.check(name, getattr(self, name))
        help_ = "%llama start --help"
        if not self.model:
            raise CommandError("no model was named", hint="%llama start smollm2-135m")
        if self.cpu_moe is not None and self.cpu_moe != "all" and not (self.cpu_moe.isdigit() and int(self.cpu_moe)):
            raise CommandError(f"--cpu-moe is 'all' or a number of layers, not {self.cpu_moe!r}", hint=help_)
        values = self.cache_type_v or self.cache_type_k
        if values.startswith(("q", "iq")) and self.flash_attention == "off":
            raise CommandError(f"a {values} KV cache needs flash attention", hint="leave --flash-attention at auto")
        if self.host not in ("127.0.0.1", "localhost", "::1"):
            raise CommandError(f"the server listens on this machine only, not on {self.host}", hint="leave --host out")
        if self.reranking and self.pooling not in (None, "rank"):
            raise CommandError("reranking needs pooling rank", hint="leave --pooling out")
        if self.pooling is not None and not (self.embeddings or self.reranking):
            raise CommandError("--pooling is for a server of embeddings", hint="%llama start --embeddings")
        if self.spec_type and self.spec_type in ("draft-simple", "draft-eagle3") and not self.draft_model:
            raise CommandError(f"{self.spec_type} needs a second model", hint="%llama start --draft-model PATH.gguf")

    @property
    def context(self) -> int:
        """Tokens of context that the engine is asked for: all slots together."""
        return (self.ctx or DEFAULT_CONTEXT) * self.slots

    def resolved(self, model: ModelRef, header: GGUFHeader) -> ServerSettings:
        """These settings on a file: its path, and a default context that is not beyond the model's.

        Raises CommandError when a file that they name is not there.
        """
        ctx = self.ctx or min(DEFAULT_CONTEXT, header.context_length or DEFAULT_CONTEXT)
        changed: dict[str, Any] = {"model": model.path, "alias": self.alias or model.id, "ctx": ctx}
        for name in ("mmproj", "draft_model"):
            if (path := getattr(self, name)) is not None:
                changed[name] = _file(name, path)
        if self.lora:
            changed["lora"] = tuple(f"{_file('lora', path)}:{scale:g}" for path, scale in map(_adapter, self.lora))
        if self.chat_template and Path(path := os.path.expanduser(self.chat_template)).is_file():
            with open(path, encoding="utf-8") as file:
                changed["chat_template"] = file.read()
        if self.embeddings or self.reranking:
            changed["ubatch"] = self.ubatch or min(ctx, 2048)
            # With caches of their own llama.cpp (b11549) pools texts of several slots wrongly, without an error.
            changed["kv_unified"] = self.kv_unified or self.slots > 1
            if self.pooling is None and not self.reranking and header.metadata.get(_pooling_key(header)) is None:
                changed["pooling"] = "mean"
        return replace(self, **changed)

    def hash(self) -> str:
        """16 hex digits that are equal for equal settings."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> ServerSettings:
        """Settings from :func:`dataclasses.asdict`'s form after a trip through JSON; unknown names are left out."""
        known = {f.name for f in fields(cls)}
        made: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known}
        return cls(**made)

    @classmethod
    def flags(cls) -> frozenset[str]:
        """Every flag of a setting that the wheel has, too: :meth:`to_argv` renders those for what runs in the wheel."""
        known = (*options(cls).values(), *(one for one, _ in _ALWAYS))
        return frozenset(flag for one in known if one.attributes for flag in (*one.flags, *one.off))

    def to_argv(self, features: frozenset[str]) -> list[str]:
        """Arguments for a ``llama-server`` whose ``--help`` lists ``features``.

        Raises EngineError when a setting that was asked for has no flag in this build.
        """
        argv: list[str] = []
        default = ServerSettings()
        for name, one in options(type(self)).items():
            value = _rendered(self, name, one)
            if value is not None:
                asked = value != _rendered(default, name, one)
                if name == "cpu_moe" and value == "all":
                    argv += ["--cpu-moe"]
                else:
                    argv += one.argv(value, features, asked=asked)
        for one, value in _ALWAYS:
            argv += one.argv(value, features, asked=False)
        return argv

    def to_params(self) -> dict[str, JSON]:
        """Attributes of ``xllamacpp.CommonParams`` by dotted name; raises EngineError for a setting that it lacks."""
        params: dict[str, JSON] = {}
        rows = [(name, one, _rendered(self, name, one)) for name, one in options(type(self)).items()]
        for name, one, value in (*rows, *(("", one, value) for one, value in _ALWAYS)):
            if value is None:
                continue
            if name and not one.attributes:
                raise EngineError(f"xllamacpp has no {spelled(name)}", hint="%llama start --engine PATH")
            params |= {attribute: one.param(value) for attribute in one.attributes}
        if self.reasoning in ("on", "off"):  # llama-server's --reasoning sets both
            params["default_template_kwargs"] = {"enable_thinking": "true" if self.reasoning == "on" else "false"}
        return params


def _rendered(settings: ServerSettings, name: str, one: Option) -> Any:
    value = one.value(settings) if one.value is not None else getattr(settings, name)
    return None if value in one.silent else value


def _file(name: str, path: str) -> str:
    full = os.path.abspath(os.path.expanduser(path))
    if not Path(full).is_file():
        raise CommandError(f"{spelled(name)}: there is no file {path}", hint=f"!ls -l {path}")
    return full


def _pooling_key(header: GGUFHeader) -> str:
    return f"{header.architecture}.pooling_type"


#: What every server gets, and nobody is asked.
_ALWAYS: tuple[tuple[Option, Any], ...] = (
    # What the sampler reads.
    (Option("", flags=("--metrics",), attributes=("endpoint_metrics",)), True),
    (Option("", flags=("--slots",), attributes=("endpoint_slots",), everywhere=False), True),
    # JSON lines can't be forged by model text; the wheel has the attribute but does not act on it (2026.10).
    (Option("", flags=("--log-jsonl",), everywhere=False), True),
    (Option("", flags=("--log-colors",), attributes=("use_color",), param=lambda _: False, everywhere=False), "off"),
    # We fetch models ourselves, checked; the engine itself must not go to the network.
    (Option("", flags=("--offline",), attributes=("offline",), everywhere=False), True),
    # Nobody can use the web page without the key, which is random.
    (Option("", off=("--no-ui", "--no-webui"), attributes=("ui",), everywhere=False), False),
)
