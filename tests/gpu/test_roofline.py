"""The limits of known cards and models, by arithmetic that can be checked on paper."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamatelemetry_jupyter import cards
from llamatelemetry_jupyter.gpu.bandwidth import measured_gb_s
from llamatelemetry_jupyter.gpu.roofline import Limits, Place, limits
from llamatelemetry_jupyter.values import Traffic

pytestmark = pytest.mark.floor
T4 = Place("T4", 320, 65, "")


def work(weights=4 * 10**9, cache=0, parameters=8 * 10**9, prompt=None):
    return Traffic(weights, cache, parameters, parameters if prompt is None else prompt)


def test_a_model_of_four_gigabytes_on_a_t4():
    found = limits([(T4, work())])
    assert found.decode_tokens_per_s == pytest.approx(80)  # 320 GB/s / 4 GB
    assert found.prefill_tokens_per_s == pytest.approx(65e12 / 16e9)
    fuller = limits([(T4, work(cache=10**9))])
    assert fuller.decode_tokens_per_s == pytest.approx(64)
    assert fuller.prefill_tokens_per_s == found.prefill_tokens_per_s


def test_layers_on_two_cards_are_read_one_after_the_other():
    half = work(2 * 10**9, 0, 4 * 10**9)
    both = limits([(T4, half), (T4, half)])
    assert both.decode_tokens_per_s == pytest.approx(80)  # a second card adds memory, not speed for one request
    assert both.prefill_tokens_per_s == pytest.approx(2 * 65e12 / 16e9)  # while prompts go through both at once
    uneven = limits([(T4, half), (Place("P100", 732, 18.7, ""), half)])
    assert uneven.decode_tokens_per_s == pytest.approx(1 / (2 / 320 + 2 / 732))
    assert uneven.prefill_tokens_per_s == pytest.approx(18.7e12 / 8e9)


def test_a_small_model_of_many_parameters_is_bound_by_arithmetic():
    assert limits([(T4, work(10, 0, 65 * 10**12))]).decode_tokens_per_s == pytest.approx(0.5)


def test_a_place_of_which_a_figure_is_missing_leaves_that_limit_open():
    unknown = Place("some card", None, None, "n/a")
    assert limits([(unknown, work())]) == Limits(None, None)
    assert limits([(T4, work()), (unknown, work())]) == Limits(None, None)
    assert limits([(T4, work()), (unknown, work(0, 0, 0))]) == limits([(T4, work())])  # nothing lies there
    memory_only = limits([(Place("host", 30, None, "measured"), work())])
    assert (memory_only.decode_tokens_per_s, memory_only.prefill_tokens_per_s) == (7.5, None)
    assert limits([]) == Limits(None, None)


@given(st.lists(st.tuples(st.floats(1, 5000), st.integers(1, 10**12), st.integers(0, 10**12)), min_size=1, max_size=6))
def test_more_work_or_more_places_never_raise_the_limit(parts):
    found = [(Place("p", bandwidth, None, ""), work(weights, cache, 1)) for bandwidth, weights, cache in parts]
    whole = limits(found).decode_tokens_per_s
    assert whole <= min(limits([one]).decode_tokens_per_s for one in found) * (1 + 1e-9)
    emptier = [(place, work(w.weight_bytes, 0, 1)) for place, w in found]
    assert whole <= limits(emptier).decode_tokens_per_s * (1 + 1e-9)


@pytest.mark.parametrize(
    ("product", "gib", "name"),
    [
        ("Tesla T4", 14.74, "T4"),
        ("Tesla P100-PCIE-16GB", 15.9, "P100"),
        ("Tesla V100-PCIE-32GB", 31.7, "V100"),
        ("NVIDIA L4", 22.2, "L4"),
        ("NVIDIA A100-SXM4-40GB", 39.4, "A100-40GB"),
        ("A100-PCIE-40GB", 39.4, "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", 79.2, "A100-80GB"),
        ("NVIDIA H100 80GB HBM3", 79.6, "H100"),
        ("NVIDIA H200", 139.8, "H200"),
        ("NVIDIA GeForce RTX 4090", 23.6, "RTX-4090"),
        ("GeForce RTX 2080 Ti", 10.8, "RTX-2080-Ti"),
        ("NVIDIA GeForce RTX 3060", 11.8, "RTX-3060"),
        # Close to a card of the table in name, and another card.
        ("NVIDIA GeForce RTX 3060", 7.8, None),
        ("NVIDIA GeForce RTX 3060 Ti", 7.8, None),
        ("NVIDIA GeForce RTX 4090 D", 23.6, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 15.7, None),
        ("NVIDIA A10G", 22.1, None),
        ("NVIDIA A100 80GB PCIe", 79.2, None),
        ("NVIDIA H100 PCIe", 79.6, None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4.75, None),
        ("Tesla T4 (forged)", 14.74, None),
    ],
)
def test_a_card_is_known_by_what_nvml_calls_it_and_a_near_name_is_not_it(product, gib, name):
    found = cards.of_product(product, round(gib * 2**30))
    assert (found.name if found else None) == name


def test_a_card_of_no_known_memory_is_known_by_its_name_alone():
    assert cards.of_product("Tesla T4").name == "T4"


def test_memory_is_measured_within_what_memory_can_do():
    assert 0.5 < measured_gb_s(2, 0.05) < 5000
