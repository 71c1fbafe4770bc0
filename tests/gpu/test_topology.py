"""Links between GPUs and what one is doing, from replayed traces."""

from __future__ import annotations

import pytest
from gpu.replay import Replay

from llamatelemetry_jupyter.gpu import card, topology
from llamatelemetry_jupyter.gpu.nvml import Nvml


def two(**answers):
    """Two T4 at 9 s, while a model answers; ``answers`` override the trace's."""
    replay = Replay("t4x2", at=9.0)
    for key, value in answers.items():
        replay.answer(key, value)
    return Nvml(replay)


@pytest.mark.floor
def test_two_t4_meet_at_a_host_bridge_without_peer_access():
    nvml = two()
    (pair,) = topology.pairs(nvml, nvml.gpus[0], nvml.gpus)
    assert (pair.first, pair.second) == tuple(gpu.device for gpu in nvml.gpus)
    assert (pair.short, pair.way) == ("PHB", "over a PCIe host bridge")
    assert pair.peer == "no peer access: copies go through the host"


def nvlinked(far="0000:00:05.0", links=4):
    answers = {"nvmlDeviceGetTopologyCommonAncestor(gpu0, gpu1)": 50}
    answers |= {f"nvmlDeviceGetP2PStatus(gpu0, gpu1, {index})": 0 for index in range(3)}
    answers |= {f"nvmlDeviceGetNvLinkState(gpu0, {link})": int(link < links) for link in range(6)}
    for link in range(links):
        answers[f"nvmlDeviceGetNvLinkRemotePciInfo(gpu0, {link})"] = {
            "busId": f"0000{far}" if link else {"bytes": f"0000{far}"}
        }
    return answers


def test_nvlinks_are_counted_by_their_other_end():
    nvml = two(**nvlinked())
    (pair,) = topology.pairs(nvml, nvml.gpus[0], nvml.gpus)
    assert (pair.short, pair.way, pair.peer) == ("NV4", "over 4 NVLinks", "peer access")


def test_links_that_end_at_a_switch_reach_every_gpu_behind_it():
    nvml = two(**nvlinked(far="0000:7f:00.0", links=6))
    (pair,) = topology.pairs(nvml, nvml.gpus[0], nvml.gpus)
    assert pair.short == "NV6"


def test_one_pair_that_is_not_supported_says_nothing_about_another_question():
    nvml = two(**{"nvmlDeviceGetP2PStatus(gpu0, gpu1, 0)": {"error": "NotSupported"}})
    (pair,) = topology.pairs(nvml, nvml.gpus[0], nvml.gpus)
    assert (pair.read, pair.write, pair.peer) == (None, False, "peer access n/a")
    assert pair.short == "PHB"


def test_pcie_now_and_at_most():
    nvml = two()
    busy = topology.pcie(nvml, nvml.gpus[1])
    assert str(busy) == "3 ×16 now, 3 ×16 at most"
    assert busy.gb_s == pytest.approx(15.76)
    riser = topology.Pcie(1, 4, 3, 16)
    assert (str(riser), riser.gb_s) == ("1 ×4 now, 3 ×16 at most", pytest.approx(3.94))
    assert (str(topology.Pcie(None, None, None, None)), topology.Pcie(None, None, 9, None).gb_s) == ("n/a", None)


def test_instances_of_one_gpu_have_no_links():
    nvml = Nvml(Replay("mig", at=1.0))
    assert topology.pairs(nvml, nvml.gpus[0], nvml.gpus) == ()


def test_a_card_that_works_is_not_slowed_and_says_what_it_draws():
    nvml = two()
    found = card.state(nvml, nvml.gpus[0])
    assert (found.info.name, found.reading.util, found.power_limit_w) == ("Tesla T4", 0.58, 70.0)
    assert (found.clock_mhz, found.memory_clock_mhz) == ((1590, 1590), (5000, 5001))
    assert (found.slowed, found.idle) == ((), False)
    assert len(found.pairs) == 1


@pytest.mark.parametrize("name", ["EventReasons", "ThrottleReasons"])
def test_why_a_card_is_slowed_by_either_name_of_the_function(name):
    answers = {"nvmlDeviceGetCurrentClocksEventReasons(gpu0)": {"error": "FunctionNotFound"}}
    nvml = two(**answers | {f"nvmlDeviceGetCurrentClocks{name}(gpu0)": 0x4 | 0x20})
    assert card.state(nvml, nvml.gpus[0]).slowed == ("power limit", "temperature (driver)")


def test_a_card_that_tells_nothing_is_na_everywhere():
    nvml = Nvml(Replay("lost", at=12.0))
    lost = card.state(nvml, nvml.gpus[1])
    assert (lost.info, lost.reading.used_bytes, lost.slowed, lost.idle, lost.power_limit_w) == (None,) * 5
    assert lost.clock_mhz == (None, None)
    assert str(lost.pcie) == "n/a"
