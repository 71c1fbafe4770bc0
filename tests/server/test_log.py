"""An engine's log, as recorded from real engines, and what its end means."""

from __future__ import annotations

import json
import sys

import pytest
from gpu.replay import Replay

from llamatelemetry_jupyter.server.failures import cpu_fallback, explain
from llamatelemetry_jupyter.server.log import Parser, Tail, device_of, last_lines
from llamatelemetry_jupyter.values import EngineBuffer

LINES = [
    "0.00.014.573 I srv    load_model: loading model '/models/x.gguf'",
    "0.00.591.245 I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)",
    "0.00.605.090 I load_tensors:   CPU_Mapped model buffer size =    92.10 MiB",
    "0.00.606.276 I llama_context:        CPU  output buffer size =     0.38 MiB",
    "0.00.606.364 I llama_kv_cache:      CUDA0 KV buffer size =    45.00 MiB",
    "            I sched_reserve:        CPU compute buffer size =    15.64 MiB",
    "0.00.701.000 I sched_reserve:        CPU compute buffer size =    16.00 MiB",
    "0.03.818.056 I srv  llama_server: model loaded",
    "0.03.818.094 I srv  llama_server: listening on http://127.0.0.1:18431",
]
REQUEST = [
    "0.01.138.197 I slot launch_slot_: id  1 | task 0 | processing task, is_child = 0",
    (
        "0.01.392.837 I slot print_timing: id  1 | task 0 | prompt eval time =     209.91 ms /    37 tokens"
        " (    5.67 ms per token,   176.27 tokens per second)"
    ),
    (
        "0.01.392.870 I slot print_timing: id  1 | task 0 |        eval time =      44.67 ms /     5 tokens"
        " (   11.17 ms per token,    89.54 tokens per second)"
    ),
    "0.01.392.933 I slot print_timing: id  1 | task 0 |       total time =     254.58 ms /    42 tokens",
    "0.01.392.992 I slot      release: id  1 | task 0 | stop processing: n_tokens = 41, truncated = 0",
]


def as_json(line):
    return json.dumps({"type": "log", "time": 1, "level": "info", "msg": line.split(" I ", 1)[1] + "\n"})


def parsed(lines):
    parser = Parser("x")
    return parser, [event for line in lines for event in parser.feed(line)]


@pytest.mark.parametrize("form", ["text", "json lines"])
def test_buffers_stages_and_address_are_read_from_both_forms(form):
    parser, events = parsed(LINES if form == "text" else map(as_json, LINES))
    assert [e.data["fraction"] for e in events if e.kind == "load_stage"] == [0.1, 0.3, 0.7]
    assert parser.urls == ["http://127.0.0.1:18431"]
    assert [(b.device, b.owner, round(b.bytes / 2**20, 2)) for b in parser.buffers] == [
        ("CPU", "weights", 92.1), ("CPU", "output", 0.38), ("CUDA0", "kv", 45.0), ("CPU", "compute", 16.0),
    ]  # fmt: skip


def test_parts_of_one_cache_add_up_but_a_compute_buffer_is_announced_again():
    parser, _ = parsed(
        [
            "0.00.606.364 I llama_kv_cache:      CUDA0 KV buffer size =    45.00 MiB",
            "0.00.606.365 I llama_kv_cache:      CUDA0 KV buffer size =     5.00 MiB",  # sliding-window layers
            "0.00.606.366 I load_tensors:    CUDA_Host model buffer size =    10.00 MiB",
        ]
    )
    assert [(b.device, b.owner, b.bytes >> 20) for b in parser.buffers] == [("CUDA0", "kv", 50), ("CPU", "weights", 10)]


@pytest.mark.parametrize(
    ("buffer", "device"),
    [("CPU_Mapped", "CPU"), ("CUDA_Host", "CPU"), ("CUDA1_Split", "CUDA1"), ("CUDA0", "CUDA0"), ("CPU_REPACK", "CPU")],
)
def test_a_buffers_name_says_on_which_device_it_is(buffer, device):
    assert device_of(buffer) == device


@pytest.mark.parametrize("form", ["text", "json lines"])
def test_requests_of_any_client_are_seen_with_their_times(form):
    _, events = parsed(REQUEST if form == "text" else map(as_json, REQUEST))
    (event,) = events
    assert event.kind == "request"
    assert (event.data["slot"], event.data["task"], event.data["kv_tokens"]) == (1, 0, 41)
    assert (event.data["prefill_tokens"], event.data["decode_tokens"]) == (37, 5)
    assert event.data["decode_s"] == pytest.approx(0.04467)


def test_text_of_the_model_is_not_taken_for_the_engines_word():
    parser, events = parsed(
        [
            "0.00.576.797 I srv          init: init: chat template, example_format: '<|im_start|>system",
            "listening on http://evil.example:80",  # a line that the logger did not begin
            "0.00.000.001 I load_tensors:   CUDA0 model buffer size =    99.00 MiB",
        ]
    )
    assert parser.urls == []
    assert parser.buffers == ()
    _, events = parsed([json.dumps({"type": "fit_memory_breakdown", "data": {}}), "{not json", "plain text", ""])
    assert events == []


# The host's row was seen; a GPU's is from llama.cpp's source and documentation.
FIT = [
    "0.00.481.138 I common_memory_breakdown_print: | memory breakdown [MiB] | total   free    self   model   context   compute    unaccounted |",
    "0.00.481.174 I common_memory_breakdown_print: |   - Host               |                  152 =    92 +      45 +      15                |",
    "0.00.481.175 I common_memory_breakdown_print: |   - CUDA0 (RTX 4090)   | 24077 = 945 + (19187 = 17904 + 384 + 898) + 3945 |",
]
FIT_JSON = [
    (
        '{"type":"fit_memory_breakdown","data":{"unit":"MiB","rows":[{"kind":"host","name":"Host","self":152,"model":92,"context":45,"compute":15},'
        '{"kind":"device","name":"CUDA0","description":"RTX 4090","total":24077,"free":945,"self":19187,"model":17904,"context":384,"compute":898,"unaccounted":3945}]}}'
    )
]


@pytest.mark.parametrize("lines", [FIT * 2, FIT_JSON * 2], ids=["text", "json"])
def test_what_the_engine_measured_before_it_loaded_is_told_by_device(lines):
    parser, events = parsed(lines)
    assert [(e.kind, e.data["device"]) for e in events] == [("fit", "Host"), ("fit", "CUDA0")]
    mib = {name: {k: v and v >> 20 for k, v in row.items()} for name, row in parser.fit.items()}
    keys = ("total_bytes", "free_bytes", "model_bytes", "context_bytes", "compute_bytes")
    assert mib["CUDA0"] == dict(zip(keys, (24077, 945, 17904, 384, 898), strict=True))
    assert mib["Host"] == dict(zip(keys, (None, None, 92, 45, 15), strict=True))
    assert "no layer fitted" not in str(cpu_fallback(None, (), [], parser.fit))
    for broken in ("[]", '{"rows": [{}]}', '{"rows": 5}', "null"):
        _, events = parsed(['{"type":"fit_memory_breakdown","data":' + broken + "}"])
        assert events == []


def test_sleep_and_waking_up_are_events():
    _, events = parsed([f"0.02.000.000 I que start_loop: {what} sleeping state" for what in ("entering", "exiting")])
    assert [e.kind for e in events] == ["sleep", "wake"]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (
            ("0.00.497.059 W common_fit_params: failed to fit params to free device memory: was unable to fit model into"
            " system memory by reducing context, abort"),
            "does not fit into free memory (was unable to fit",
        ),
        ("0.00.001.000 E ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected", "no CUDA-capable"),
        ("0.00.001.000 W llama_context: compute buffer allocation failed, retrying without pipeline parallelism", "memory was"),
    ],
)  # fmt: skip
def test_what_the_engine_goes_on_after_is_told_once(line, cause):
    parser, events = parsed([line, line])
    assert [e.kind for e in events] == ["warning", "warning"]
    ((said, remedy),) = parser.warnings
    assert cause in said
    assert remedy
    parser.loading = False
    assert list(parser.feed(line)) == []


BUFFERS = (EngineBuffer("CPU", "weights", 1), EngineBuffer("CPU", "kv", 1))


def test_a_model_on_the_cpu_beside_gpus_is_noticed(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", Replay("t4x2", at=0.0))
    monkeypatch.setattr("ctypes.CDLL", lambda name: None)
    found = cpu_fallback(None, BUFFERS, ["nothing"])
    assert found.cause.startswith("2 GPUs (")
    assert "no GPU backend" in found.cause
    assert found.remedy == "%llama install --engine cuda"
    assert "no layer fitted" in cpu_fallback(None, BUFFERS, ["ggml_cuda_init: found 2 CUDA devices"]).cause
    assert cpu_fallback(0, BUFFERS, []) is None  # it was asked for
    assert cpu_fallback(None, (*BUFFERS, EngineBuffer("CUDA1", "kv", 1)), []) is None
    assert cpu_fallback(None, (), []) is None  # nothing is known
    monkeypatch.setitem(sys.modules, "pynvml", Replay("none", at=0.0))
    assert cpu_fallback(None, BUFFERS, []) is None
    ignored = ["warning: no usable GPU found, --gpu-layers option will be ignored"]
    assert cpu_fallback(None, BUFFERS, ignored) is None
    assert cpu_fallback(5, BUFFERS, ignored).cause == "no GPU can be used: the model runs on the CPU"


def test_a_growing_file_is_read_in_whole_lines(tmp_path):
    path = tmp_path / "log"
    path.write_text("")
    tail = Tail(path)
    seen = []
    for line in LINES:
        for part in (line[:20], line[20:] + "\n"):
            with path.open("a") as file:
                file.write(part)
            seen += tail.read()
    assert seen == LINES
    assert last_lines(path, 1) == [LINES[-1]]
    path.write_text("\n".join(map(as_json, LINES)))
    assert last_lines(path, 1) == ["I srv  llama_server: listening on http://127.0.0.1:18431"]


@pytest.mark.parametrize(
    ("line", "returncode", "cause"),
    [
        ("gguf_init_from_file: failed to open GGUF file '/nope.gguf' (No such file or directory)", 1, "/nope.gguf"),
        ("gguf_init_from_reader: invalid magic characters: 'NOTG', expected 'GGUF'", 1, "not a GGUF model"),
        ("error loading model: tensor 'x' data is not within the file bounds, model is corrupted", 1, "truncated"),
        ("error loading model: unknown model architecture: 'zzzzz'", 1, "architecture zzzzz"),
        ("srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 81", 1, "port is taken: 81"),
        ("error: invalid argument: --frobnicate", 1, "does not know --frobnicate"),
        ('error while handling argument "-dev": invalid device: CUDA0', 1, "refused -dev: invalid device: CUDA0"),
        ("allocating 900.00 MiB on device 0: cudaMalloc failed: out of memory", 1, "GPU's memory"),
        ("ggml_aligned_malloc: insufficient memory (attempted to allocate 2197265.62 MB)", 1, "2197265.62 MB"),
        ("CUDA error: an illegal memory access was encountered", -6, "illegal memory access"),
        ("embedded: ValueError: this xllamacpp has no setting 'n_new'", 1, "too old"),
        ("embedded: ModuleNotFoundError: No module named 'xllamacpp'", 1, "xllamacpp"),
        (
            "embedded: common_init_result: failed to load lora adapter '/a.gguf'",
            1,
            "the adapter /a.gguf does not belong",
        ),
        ("srv load_model: failed to load multimodal model, '/p.gguf'", 1, "the projector /p.gguf does not belong"),
        ("srv load_model: failed to load draft model, '/d.gguf'", 1, "draft model does not fit"),
        ('error while handling argument "--slot-save-path": not a directory: /x', 1, "there is no folder /x"),
        ("common_chat_verify_template: failed to apply template: std::exception", 1, "chat template cannot be used"),
        ("RPC not supported in this build", 1, "without the RPC backend"),
        ("ggml_backend_cuda: no kernel image is available for execution on the device", -6, "not built for this GPU"),
        ("llama_init_from_model: quantized V cache requires flash_attn to be enabled", 1, "needs flash attention"),
        ("llama_init: failed to allocate buffer for kv cache", 1, "memory is not enough"),
        (
            "error while loading shared libraries: libcudart.so.12: cannot open",
            127,
            "lacks the library libcudart.so.12",
        ),
        ("all is well", -9, "killed"),
        ("all is well", -11, "segmentation fault"),
        ("all is well", -7, "shrank"),
        ("all is well", -6, "aborted"),
        ("all is well", -4, "instructions"),
        ("something odd failed: {0}", 3, "code 3: something odd failed: {0}"),
    ],
)
def test_every_end_has_a_cause_and_a_remedy(line, returncode, cause):
    failure = explain(returncode, ["first", line, "exiting"])
    assert cause in failure.cause
    assert failure.remedy


def test_the_part_that_failed_is_named_before_its_file():
    lines = [
        "gguf_init_from_reader: invalid magic characters: '?ELF', expected 'GGUF'",
        "failed to load lora adapter '/a'",
    ]
    assert "the adapter /a" in explain(1, lines).cause
