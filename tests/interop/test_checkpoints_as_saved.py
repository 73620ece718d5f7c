"""Checkpoints as people save them: the net is found wherever it lies, and all that is beside it is passed over."""

import argparse
import collections
import datetime
import json
import pathlib
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from resnet_jax.errors import UserError
from resnet_jax.evaluation.predict import embed
from resnet_jax.interop.convert import convert
from resnet_jax.interop.files import read_tensors
from resnet_jax.training.load_weights import load_weights
from tests.interop import files_made, torch_made
from tests.interop.torch_made import Stub

SMALL = {"stage_sizes": (1, 1), "widths": (4, 8), "num_classes": 5}
NET = files_made.tensors_of("torchvision", "cifar_resnet20", **SMALL, shortcut="B")
WEIGHTS = convert(files_made.file_of(NET)).weights
BACKBONE = {name: array for name, array in NET.items() if not name.startswith("fc.")}
HEAD = {name: array for name, array in NET.items() if name.startswith("fc.")}
OTHER = {name: array + 1 if array.dtype == np.float32 else array for name, array in NET.items()}
NUMBER, EYE = np.float32([71.5]), np.eye(8, dtype=np.float32)

CASES = Path(__file__).parents[2] / ".." / "shared" / "cases"


def under(prefix, tensors):
    return {prefix + name: array for name, array in tensors.items()}


def saved(tmp_path, value, name="x.pth"):
    return torch_made.save(tmp_path / name, value)


def params_of(weights):
    params = dict(weights.variables["params"])
    head = params.pop("head", None)
    return {"params": params, "batch_stats": weights.variables["batch_stats"]}, head


def check(converted, head=True):
    """All tensors are where they belong; the net that gives the right values is tested elsewhere."""
    body, found = params_of(converted.weights)
    expected, classifier = params_of(WEIGHTS)
    jax.tree.map(np.testing.assert_array_equal, body, expected)
    assert jax.tree.structure(body) == jax.tree.structure(expected)
    assert (found is not None) == head and converted.weights.num_classes == (5 if head else 0)
    if head:
        jax.tree.map(np.testing.assert_array_equal, found, classifier)


#: What is around and beside a net, and whether its classifier is found.
FORMS = {
    "bare": (NET, True),
    "pytorch/examples imagenet": (
        {"epoch": 3, "arch": "resnet18", "best_acc1": NUMBER, "state_dict": under("module.", NET),
         "optimizer": {"state": {0: {"momentum_buffer": NET["conv1.weight"]}}, "param_groups": [{"lr": 0.1}]}},
        True,
    ),
    "a number in the state dict": (NET | {"best_acc1": NUMBER, "n_averaged": np.int64(3).reshape(())}, True),
    "averaged model of torch.optim.swa_utils": (under("module.", NET) | {"n_averaged": np.zeros((), np.int64)}, True),
    "counts of thop": (
        NET | {"total_ops": NUMBER, "layer1.0.conv1.total_ops": NUMBER, "layer1.total_params": NUMBER}, True,
    ),
    "lightning with a loss": (
        {"state_dict": under("model.", NET) | {"criterion.weight": np.ones(5, np.float32)}, "epoch": 1}, True,
    ),
    "lightning with metrics": (
        {"state_dict": under("net.", NET) | {"val_acc.tp": NUMBER, "train_metrics.total": NUMBER}}, True,
    ),
    "compiled and distributed": (under("_orig_mod.module.", NET), True),
    "stages compiled alone": (
        {name.replace("layer1.", "layer1._orig_mod."): array for name, array in NET.items()}, True,
    ),
    "fsdp's names": ({f"_fsdp_wrapped_module.{name}": array for name, array in NET.items()}, True),
    "any wrapper": ({"checkpoint": {"model": under("image_encoder.trunk.", NET)}}, True),
    "mmpretrain": ({"meta": {}, "state_dict": under("backbone.", BACKBONE) | under("head.", HEAD)}, True),
    "backbone and linear": (
        under("backbone.", BACKBONE) | {f"linear.{k[3:]}": v for k, v in HEAD.items()}, True,
    ),
    "last_linear": (BACKBONE | {f"last_linear.{k[3:]}": v for k, v in HEAD.items()}, True),
    "a dropout ahead of the classifier": (BACKBONE | {f"fc.1.{k[3:]}": v for k, v in HEAD.items()}, True),
    "backbone and classifier in dicts": (
        {"backbone": BACKBONE, "classifier": {k[3:]: v for k, v in HEAD.items()}}, True,
    ),
    "a classifier of two layers": (
        BACKBONE | {"fc.0.weight": np.ones((6, 8), np.float32), "fc.2.weight": np.ones((5, 6), np.float32)}, False,
    ),
    "a classifier of pooled positions": (BACKBONE | {"fc.weight": np.ones((5, 128), np.float32)}, False),
    "no classifier": (BACKBONE, False),
    "simsiam": (
        {"state_dict": under("module.encoder.", BACKBONE) | {"module.predictor.0.weight": np.ones((4, 8), np.float32)}},
        False,
    ),
    "swav": (
        under("module.", BACKBONE) | {"module.prototypes.weight": np.ones((9, 8), np.float32),
                                      "module.projection_head.0.weight": np.ones((8, 8), np.float32)},
        False,
    ),
    "moco with its queue": (
        {"state_dict": under("module.encoder_q.", BACKBONE) | {"module.queue": np.ones((8, 4), np.float32)}}, False,
    ),
    "the average of timm": ({"state_dict": OTHER, "state_dict_ema": NET}, True),
    "the average of lightning": ({"state_dict": under("model.", OTHER) | under("ema_model.module.", NET)}, True),
    "fastai": ({"model": NET, "opt": {"state": [{"mom": NET["conv1.weight"]}]}}, True),
    "byol": (
        {"state_dict": under("online_network.", BACKBONE) | {"online_network.projection.net.0.weight": EYE}}, False,
    ),
    "a batch norm in the classifier": (
        {"train_model": BACKBONE | {"fc.0.running_mean": NUMBER, "fc.1.weight": np.ones((5, 8), np.float32)}}, False,
    ),
    "a list": ([NET, {"lr": 0.1}], True),
    "moments by name": ({"model": NET, "exp_avg": {k: v for k, v in NET.items() if "running" not in k}}, True),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_net_is_found(tmp_path, form):
    value, head = FORMS[form]
    check(convert(read_tensors(saved(tmp_path, value))), head)


@pytest.mark.parametrize("write", [torch_made.zipped, torch_made.legacy])
def test_objects_beside_the_weights_are_passed_over(tmp_path, write):
    """Lightning's and other people's: what Python itself pickles, and what only its names are known of."""
    beside = {
        "args": argparse.Namespace(lr=0.1, layers=[1, 2], nested=argparse.Namespace(a=None)),
        "counter": collections.Counter("abca"), "defaults": collections.defaultdict(list, a=[1]),
        "schedule": collections.OrderedDict(milestones=collections.Counter({30: 1})), "when": datetime.datetime.now(),
        "path": pathlib.PurePosixPath("/a/b"), "set": {1, 2}, "frozen": frozenset("ab"), "complex": 1j,
        "slice": slice(1, 2), "best": np.float64(0.5), "text": np.str_("abc"), "dtype": np.dtype("O"),
        "bytes": bytearray(b"abc"), (1, 2): "a tuple as a key",
        "device": Stub("torch.device", "cuda", 0), "config": Stub("omegaconf.dictconfig.DictConfig", {"a": [1]}),
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best": Stub("lightning.x.Y", collections.OrderedDict())}},
        "net": Stub("somebody.models.Net", 3),
    }  # fmt: skip
    check(convert(read_tensors(torch_made.save(tmp_path / "x.ckpt", beside | {"state_dict": NET}, write))))


def test_which_of_several_nets_is_asked_and_told(tmp_path):
    dino = saved(tmp_path, {
        "student": under("module.backbone.", OTHER) | {"module.head.mlp.0.weight": np.ones((4, 8), np.float32)},
        "teacher": under("backbone.", BACKBONE) | {"head.mlp.0.weight": np.ones((4, 8), np.float32)},
        "args": argparse.Namespace(arch="resnet50"),
    })  # fmt: skip
    with pytest.raises(
        UserError, match=r"2 nets, under student.backbone and teacher.backbone: say which by --key"
    ) as e:
        convert(read_tensors(dino))
    assert "\n" not in str(e.value)
    check(convert(read_tensors(dino), key="teacher"), head=False)
    check(convert(read_tensors(dino), key="teacher.backbone"), head=False)
    with pytest.raises(UserError, match="no net under 'teach'; it has one under student.backbone and teacher.backbone"):
        convert(read_tensors(dino), key="teach")
    moco = saved(tmp_path, {"state_dict": under("encoder_q.", NET) | under("encoder_k.", OTHER)}, "y.pth")
    with pytest.raises(UserError, match="state_dict.encoder_k and state_dict.encoder_q"):
        load_weights(moco)
    np.testing.assert_array_equal(
        load_weights(moco, key="encoder_q").variables["params"]["head"]["bias"], NET["fc.bias"]
    )
    averaged = saved(tmp_path, {"state_dict": NET, "state_dict_ema": OTHER}, "z.pth")
    assert "the average, not state_dict" in " ".join(convert(read_tensors(averaged)).notes)
    check(convert(read_tensors(averaged), key="state_dict"))


def test_what_is_left_out_is_said(tmp_path):
    value = {"state_dict": under("module.", BACKBONE | {"fc.0.weight": EYE, "fc.2.weight": EYE})}
    notes = " / ".join(convert(read_tensors(saved(tmp_path, value | {"best_acc1": NUMBER}))).notes)
    for part in (
        "weights under 'state_dict'", "names without 'module.'", "fc.0.weight, .*fc.2.weight are no single",
        "left out, as no part of the net: .*best_acc1", "no file says a stride of 1 and no max-pool",
    ):  # fmt: skip
        assert any(re.search(part, note) for note in notes.split(" / ")), (part, notes)


def test_a_classifier_without_bias_and_one_of_a_1x1_convolution(tmp_path):
    value = BACKBONE | {"fc.weight": NET["fc.weight"][:, :, None, None]}
    head = convert(read_tensors(saved(tmp_path, value))).weights.variables["params"]["head"]
    np.testing.assert_array_equal(head["kernel"], NET["fc.weight"].T)
    np.testing.assert_array_equal(head["bias"], np.zeros(5))


def test_a_net_without_a_classifier_gives_features_and_no_classes(tmp_path):
    weights = load_weights(saved(tmp_path, BACKBONE))
    assert weights.fields["num_classes"] == 0
    images = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    ours = weights.create_model().apply(weights.variables, images)
    stages = WEIGHTS.create_model(features_only=True).apply(WEIGHTS.variables, images)
    np.testing.assert_allclose(ours, stages[-1].mean((1, 2)), rtol=1e-5, atol=1e-6)
    assert embed(weights, []).shape == (0, 8)
    pixels = [np.zeros((32, 32, 3), np.uint8)]
    np.testing.assert_allclose(embed(weights, pixels), embed(load_weights(saved(tmp_path, NET)), pixels), rtol=1e-6)


#: What other nets are called by their tensors.
FOREIGN = {
    "SE-ResNet": NET | {"layer1.0.se.fc1.weight": NUMBER, "layer1.0.se.fc2.weight": NUMBER},
    "ECA": NET | {"layer1.0.se.conv.weight": NUMBER},
    "CBAM": NET | {"ca.fc1.weight": NUMBER, "sa.conv1.weight": NUMBER},
    "Res2Net": NET | {"layer1.0.convs.0.weight": NUMBER},
    "ResNeSt": NET | {"layer1.0.conv2.fc1.weight": NUMBER, "layer1.0.conv2.bn0.weight": NUMBER},
    "ResNet-D": NET | {"layer2.0.downsample.2.weight": NUMBER},
    "ResNet-C or -D": {k.replace("conv1.weight", "conv1.0.weight", 1) if k == "conv1.weight" else k: v
                       for k, v in NET.items()} | {"conv1.3.weight": NUMBER},
    "blur pools": NET | {"layer2.0.downsample.filt": NUMBER},
    "instance norm": NET | {"layer1.0.bn1.IN.weight": NUMBER},
    "group norm": {k: v for k, v in NET.items() if "running" not in k},
    "CLIP": under("visual.", NET | {"attnpool.q_proj.weight": NUMBER}),
    "Vision Transformer": {"cls_token": NUMBER, "blocks.0.attn.qkv.weight": NUMBER, "patch_embed.proj.weight": NUMBER},
    "ConvNeXt": {"stages.0.blocks.0.conv_dw.weight": NUMBER, "stages.0.blocks.0.mlp.fc1.weight": NUMBER},
    "EfficientNet": {"conv_stem.weight": NUMBER, "blocks.0.0.conv_dw.weight": NUMBER},
    "DenseNet": {"features.conv0.weight": NUMBER, "features.denseblock1.denselayer1.conv1.weight": NUMBER},
    "detectron2": {"bottom_up.res2.0.conv1.norm.weight": NUMBER, "bottom_up.stem.conv1.weight": NUMBER},
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_other_nets_are_called_what_they_are(tmp_path, name):
    with pytest.raises(UserError, match=name) as error:
        convert(read_tensors(saved(tmp_path, FOREIGN[name])))
    assert "\n" not in str(error.value)


def test_nets_that_differ_without_a_tensor(tmp_path):
    with pytest.raises(UserError, match="is resnetaa50-4cf422b3.pth by its name: that net pools ahead of its strides"):
        convert(read_tensors(saved(tmp_path, NET, "resnetaa50-4cf422b3.pth")))
    bottlenecks = files_made.tensors_of("torchvision", "resnet50", **SMALL)
    assert convert(read_tensors(saved(tmp_path, bottlenecks, "r50.pth"))).weights.fields["stride_on"] == "3x3"
    caffe = convert(read_tensors(saved(tmp_path, bottlenecks, "resnet50_caffe-788b5fa3.pth")))
    assert caffe.weights.create_model().stride_on == "1x1"
    assert any("BGR" in note for note in caffe.notes)


def test_tensors_of_classes_that_are_not_read_are_said(tmp_path):
    quantised = {name: Stub("torch._utils._rebuild_qtensor", 1) for name in NET}
    with pytest.raises(UserError, match="holds no tensors but in objects .*_rebuild_qtensor"):
        read_tensors(saved(tmp_path, quantised))
    some = NET | {"layer1.0.conv1.weight": Stub("torch._utils._rebuild_sparse_tensor", 1)}
    with pytest.raises(UserError, match="_rebuild_sparse_tensor .*are not read"):
        convert(read_tensors(saved(tmp_path, some)))
    whole = Stub("torchvision.models.resnet.ResNet", 1)
    with pytest.raises(UserError, match="an object of torchvision.models.resnet.ResNet.*save the net's state dict"):
        read_tensors(saved(tmp_path, whole))


@pytest.mark.parametrize("channels, fits", [(1, True), (3, True), (2, False), (4, False), (12, False)])
def test_channels_of_images(channels, fits):
    tensors = files_made.made.state_dict(files_made.shapes_of("torchvision", "cifar_resnet20", channels, **SMALL))
    if fits:
        assert convert(files_made.file_of(tensors)).weights.channels == channels
    else:
        with pytest.raises(UserError, match=f"images of {channels} channels, and images here have 1 or 3"):
            convert(files_made.file_of(tensors))


def in_shards(folder, tensors, save, name):
    """Two files and their index, as the hub has them."""
    names = sorted(tensors)
    stem, suffix = name.split(".")
    parts = {f"{stem}-0000{k}-of-00002.{suffix}": names[k - 1 :: 2] for k in (1, 2)}
    for file, own in parts.items():
        save(folder / file, {key: tensors[key] for key in own})
    index = folder / f"{name}.index.json"
    places = {key: file for file, own in parts.items() for key in own}
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index, sorted(parts)


def safetensors_file(path, tensors):
    path.write_bytes(safetensors.numpy.save(tensors))


@pytest.mark.parametrize("save, name", [
    (safetensors_file, "model.safetensors"), (torch_made.save, "pytorch_model.bin")
])  # fmt: skip
def test_weights_in_several_files(tmp_path, save, name):
    index, parts = in_shards(tmp_path, NET, save, name)
    for path in (tmp_path, index, tmp_path / parts[1]):
        check(convert(read_tensors(path)))
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    assert load_weights(tmp_path).num_classes == 5  # no run, though it has a config.json
    (tmp_path / parts[1]).unlink()
    with pytest.raises(UserError, match=f"{index.name} names 2 files, of which {parts[1]} is not there"):
        read_tensors(tmp_path)
    index.unlink()
    with pytest.raises(UserError, match=f"one of several files: {index.name} must be beside it"):
        read_tensors(tmp_path / parts[0])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": "../x"}}', "\xff"])
def test_an_index_that_is_none(tmp_path, text):
    index = tmp_path / "model.safetensors.index.json"
    index.write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match="no index of weights|names no files"):
        read_tensors(index)


def test_a_sharded_checkpoint_of_fsdp_is_named(tmp_path):
    (tmp_path / ".metadata").write_bytes(b"\x80\x04.")
    (tmp_path / "__0_0.distcp").write_bytes(b"PK")
    with pytest.raises(UserError, match="sharded checkpoint of PyTorch's FSDP: .*dcp_to_torch"):
        read_tensors(tmp_path)


@pytest.mark.skipif(not CASES.is_dir(), reason="the reported cases are not here (../shared)")
@pytest.mark.parametrize("case", ["best_acc1_tensor", "fc_sequential", "lightning_loss", "no_head", "four_channels"])
def test_the_reported_cases(case):
    folder = CASES / f"weights_{case}"
    path = next(path for path in folder.iterdir() if path.name != "README")
    if case == "four_channels":
        with pytest.raises(UserError, match="takes images of 4 channels"):
            load_weights(path)
        return
    weights, control = load_weights(path), load_weights(CASES / "weights_base_ok" / "net.pth")
    assert (weights.model, weights.image_size) == (control.model, 32)
    assert weights.num_classes == (0 if case == "no_head" else 5)
    shapes = [jax.tree.map(np.shape, params_of(one)[0]) for one in (weights, control)]
    assert shapes[0] == shapes[1]
