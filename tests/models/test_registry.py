"""The table of named nets: published counts, depth in the name, and one contract that every net keeps."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest
from flax import traverse_util

from resnet_jax.errors import UserError
from resnet_jax.models import VARIANTS, create_model, get_variant, list_models
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.summary import summarize, variant_summary

# Names that the design promises.
PROMISED = """
    resnet18 resnet34 resnet50 resnet101 resnet152 plain18 plain34 resnet34_A resnet34_B resnet34_C
    preact_resnet18 preact_resnet34 preact_resnet50 preact_resnet101 preact_resnet152 preact_resnet200
    cifar_resnet20 cifar_resnet32 cifar_resnet44 cifar_resnet56 cifar_resnet110 cifar_resnet1202
    cifar_plain20 cifar_plain32 cifar_plain44 cifar_plain56 cifar_plain110
    cifar_preact_resnet110 cifar_preact_resnet164 cifar_preact_resnet1001 vgg16 vgg19
    resnext50_32x4d resnext101_32x8d wide_resnet50_2 wide_resnet101_2 cifar_wrn28_10
""".split()

# torchvision (resnet18 to 152, resnext, wide_resnet, vgg16, vgg19), akamaster/pytorch_resnet_cifar10 (option A),
# osmr/imgclsmob (the bottleneck nets and WRN-28-10 for CIFAR).
PUBLISHED_COUNTS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet34_B": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "cifar_wrn28_10": 36_479_194,
    "vgg16": 138_357_544,
    "fcn_resnet50": 35_322_218,  # this and the next three as torchvision's pages have them
    "fcn_resnet101": 54_314_346,
    "deeplabv3_resnet50": 42_004_074,
    "deeplabv3_resnet101": 60_996_202,
    # torchvision's page has 41,755,286: without batch norm's scale and shift, which are frozen there.
    "faster_rcnn_fpn_resnet50": 41_755_286 + 53_120,
    "vgg19": 143_667_240,
    "cifar_resnet20": 269_722,
    "cifar_resnet32": 464_154,
    "cifar_resnet44": 658_586,
    "cifar_resnet56": 853_018,
    "cifar_resnet110": 1_727_962,
    "cifar_resnet1202": 19_421_274,
    "cifar_resnet164": 1_704_154,
    "cifar_resnet1001": 10_328_602,
    "cifar_preact_resnet164": 1_703_258,
    "cifar_preact_resnet1001": 10_327_706,
}


def small_side(name):
    """The smallest images that keep every net's last feature map at 1x1 or more."""
    return 8 if name.startswith("cifar") else 32


@functools.cache
def forward(name):
    """Shapes alone: (variables, logits in testing, logits in training), and the statistics that training leaves.

    Nets above 60 layers with two units a stage: tracing one unit 400 times takes long and proves no more; their
    `variant_summary` is a whole forward pass.
    """
    deep = {"stage_sizes": (2,) * len(VARIANTS[name].fields["stage_sizes"])} if variant_summary(name).depth > 60 else {}
    model, side = create_model(name, **deep), small_side(name)
    untouched = []

    def run(key, images):
        logits, variables = model.init_with_output(key, images, train=False)
        trained, changed = model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})
        before, after = (traverse_util.flatten_dict(v.get("batch_stats", {}), sep="/") for v in (variables, changed))
        assert before.keys() == after.keys()
        # Flax hands back every mutable variable: one that nothing assigned is the very same traced value.
        untouched.extend(path for path in before if after[path] is before[path])
        return variables, logits, trained

    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    return *jax.eval_shape(run, jax.random.key(0), images), untouched


@pytest.mark.parametrize("name", PROMISED)
def test_promised_name_exists(name):
    assert name in list_models()


def test_no_net_is_listed_under_two_names():
    """The one alias is resnet34, which the papers also call resnet34 B."""
    rows = [(name, v.net, sorted(v.fields.items())) for name, v in VARIANTS.items()]
    same = {(a[0], b[0]) for i, a in enumerate(rows) for b in rows[i + 1 :] if a[1:] == b[1:]}
    assert same == {("resnet34", "resnet34_B")}
    assert len(set(list_models())) == len(list_models())


@pytest.mark.parametrize(("name", "count"), PUBLISHED_COUNTS.items())
def test_parameter_count_is_the_published_one(name, count):
    assert variant_summary(name).params == count


@pytest.mark.parametrize("name", ["resnet18", "cifar_resnet20", "preact_resnet50", "vgg16"])
def test_summary_counts_every_parameter_once(name):
    variables = forward(name)[0]
    at_same_size = summarize(create_model(name), name, small_side(name))
    assert at_same_size.params == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("name", list_models("classification"))
def test_depth_is_the_number_in_the_name(name):
    shortcuts = 2 if "wrn" in name else 0  # that paper counts 6n+4 for 6n+2 weighted layers in sequence
    assert variant_summary(name).depth == int(re.search(r"\d+", name)[0]) - shortcuts


@pytest.mark.parametrize(
    ("plain", "residual"),
    [(f"cifar_plain{d}", f"cifar_resnet{d}") for d in (20, 32, 44, 56, 110)]
    + [("plain18", "resnet18_A"), ("plain34", "resnet34_A")],
)
def test_plain_net_has_exactly_its_residual_twins_parameters(plain, residual):
    """Identity shortcuts are free (2015, section 3.2), so the comparison of both is of equal nets."""
    assert variant_summary(plain).params == variant_summary(residual).params
    assert variant_summary(plain).layers == variant_summary(residual).layers, (
        "the same layers: names, shapes and multiply-adds"
    )


@pytest.mark.parametrize("name", list_models("classification"))
def test_forward_gives_float32_logits(name):
    """One contract over every registered net, at a small image and a batch of two."""
    classes = 10 if name.startswith("cifar") else 1000
    _, tested, trained, _ = forward(name)
    assert variant_summary(name).layers[-1].output == (classes,)
    assert tested.shape == trained.shape == (2, classes)
    assert tested.dtype == trained.dtype == jnp.float32


@pytest.mark.parametrize("name", list_models())
def test_every_variable_is_float32(name):
    if get_variant(name).task == "detection":
        net = create_model(name)
        variables = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 128, 128, 3)), train=False))
    else:
        variables = forward(name)[0]
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", [n for n in list_models() if VARIANTS[n].net is ResNet])
def test_training_changes_all_batch_statistics(name):
    variables, _, _, untouched = forward(name)
    scales = [path for path in traverse_util.flatten_dict(variables["params"]) if path[-1] == "scale"]
    statistics = traverse_util.flatten_dict(variables["batch_stats"])
    # One mean and one variance beside each scale.
    assert {path[:-1] + (kind,) for path in scales for kind in ("mean", "var")} == set(statistics)
    assert len(scales) > 0
    assert untouched == []


@pytest.mark.parametrize("name", list_models())
def test_row_states_image_size_and_source(name):
    variant = get_variant(name)
    small, photographs = {"classification": (32, 224), "segmentation": (32, 520), "detection": (128, 600)}[variant.task]
    photographs = 800 if "fpn" in name else photographs
    assert variant.image_size == (small if "cifar" in name else photographs)
    assert "20" in variant.source


@pytest.mark.parametrize(
    ("name", "nearest"), [("resnet5", "resnet50"), ("cifar_resnet21", "cifar_resnet20"), ("vgg-16", "vgg16")]
)
def test_unknown_name_error_gives_the_nearest(name, nearest):
    with pytest.raises(UserError) as error:
        create_model(name)
    assert repr(name) in str(error.value)
    assert nearest in str(error.value)
    assert "\n" not in str(error.value), "the command line prints it as one line"


def test_unknown_name_without_any_near_gives_the_whole_list():
    with pytest.raises(UserError) as error:
        get_variant("zzzz")
    assert all(name in str(error.value) for name in list_models())


@pytest.mark.parametrize(("name", "field"), [("resnet18", "with_bias"), ("vgg16", "shortcut"), ("resnet18", "parent")])
def test_unknown_override_is_named_with_the_fields_there_are(name, field):
    with pytest.raises(UserError, match=rf"{name} has no field '{field}'.*stage_sizes.*num_classes"):
        create_model(name, **{field: 1})


def test_override_replaces_only_its_field():
    model = create_model("cifar_resnet20", shortcut="C", num_classes=7)
    assert (model.shortcut, model.num_classes, tuple(model.widths)) == ("C", 7, (16, 32, 64))
    assert VARIANTS["cifar_resnet20"].fields["shortcut"] == "A", "the table itself must not change"
