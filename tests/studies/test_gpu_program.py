"""What compiled programs contain: HLO by hand, floors by hand, and our own programs in StableHLO, without CUDA."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from brainseg_jax.config import load_config
from brainseg_jax.errors import InputError
from brainseg_jax.models import compilation, create_model
from brainseg_jax.studies.gpu_program import cards, compile, hlo, programs, report
from brainseg_jax.studies.gpu_program.floor import count_floor
from brainseg_jax.studies.gpu_program.kernels import list_kernels
from brainseg_jax.utils.sharding import AXIS

# A step with a convolution that cuDNN fuses, its two gradients, a loop of 5 turns over a gather from a large table, a
# change of layout, a row replaced in place, and a sum over devices.
PROGRAM = """\
HloModule jit_step, is_scheduled=true, entry_computation_layout={(bf16[2,4,4,8]{3,2,1,0})->f32[]}

%fused_relu (param_0: bf16[2,4,4,8], param_1: bf16[8]) -> bf16[2,4,4,8] {
  %param_0 = bf16[2,4,4,8]{3,2,1,0} parameter(0)
  %param_1 = bf16[8]{0} parameter(1)
  %broadcast.1 = bf16[2,4,4,8]{3,2,1,0} broadcast(%param_1), dimensions={3}
  ROOT %maximum.1 = bf16[2,4,4,8]{3,2,1,0} maximum(%param_0, %broadcast.1)
}

%fused_transpose (param_0.1: bf16[2,4,4,8]) -> bf16[8,2,4,4] {
  %param_0.1 = bf16[2,4,4,8]{3,2,1,0} parameter(0)
  ROOT %transpose.1 = bf16[8,2,4,4]{3,2,1,0} transpose(%param_0.1), dimensions={3,0,1,2}
}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %add.1 = f32[] add(%x, %y)
}

%fused_row (param_0.2: f32[100,10], param_1.2: s32[]) -> f32[10] {
  %param_0.2 = f32[100,10]{1,0} parameter(0)
  %param_1.2 = s32[] parameter(1)
  %constant.1 = s32[] constant(0)
  %dynamic-slice.1 = f32[1,10]{1,0} dynamic-slice(%param_0.2, %param_1.2, %constant.1), dynamic_slice_sizes={1,10}
  %bitcast.1 = f32[10]{0} bitcast(%dynamic-slice.1)
  ROOT %multiply.1 = f32[10]{0} multiply(%bitcast.1, %bitcast.1)
}

%fused_replace (param_0.3: f32[100,10], param_1.3: f32[1,10], param_2.3: s32[]) -> f32[100,10] {
  %param_0.3 = f32[100,10]{1,0} parameter(0)
  %param_1.3 = f32[1,10]{1,0} parameter(1)
  %negate.1 = f32[1,10]{1,0} negate(%param_1.3)
  %param_2.3 = s32[] parameter(2)
  ROOT %dynamic-update-slice.1 = f32[100,10]{1,0} dynamic-update-slice(%param_0.3, %negate.1, %param_2.3, %param_2.3)
}

%body (carry: (s32[], f32[100,10])) -> (s32[], f32[100,10]) {
  %carry = (s32[], /*index=1*/f32[100,10]{1,0}) parameter(0)
  %turn = s32[] get-tuple-element(%carry), index=0
  %table = f32[100,10]{1,0} get-tuple-element(%carry), index=1
  %row = f32[10]{0} fusion(%table, %turn), kind=kLoop, calls=%fused_row
  %as_row = f32[1,10]{1,0} bitcast(%row)
  %replaced = f32[100,10]{1,0} fusion(%table, %as_row, %turn), kind=kLoop, calls=%fused_replace
  ROOT %next = (s32[], f32[100,10]{1,0}) tuple(%turn, %replaced)
}

%condition (carry.1: (s32[], f32[100,10])) -> pred[] {
  %carry.1 = (s32[], f32[100,10]{1,0}) parameter(0)
  ROOT %more = pred[] constant(true)
}

ENTRY %main (maps: bf16[2,4,4,8], kernel: bf16[8,3,3,8], bias: bf16[8], table.1: f32[100,10]) -> f32[] {
  %maps = bf16[2,4,4,8]{3,2,1,0} parameter(0), sharding={replicated}
  %kernel = bf16[8,3,3,8]{3,2,1,0} parameter(1)
  %bias = bf16[8]{0} parameter(2)
  %table.1 = f32[100,10]{1,0} parameter(3)
  %conv = (bf16[2,4,4,8]{3,2,1,0}, u8[512]{0}) custom-call(%maps, %kernel, %bias), window={size=3x3 pad=1_1x1_1}, \
custom_call_target="__cudnn$convBiasActivationForward", metadata={op_name="jit(step)/jvp(UNet)/compute_logits/down_1"}\
, backend_config={"cudnn_conv_backend_config":{"activation_mode":"kRelu"}}
  %hidden = bf16[2,4,4,8]{3,2,1,0} get-tuple-element(%conv), index=0
  %plain = bf16[2,4,4,8]{3,2,1,0} fusion(%hidden, %bias), kind=kLoop, calls=%fused_relu
  %of_maps = (bf16[2,4,4,8]{3,2,1,0}, u8[0]{0}) custom-call(%plain, %kernel), \
custom_call_target="__cudnn$convBackwardInput"
  %of_kernel = (f32[8,3,3,8]{3,2,1,0}, u8[0]{0}) custom-call(%maps, %plain), \
custom_call_target="__cudnn$convBackwardFilter"
  %turned = bf16[8,2,4,4]{3,2,1,0} fusion(%plain), kind=kInput, calls=%fused_transpose
  %copied = bf16[2,4,4,8]{0,3,2,1} copy(%plain)
  %zero = s32[] constant(0)
  %start = (s32[], f32[100,10]{1,0}) tuple(%zero, %table.1)
  %loop = (s32[], f32[100,10]{1,0}) while(%start), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  %gradient = f32[8,3,3,8]{3,2,1,0} get-tuple-element(%of_kernel), index=0
  ROOT %summed = f32[8,3,3,8]{3,2,1,0} all-reduce(%gradient), channel_id=1, to_apply=%add
}
"""
MAP, KERNEL = 2 * 4 * 4 * 8 * 2, 8 * 3 * 3 * 8 * 2  # bytes in bf16


def test_kernels_their_kinds_and_their_bytes():
    kernels = {kernel.name: kernel for kernel in list_kernels(hlo.parse(PROGRAM))}
    found = {
        name: (kernel.kind, kernel.detail, kernel.runs, kernel.read, kernel.written) for name, kernel in kernels.items()
    }
    assert found == {
        "conv": ("convolution", "forward, bias and ReLU", 1, MAP + KERNEL + 16, MAP),  # without cuDNN's own memory
        "plain": ("elementwise", "", 1, MAP + 16, MAP),
        "of_maps": ("convolution", "input gradient", 1, MAP + KERNEL, MAP),
        "of_kernel": ("convolution", "kernel gradient", 1, 2 * MAP, 2 * KERNEL),
        "turned": ("layout", "", 1, MAP, MAP),
        "copied": ("layout", "", 1, MAP, MAP),
        "row": ("elementwise", "", 5, 40 + 4, 40),  # a row of the table and the turn's number
        "replaced": ("elementwise", "", 5, 40 + 4, 40),  # the row alone: the table stays where it is
        "summed": ("collective", "all-reduce", 1, 2 * KERNEL, 2 * KERNEL),
    }
    assert kernels["row"].nbytes == 5 * 84
    assert kernels["conv"].op_name == "jit(step)/jvp(UNet)/compute_logits/down_1"


def test_a_summary_adds_up_and_names_convolutions_in_another_dtype():
    kernels = list_kernels(hlo.parse(PROGRAM))
    summary = compile.summarize(kernels, dtype="bfloat16")
    assert summary["kernels"] == 7 + 2 * 5
    assert sum(kind["bytes"] for kind in summary["kinds"].values()) == sum(kernel.nbytes for kernel in kernels)
    assert summary["kinds"]["convolution: kernel gradient"] == {"kernels": 1, "bytes": 2 * MAP + 2 * KERNEL}
    assert summary["convolutions_in_another_dtype"] == 1  # the kernel's gradient, larger in float32 than the maps
    assert summary["largest"][0]["bytes"] == max(kernel.nbytes for kernel in kernels)


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        hlo.parse("HloModule empty")


def test_the_floor_of_a_loop_with_a_convolution_and_its_gradients():
    def loss(kernel, maps):
        hidden = jax.lax.conv_general_dilated(maps, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return (hidden @ jnp.ones((4, 2))).sum()

    def steps(kernel, maps):
        return jax.lax.scan(lambda carry, _: (carry - jax.grad(loss)(carry, maps), None), kernel, length=3)

    floor = count_floor(steps, jnp.zeros((3, 3, 5, 4)), jnp.zeros((2, 6, 7, 5)))
    pixels = 2 * 6 * 7
    forward, kernel_gradient = 2 * pixels * 4 * 9 * 5, 2 * (9 * 5 * 4) * pixels
    product, of_product = 2 * pixels * 2 * 4, 2 * pixels * 4 * 2
    assert floor.flops == 3 * (forward + kernel_gradient + product + of_product)
    maps, hidden, kernel, weights, outputs = pixels * 5, pixels * 4, 9 * 5 * 4, 8, pixels * 2
    once = (maps + kernel + hidden) * 2 + (hidden + weights + outputs) * 2
    assert floor.nbytes == 3 * 4 * once


@pytest.fixture(scope="module")
def here():
    return Mesh(np.array(jax.devices("cpu")[:1]), (AXIS,))


# Dilated maps are for gradients of convolutions with stride 2: in LinkNet two at each of four stages, in U-Net none.
@pytest.mark.parametrize(("name", "changes", "strided"), [("unet", {"batch_norm": True}, 0), ("linknet", {}, 6)])
def test_bfloat16_gradients_have_no_float32_convolution_and_none_over_dilated_maps(name, changes, strided):
    model = create_model({"name": name, "start_filters": 4, "dtype": "bfloat16", **changes})
    images = jax.ShapeDtypeStruct((2, 64, 64, 1), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def loss(params, rest, images):
        return model.apply({"params": params, **rest}, images, train=True, mutable=["batch_stats"])[0].sum()

    rest = {"batch_stats": variables["batch_stats"]}
    text = jax.jit(jax.grad(loss)).lower(variables["params"], rest, images).as_text()
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert len(convolutions) > 50
    assert not [line for line in convolutions if "f32" in line.split(" : ")[-1]]
    dilations = [re.search(r"lhs_dilate = (\[.*?\])", line) for line in convolutions]
    assert [found[1] for found in dilations if found and found[1] != "[1, 1]"] == strided * ["[2, 2]"]


@pytest.mark.parametrize("task", ["train_epoch", "evaluate", "predict"])
def test_every_program_is_described_without_an_array(here, task, monkeypatch):
    # This machine's CPU, with oneDNN or without, has no part in it: with its options, a function cannot be traced.
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(compilation, "has_onednn", lambda: True)
    config = load_config(f"{__file__.rsplit('/', 3)[0]}/configs/unet_strong.py")
    config.model.start_filters = 2
    config.data.image_size = 16
    function, arguments = programs.make_program(config, task, here)
    _, results = jax.make_jaxpr(function, return_shape=True)(*arguments)
    leading = {"train_epoch": (1961 // 16,), "evaluate": (1,)}
    if task == "predict":
        assert results.shape == (16, 16, 16, 1)
    else:
        assert jax.tree.leaves(results[1] if "train" in task else results)[0].shape == leading[task]


def test_a_card_is_described_to_xla_and_an_unknown_one_is_refused():
    text = cards.find_card("rtx2070").target_config()
    assert re.search(r"cuda_compute_capability \{ major: 7 minor: 5 \}", text)
    assert text.count("{") == text.count("}")
    with pytest.raises(InputError, match="h100, a100"):
        cards.find_card("h1000")
    for card in cards.CARDS.values():
        assert card.flops["float32"] <= card.flops.get("bfloat16", np.inf)


def test_the_page_compares_with_before(tmp_path):
    kernels = list_kernels(hlo.parse(PROGRAM))
    entry = {
        "compile_cpu_seconds": 1.0,
        "memory": {"arguments": 1, "temporaries": 2, "peak": 3 * 10**9, "share_of_card": 0.25},
        "bytes": 4 * 10**9,
        "floor": {"bytes": 10**9, "flops": 10**12},
        "least_milliseconds": {"bytes": 2.0, "floor_bytes": 0.5, "flops": None},
        **compile.summarize(kernels, dtype="bfloat16"),
    }
    good, bad = "h100: unet, train, bfloat16, 1 × GPU", "t4: unet, train, float32, 1 × GPU"
    content = {
        "command": "python scripts/compile_for_gpu.py",
        "commit": "new",
        "versions": {"jax": "0.12"},
        "cards": {"h100": vars(cards.CARDS["h100"])},
        "programs": {good: entry, bad: {"error": "no such | card"}},
    }
    earlier = {**content, "commit": "old", "programs": {good: {**entry, "bytes": 5 * 10**9}}}
    (tmp_path / "before.json").write_text(json.dumps(earlier))
    report.write_report(content, tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert json.loads((tmp_path / "program.json").read_text())["programs"][good]["kernels"] == 17
    assert f"| {good} | 17 | 4.00 | 1.00 | 2.00 | 0.50 | – | 3.00 | 25% |" in page
    assert f"| {good} | 1 | 1 | 1 | 1 | 0 | 1 | 1 |" in page
    assert "Before: commit old." in page
    assert "| 5.00 → 4.00 |" in page
    assert "-20.0%" in page
    assert r"no such \| card" in page
