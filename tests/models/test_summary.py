"""Multiply-adds, shapes and depth of `summarize`, against the 2015 paper and against arithmetic by hand."""

import jax.numpy as jnp
import pytest

from resnet_jax.errors import UserError
from resnet_jax.models import ResNet, create_model
from resnet_jax.models.summary import summarize

# He et al. 2015, table 1 (and section 3.3 for plain-34 and VGG-19), multiply-adds at 224 pixels.
# Table 1's 34-layer net has option A; its bottleneck nets project where dimensions change.
TABLE_1 = {
    "resnet18": 1.8e9,
    "resnet34_A": 3.6e9,
    "plain34": 3.6e9,
    "resnet50": 3.8e9,
    "resnet101": 7.6e9,
    "resnet152": 11.3e9,
    "vgg16": 15.3e9,
    "vgg19": 19.6e9,
}


def imagenet(name, **fields):
    return summarize(create_model(name, **fields), name, 224)


@pytest.mark.parametrize(("name", "flops"), TABLE_1.items())
def test_multiply_adds_of_the_papers_table_1(name, flops):
    assert imagenet(name).flops == pytest.approx(flops, rel=0.02)


def bottleneck_flops(units, stride_on):
    """Multiply-adds of a bottleneck net, layer by layer from table 1 of the 2015 paper."""
    total = 112 * 112 * (7 * 7 * 3) * 64
    features = 64
    for stage, count in enumerate(units):
        width, side = 64 * 2**stage, 56 // 2**stage
        for unit in range(count):
            striding = unit == 0 and stage > 0
            entering = 2 * side if striding and stride_on == "3x3" else side  # side that the first 1x1 puts out
            total += entering**2 * features * width
            total += side**2 * 9 * width * width
            total += side**2 * width * 4 * width
            if unit == 0:
                total += side**2 * features * 4 * width  # the projection
            features = 4 * width
    return total + 2048 * 1000


@pytest.mark.parametrize("stride_on", ["1x1", "3x3"])
@pytest.mark.parametrize(("name", "units"), [("resnet50", (3, 4, 6, 3)), ("resnet152", (3, 8, 36, 3))])
def test_bottleneck_multiply_adds_by_hand(name, units, stride_on):
    assert imagenet(name, stride_on=stride_on).flops == bottleneck_flops(units, stride_on)


def test_cifar_resnet20_multiply_adds_by_hand():
    stem = 32 * 32 * 27 * 16
    stage1 = 6 * 32 * 32 * 9 * 16 * 16
    stage2 = 16 * 16 * 9 * (16 * 32 + 5 * 32 * 32)
    stage3 = 8 * 8 * 9 * (32 * 64 + 5 * 64 * 64)
    expected = stem + stage1 + stage2 + stage3 + 64 * 10
    assert summarize(create_model("cifar_resnet20"), "", 32).flops == expected == 40_551_040


def test_vgg16_multiply_adds_by_hand():
    """Dense layers count once, not once per pixel; biases do not count."""
    total, features, side = 0, 3, 224
    for count, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(count):
            total += side**2 * 9 * features * width
            features = width
        side //= 2
    total += 7 * 7 * 512 * 4096 + 4096 * 4096 + 4096 * 1000
    assert imagenet("vgg16").flops == total


def test_stride_on_3x3_costs_what_is_published_for_v1_5():
    """4.09e9 is the number of torchvision's resnet50, which strides in the 3x3."""
    assert imagenet("resnet50", stride_on="3x3").flops == pytest.approx(4.09e9, rel=0.005)
    assert imagenet("resnet50", stride_on="3x3").params == 25_557_032


def test_resnet50_output_shapes():
    """Table 1's column "output size": 112, 56, 28, 14, 7."""
    shapes = {layer.path: layer.output for layer in imagenet("resnet50").layers}
    assert shapes["stem/conv"] == shapes["stem/bn"] == (112, 112, 64)
    for stage, side in enumerate((56, 28, 14, 7), start=1):
        width, units = 64 * 2 ** (stage - 1), (3, 4, 6, 3)[stage - 1]
        for unit in range(1, units + 1):
            path = f"stage{stage}/block{unit}"
            assert shapes[f"{path}/conv1"] == shapes[f"{path}/bn1"] == (side, side, width)
            assert shapes[f"{path}/conv2"] == (side, side, width)
            assert shapes[f"{path}/conv3"] == (side, side, 4 * width)
        assert f"stage{stage}/block{units + 1}/conv1" not in shapes
    assert shapes["head"] == (1000,)


def test_layers_come_in_the_order_of_the_forward_pass():
    paths = [layer.path for layer in imagenet("resnet18").layers if layer.weighted]
    blocks = [f"stage{s}/block{b}/conv{c}" for s in (1, 2, 3, 4) for b in (1, 2) for c in (1, 2)]
    assert paths == ["stem/conv", *blocks, "head"]


def test_depth_leaves_out_projections_and_gates():
    """The papers call the net with option C, and the gated ones, by the number of their plain layers."""
    for shortcut in ("C", "exclusive_gating", "shortcut_only_gating", "conv1x1"):
        summary = summarize(create_model("cifar_resnet20", shortcut=shortcut), "", 32)
        assert summary.depth == 20
        assert summary.flops > 40_551_040, "but their multiply-adds count"


def test_single_layers_parameters_and_kind():
    layers = {layer.path: layer for layer in summarize(create_model("vgg16"), "", 224).layers}
    assert (layers["stage1/conv2"].kind, layers["stage1/conv2"].params) == ("conv", 9 * 64 * 64 + 64)
    assert (layers["fc1"].kind, layers["fc1"].params) == ("dense", 25088 * 4096 + 4096)
    norm = next(layer for layer in imagenet("resnet18").layers if layer.path == "stage4/block2/bn2")
    assert (norm.kind, norm.params, norm.flops, norm.weighted) == ("norm", 2 * 512, 0, False)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_grey_images_and_dtype_change_only_the_stem(dtype):
    net = ResNet(stage_sizes=(1, 1), widths=(4, 8), stem="cifar", num_classes=3, shortcut="A", dtype=dtype)
    grey, colour = (summarize(net, "", 8, channels) for channels in (1, 3))
    assert colour.params - grey.params == 9 * 2 * 4
    assert colour.flops - grey.flops == 64 * 9 * 2 * 4
    assert grey.layers[1:] == colour.layers[1:]


def test_too_small_image_is_a_user_error():
    with pytest.raises(UserError, match="16x16"):
        summarize(create_model("vgg16"), "vgg16", 16)
