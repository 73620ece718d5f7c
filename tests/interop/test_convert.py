"""Names of every layout in and out, and a clear error for what does not fit."""

import dataclasses
import re

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from flax import serialization

from resnet_jax.data.augment import IMAGENET_MEAN, IMAGENET_STD
from resnet_jax.errors import UserError
from resnet_jax.interop import layouts
from resnet_jax.interop.convert import convert, tensors_of
from resnet_jax.interop.export import TORCH_LAYOUTS, export_safetensors, natural_layout, state_dict
from resnet_jax.interop.files import read_tensors
from resnet_jax.models.registry import create_model
from resnet_jax.training.load_weights import import_weights, load_weights
from tests.interop import files_made, made
from tests.interop.files_made import BY_NAME, file_of
from tests.interop.flax_net import BottleneckResNetBlock, FlaxNet, ResNetBlock

SMALL = {"stage_sizes": (2, 1), "widths": (4, 8), "num_classes": 7}
V15, V2 = {"stride_on": "3x3"}, {"stem_norm": False}

#: Nets that a layout can have: layout, our name, fields.
NETS = [
    ("torchvision", "resnet18", SMALL),
    ("torchvision", "resnet50", SMALL | V15),
    ("torchvision", "resnext50_32x4d", SMALL | {"widths": (64, 128)}),
    ("torchvision", "wide_resnet50_2", SMALL),
    ("torchvision", "cifar_resnet20", SMALL | {"shortcut": "B"}),
    ("torchvision", "cifar_resnet20", SMALL | {"shortcut": "B", "stem_width": 3}),
    ("torchvision", "cifar_resnet20", SMALL),
    ("torchvision", "resnet34_C", SMALL),
    ("akamaster", "cifar_resnet20", SMALL),
    ("akamaster", "cifar_resnet20", SMALL | {"shortcut": "B"}),
    ("akamaster", "resnet18", SMALL | {"stem": "cifar"}),
    ("fc_shortcut", "cifar_resnet20", SMALL | {"shortcut": "B"}),
    ("transformers", "resnet18", SMALL),
    ("transformers", "resnet50", SMALL | V15),
    ("timm_resnetv2", "preact_resnet18", SMALL | V2),
    ("timm_resnetv2", "preact_resnet50", SMALL | V2 | V15),
]


@pytest.mark.parametrize("layout, model, fields", NETS)
def test_round_trips_are_bitwise(tmp_path, layout, model, fields):
    tensors = files_made.tensors_of(layout, model, **fields)
    weights = convert(file_of(tensors)).weights
    base = create_model(model, **fields)
    assert {f.name: getattr(base, f.name) for f in dataclasses.fields(base)} == {
        f.name: getattr(weights.create_model(), f.name) for f in dataclasses.fields(base)
    }
    # to the net and back
    back = state_dict(weights, layout)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)
        assert back[name].dtype == tensor.dtype
    # to a file and back
    export_safetensors(weights, tmp_path / "x.safetensors", layout)
    again = load_weights(tmp_path / "x.safetensors")
    assert again.fields == weights.fields
    jax.tree.map(np.testing.assert_array_equal, again.variables, weights.variables)


@pytest.mark.parametrize("block, layout", [(ResNetBlock, "flax_basic"), (BottleneckResNetBlock, "flax_bottleneck")])
@pytest.mark.parametrize("write", ["msgpack", "orbax"])
def test_flax_checkpoints_compute_the_same(tmp_path, block, layout, write):
    net = FlaxNet(block, (2, 1, 1))
    images = made.images(32)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), images))
    rng = made.generator("flax")
    draw = {"var": lambda s: rng.uniform(0.5, 1.5, s), "kernel": lambda s: rng.normal(0, 0.3, s)}
    variables = jax.tree_util.tree_map_with_path(
        lambda path, s: draw.get(path[-1].key, lambda s: rng.normal(0.3, 0.3, s))(s.shape).astype(np.float32), shapes
    )
    state = {"step": np.int32(3), **variables, "opt_state": {"0": {"trace": variables["params"]}}}
    if write == "msgpack":
        path = tmp_path / "checkpoint_3"
        path.write_bytes(serialization.msgpack_serialize(state))
    else:
        path = tmp_path / "checkpoint_3"
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(path, state)
    converted = convert(read_tensors(path))
    assert converted.structure.layout.name == layout and converted.weights.fields["padding"] == "same"
    ours = converted.weights.create_model().apply(converted.weights.variables, images)
    theirs = net.apply(variables, images)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.std(theirs))
    symmetric = converted.weights.create_model(padding="symmetric").apply(converted.weights.variables, images)
    assert np.abs(symmetric - theirs).max() > 0.1 * np.std(theirs)
    back = tensors_of(converted.weights, BY_NAME[layout])
    for name, array in read_tensors(path).tensors.items():
        np.testing.assert_array_equal(back[name], array)


TENSORS = files_made.tensors_of("akamaster", "cifar_resnet20", **SMALL)


def save(path, tensors):
    path.write_bytes(safetensors.numpy.save(tensors))
    return path


def test_a_bottleneck_without_channels_is_refused_in_a_sentence():
    shapes = {"conv1.weight": (8, 3, 7, 7), "fc.weight": (7, 8), "layer1.0.conv1.weight": (3, 8, 1, 1),
              "layer1.0.conv2.weight": (3, 3, 3, 3), "layer1.0.conv3.weight": (3, 3, 1, 1)}  # fmt: skip
    with pytest.raises(UserError, match="does not say what net it is of"):
        convert(file_of({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}))


def test_everything_that_does_not_fit_is_in_one_error():
    tensors = dict(TENSORS, **{"se.weight": np.zeros(3, np.float32), "linear.bias": np.zeros(9, np.float32)})
    del tensors["layer1.1.bn2.running_var"]
    with pytest.raises(UserError) as error:
        convert(file_of(tensors))
    for part in (
        "1 missing: layer1.1.bn2.running_var",
        "1 too many: se.weight",
        r"linear.bias \(9,\) instead of \(7,\)",
    ):
        assert re.search(part, str(error.value)), error.value


@pytest.mark.parametrize(
    "model, message",
    [
        ("resnet50", r"no resnet50: .*a net of its own \(basic units 2-1, widths 4-8\); give no --model"),
        ("vgg16", "no vgg16"),
        ("cifar_preact_resnet110", "no cifar_preact_resnet110"),
        ("resnet5o", "unknown net"),
    ],
)
def test_another_net_is_said(model, message):
    with pytest.raises(UserError, match=message):
        convert(file_of(TENSORS), model)


def test_depth_and_shortcuts_come_from_the_file():
    for n, name in ((3, "cifar_resnet20"), (5, "cifar_resnet32"), (9, "cifar_resnet56")):
        tensors = files_made.tensors_of("akamaster", name)
        found = convert(file_of(tensors)).weights
        assert (found.model, found.fields) == (name, {"num_classes": 10}), n
        with pytest.raises(UserError, match=rf"it is {name} \(basic units {n}-{n}-{n}, .*; give --model={name}"):
            convert(file_of(tensors), "cifar_resnet110")
    plain = files_made.tensors_of("torchvision", "cifar_plain20")
    assert convert(file_of(plain), "cifar_plain20").weights.create_model().shortcut == "none"
    assert convert(file_of(plain)).weights.create_model().shortcut == "A"
    without = {k: v for k, v in files_made.tensors_of("torchvision", "resnet18").items() if "downsample" not in k}
    with pytest.raises(UserError, match="15 missing: layer2.0.downsample"):
        convert(file_of(without), "resnet18")


def test_what_is_told_by_hand():
    fields = {"shortcut_zeros": "end", "shortcut": "A"}
    assert convert(file_of(TENSORS), fields=fields).weights.create_model().shortcut_zeros == "end"
    caffe = files_made.tensors_of("torchvision", "resnet50", **SMALL)
    assert convert(file_of(caffe), fields={"stride_on": "1x1"}).weights.create_model().stride_on == "1x1"
    for wrong, message in (
        ({"stride_on": "5x5"}, "stride_on=5x5 must be one of 1x1, 3x3"),
        ({"width": "4"}, "unknown field .* 'width'"),
    ):
        with pytest.raises(UserError, match=message):
            convert(file_of(caffe), fields=wrong)
    hub = dataclasses.replace(file_of(files_made.tensors_of("transformers", "resnet50", **SMALL)),
                              config={"model_type": "resnet", "downsample_in_bottleneck": True})  # fmt: skip
    assert convert(hub).weights.create_model().stride_on == "1x1"


def test_class_counts_names_and_statistics(tmp_path):
    path = save(tmp_path / "x.safetensors", TENSORS)
    with pytest.raises(UserError, match="7 classes, not the 10"):
        import_weights(path, num_classes=10)
    names = tmp_path / "names.txt"
    names.write_bytes("\ufeff{}\r\n".format("\r\n".join("abcdefg")).encode())  # as Windows's editor saves it
    found = import_weights(path, classes=names, mean=(0.1, 0.2, 0.3), std=(1, 2, 3), image_size=48).weights
    assert (found.classes, found.image_size) == (tuple("abcdefg"), 48)
    np.testing.assert_array_equal((found.mean, found.std), np.float32([(0.1, 0.2, 0.3), (1, 2, 3)]))
    names.write_text("a\nb\n")
    for wrong, message in (
        ({"classes": names}, "names.txt .*2.*7"), ({"mean": (1, 2)}, r"mean=.* must be 3 numbers: "),
        ({"std": (1, 0, 1)}, "std=.* must be 3 numbers, each above 0"), ({"image_size": 0}, "image size 0 must be 1"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            import_weights(path, **wrong)
    many = files_made.tensors_of("torchvision", "resnet18", **SMALL | {"num_classes": 1000})
    imagenet = import_weights(save(tmp_path / "y.safetensors", many)).weights
    assert imagenet.classes[0] == "n01440764" and imagenet.image_size == 224
    assert (layouts.IMAGENET_MEAN, layouts.IMAGENET_STD) == (IMAGENET_MEAN, IMAGENET_STD)


def test_half_precision_is_widened_and_said(tmp_path):
    halves = {k: v.astype(np.float16) if v.dtype == np.float32 else v for k, v in TENSORS.items()}
    found = convert(read_tensors(save(tmp_path / "x", halves)))
    kernel = found.weights.variables["params"]["stem"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, halves["conv1.weight"].astype(np.float32).transpose(2, 3, 1, 0))
    assert any("float16 and are float32 now" in note for note in found.notes)
    with pytest.raises(UserError, match="int64"):
        convert(file_of(TENSORS | {"linear.bias": np.zeros(7, np.int64)}))
    with pytest.raises(UserError, match="not finite"):
        convert(file_of(TENSORS | {"linear.bias": np.full(7, np.nan, np.float32)}))


def test_names_of_no_layout_and_gaps_are_said():
    with pytest.raises(UserError, match="no known layout.*torchvision.*timm"):
        convert(file_of({"encoder.0.w": np.zeros(3, np.float32)}))
    far = dict(TENSORS, **{"layer1.90000.conv1.weight": TENSORS["layer1.0.conv1.weight"]})
    with pytest.raises(UserError, match="units of stage 1, number 3 is missing"):
        convert(file_of(far))
    with pytest.raises(UserError, match="no known layout"):
        convert(file_of({k: v for k, v in TENSORS.items() if not k.startswith("conv1")}))
    groups = {k: v for k, v in files_made.tensors_of("timm_resnetv2", "preact_resnet18", **SMALL | V2).items()
              if "running" not in k}  # fmt: skip
    with pytest.raises(UserError, match="missing: norm.running_mean"):
        convert(file_of(groups))


@pytest.mark.parametrize("case", ["missing", "empty", "folder", "text", "cut", "bare pickle", "npz"])
def test_files_that_are_no_weights(tmp_path, case):
    path = tmp_path / "x"
    if case == "folder":
        path.mkdir()
        (path / "a.txt").write_text("")
    elif case == "npz":
        np.savez(tmp_path / "y.npz", a=np.zeros(3))
        path = tmp_path / "y.npz"
    elif case != "missing":
        whole = safetensors.numpy.save(TENSORS)
        data = {"empty": b"", "text": b"hello, weights", "cut": whole[: len(whole) // 2], "bare pickle": b"\x80\x04N."}
        path.write_bytes(data[case])
    message = {
        "missing": "there is no file", "empty": "is empty", "folder": "neither a checkpoint", "text": "no known format",
        "cut": "damaged or cut off", "bare pickle": "bare pickle", "npz": "data.pkl is not PyTorch's",
    }  # fmt: skip
    with pytest.raises(UserError, match=message[case]):
        read_tensors(path)


def test_nets_that_no_project_has_are_refused(tmp_path):
    weights = convert(file_of(TENSORS)).weights
    assert natural_layout(weights) == "akamaster"
    preact = dataclasses.replace(weights, model="preact_resnet18")
    for layout in TORCH_LAYOUTS:
        with pytest.raises(UserError, match="activation=full_preactivation|stem_norm=True"):
            state_dict(preact, layout)
    gated = dataclasses.replace(weights, fields=weights.fields | {"shortcut": "exclusive_gating"})
    gated.variables["params"]["stage1"]["block1"]["shortcut"] = {"gate": {"bias": np.zeros(4, np.float32)}}
    with pytest.raises(UserError, match="no net with params/stage1/block1/shortcut/gate/bias"):
        state_dict(gated, "akamaster")


@pytest.mark.parametrize(
    "fields",
    [{"stochastic_depth": 0.5}, {"shortcut": "constant_scaling", "residual_scale": 0.5}, {"shortcut": "dropout"}],
)
def test_sums_that_are_scaled_in_testing_are_refused(fields):
    """They have a plain net's tensors, and in a plain net's code other logits."""
    weights = convert(file_of(TENSORS)).weights
    scaled = dataclasses.replace(weights, fields=weights.fields | fields)
    images = made.images(32)
    logits, others = (x.create_model().apply(x.variables, images) for x in (weights, scaled))
    assert np.abs(logits - others).max() > 0.1 * np.std(logits)
    with pytest.raises(UserError, match=f"has no net with {list(fields)[0]}="):
        state_dict(scaled, "akamaster")
    # "drop path" scales in training alone
    state_dict(
        dataclasses.replace(
            weights, fields=weights.fields | {"stochastic_depth": 0.5, "stochastic_depth_per": "example"}
        ),
        "akamaster",
    )


def test_strides_and_zeros_that_no_tensor_tells_are_said(tmp_path):
    def notes(tensors, **fields):
        weights = convert(file_of(tensors)).weights
        changed = dataclasses.replace(weights, fields=weights.fields | fields)
        return " ".join(export_safetensors(changed, tmp_path / "x.safetensors")["notes"])

    assert "normalise images with values in [0, 1]: less 0.485, 0.456, 0.406, then divided by 0.229, 0.224, 0.225" in (
        notes(TENSORS)
    )
    assert "shortcut A, new channels half on each side" in notes(TENSORS)
    assert "shortcut A, new channels at the end" in notes(TENSORS, shortcut_zeros="end")
    deep = files_made.tensors_of(
        "torchvision", "resnet18", stage_sizes=(1, 1, 1, 1), widths=(4, 8, 16, 32), num_classes=7
    )
    assert "stride" not in notes(deep) and "stride" not in notes(deep, output_stride=32)
    assert "last stage has a stride of 16 pixels, and that of torchvision" in notes(deep, output_stride=16)
    segments = {"head": "fcn", "aux_head": False, "stride_on": "1x1", "num_classes": 7}
    fcn = files_made.tensors_of(
        "torchvision_fcn", "resnet18", stage_sizes=(1, 1, 1, 1), widths=(4, 8, 16, 32), output_stride=8, **segments
    )
    assert "stride" not in notes(fcn)
    assert "stride of 32 pixels, and that of torchvision's fcn one of 8" in notes(fcn, output_stride=None)
