"""%llama start, restart, stop, status, logs and attach, as they are typed."""

from __future__ import annotations

import otherservers
import pytest
from otherservers import serving

from llamatelemetry_jupyter.magics.complete import complete
from llamatelemetry_jupyter.magics.router import parser
from llamatelemetry_jupyter.magics.settings import given
from llamatelemetry_jupyter.server.options import options
from llamatelemetry_jupyter.server.settings import ServerSettings

LOAD = "%load_ext llamatelemetry"


@pytest.mark.floor
def test_every_setting_is_an_option_of_start_and_restart():
    described = options(ServerSettings)
    for command in ("start", "restart"):
        known = set(parser(command).options())
        assert {f"--{name.replace('_', '-')}" for name in described if name != "model"} <= known
        told = " ".join(parser(command).format_help().split())
        assert [name for name, one in described.items() if name != "model" and one.about not in told] == []
    args = parser("start").parse_args(
        "m.gguf --ctx 512 --no-warmup --kv-unified --tensor-split 1,2.5 --lora a,b:0.5 --split-mode row".split()
    )
    assert given(args) == {
        "ctx": 512, "warmup": False, "kv_unified": True, "tensor_split": (1.0, 2.5), "lora": ("a", "b:0.5"), "split_mode": "row",
    }  # fmt: skip
    assert given(parser("restart").parse_args([])) == {}


@pytest.mark.parametrize(
    ("line", "symbol", "wanted"),
    [
        ("%llama st", "st", {"start", "stop", "status"}),
        ("%llama start --split", "--split", {"--split-mode"}),
        ("%llama start --split-mode ", "", {"layer", "none", "row", "tensor"}),
        ("%llama restart --cache-type-k q8", "q8", {"q8_0"}),
        ("%llama start smollm2-135", "smollm2-135", {"smollm2-135m"}),
        ("%llama stop --or", "--or", {"--orphans"}),
        ("%llama attach --api", "--api", {"--api-key"}),
        ("%llama start --ctx ", "", set()),
        ("%llama status --name ", "", set()),
    ],
)
def test_tab_knows_commands_options_and_choices(line, symbol, wanted):
    assert set(complete(None, line, symbol)) == wanted


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%llama restart", ["no server was started in this kernel", "try: %llama start"]),
        ("%llama start --split-mode diagonal", ["invalid choice: 'diagonal'", "try: %llama start --help"]),
        ("%llama start --tensor-split a,b", ["invalid numbers X,Y value: 'a,b'"]),
        ("%llama start --cache-type q8_0", ["unknown option --cache-type", "did you mean --cache-type-"]),
        ("%llama start --pooling mean", ["--pooling is for a server of embeddings", "--embeddings"]),
        ("%llama start --mmproj /no/such.gguf", ["--mmproj: there is no file /no/such.gguf"]),
        ("%llama start --name ../x", ["letters, digits"]),
        ("%llama start --devices CUDA0 --engine xllamacpp", ["xllamacpp has no --devices", "--engine PATH"]),
        ("%llama attach", ["no server was kept", "try: %llama attach http"]),
        ("%llama attach 127.0.0.1:9", ["nothing answers at http://127.0.0.1:9", "try: %llama attach"]),
        ("%llama attach ftp://x", ["is not the address of a server"]),
        ("%llama logs --name other", ["there is no log"]),
        ("%llama chat --server other hi", ["server 'other' is not running", "try: %llama start --name other"]),
    ],
)
def test_bad_input_is_two_lines_and_the_run_stops(refused, cell, says):
    refused(cell, says)


@pytest.mark.engine
def test_servers_from_start_to_stop(ipython):
    printed = ipython(
        LOAD,
        "%llama start --ctx 512 --no-warmup",
        "%llama start",
        "%llama start smollm2-135m --ctx 1024 --no-warmup",
        "%llama restart --slots 2",
        "%llama start --name b --ctx 512 --no-warmup",
        "%llama chat --server b -n 2 hi",
        "table = %llama status\nprint('STATUS', table)",
        "%llama logs --name b -n 1",
        "%llama stop",
        "%llama stop",
        "%llama stop --all",
        "%llama stop --orphans",
        "%llama start --ctx 512 --no-warmup --keep",
        "%llama stop",
        "%unload_ext llamatelemetry",
    )
    assert "STOPPED" not in printed, printed
    assert "already running: smollm2-135m" in printed
    assert "restarted: smollm2-135m · xllamacpp" in printed
    assert "2 slots with 1,024 tokens each" in printed
    assert "server b" in printed.split("STATUS")[1]
    assert "no server of that name was running; running: b" in printed
    assert "no server without a kernel was running" in printed
    assert "it goes on when this kernel ends" in printed


def test_an_attached_server_says_what_it_does_not_provide(ipython):
    with serving(otherservers.Router(), server="llama.cpp") as router, serving(otherservers.ray, key="s3cret") as ray:
        printed = ipython(
            LOAD,
            f"%llama attach {router}",
            "table = %llama status\nprint('STATUS', table)",
            "import os; os.environ['MY_KEY'] = 's3cret'",
            f"%llama attach {ray}/v1 --api-key MY_KEY --name ray",
            "%llama stop --name ray",
            "%llama stop",
        )
        assert "STOPPED" not in printed, printed
        failing = ipython(
            LOAD,
            f"%llama attach {ray}",
            f"%llama attach {router}",
            "%llama logs",
            "%llama start --ctx 512",
            "%llama restart",
        )
    assert "broken: unloaded" in printed
    assert "not provided by this backend (router)" in printed.split("STATUS")[1]
    assert "qwen · Ray Serve" in printed
    assert "let go qwen" in printed
    assert "s3cret" not in printed
    assert f"{ray} wants an API key" in failing
    assert "the log of" in failing
    assert "is attached" in failing
