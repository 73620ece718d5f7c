"""The values that a net's fields can have, and which of them go together."""

from typing import TYPE_CHECKING

from resnet_jax.errors import UserError, unknown_name
from resnet_jax.models.blocks import BLOCKS, ORDERS, stride_index
from resnet_jax.models.heads import HEADS
from resnet_jax.models.layers import INIT_MODES, PADDINGS, PRECISIONS
from resnet_jax.models.shortcuts import SHORTCUTS
from resnet_jax.models.strides import stem_stride

if TYPE_CHECKING:
    from resnet_jax.models.resnet import ResNet

STEMS = ("imagenet", "cifar")
STRIDE_ON = ("1x1", "3x3")
DRAWN_FOR = ("batch", "example")
ZEROS = ("sides", "end")
#: Shortcuts behind which a unit may have fewer channels than ahead of it.
CAN_NARROW = ("none", "B", "C", "conv1x1")


def check_fields(net: "ResNet") -> None:
    """Raises UserError for unknown values and for combinations that make no sense."""
    for field, known in (
        ("block", BLOCKS), ("stem", STEMS), ("shortcut", SHORTCUTS), ("activation", ORDERS),
        ("stride_on", STRIDE_ON), ("init_mode", INIT_MODES), ("shortcut_zeros", ZEROS), ("padding", PADDINGS),
        ("stochastic_depth_per", DRAWN_FOR), ("precision", PRECISIONS), ("head", HEADS),
    ):  # fmt: skip
        if getattr(net, field) not in known:
            raise unknown_name(field, str(getattr(net, field)), known)
    if len(net.stage_sizes) != len(net.widths) or not net.stage_sizes:
        raise UserError(
            f"stage_sizes {tuple(net.stage_sizes)} and widths {tuple(net.widths)} need one entry for each stage"
        )
    if min(*net.stage_sizes, *net.widths) < 1 or net.num_classes < 0:
        raise UserError("stage_sizes and widths must be 1 or more, and num_classes 1 or more, or 0 for no classifier")
    if not 0 <= net.norm_epsilon < 1:
        raise UserError(f"norm_epsilon={net.norm_epsilon} must be in [0, 1)")
    if net.bn_group_size < 0:
        raise UserError(f"bn_group_size={net.bn_group_size} must be 0 (the whole batch) or more")

    needs_identity = net.shortcut not in CAN_NARROW
    narrows = any(b < a for a, b in zip(net.widths, net.widths[1:], strict=False))
    if needs_identity and narrows:
        raise UserError(
            f"shortcut {net.shortcut!r} pads new channels with zeros and cannot narrow widths "
            f"{tuple(net.widths)}; use shortcut B or C"
        )
    if net.zero_init_last and (net.shortcut == "none" or ORDERS[net.activation].last != "bn"):
        # Behind a ReLU, which has no gradient at zero, a scale of zero would stay there.
        raise UserError(
            "zero_init_last needs a shortcut, and a batch norm at the end of the residual: not shortcut "
            f"{net.shortcut!r} with activation {net.activation!r}"
        )
    if net.stride_on == "3x3" and net.block != "bottleneck":
        raise UserError(f"stride_on='3x3' is for bottleneck blocks; block {net.block!r} strides in its first layer")
    if not net.stem_norm and not ORDERS[net.activation].before:
        raise UserError(f"stem_norm=False is for pre-activation, not for activation {net.activation!r}")
    for field, neutral, kinds in (
        ("shortcut_scale", 1.0, ("constant_scaling",)),
        ("residual_scale", 1.0, ("constant_scaling",)),
        ("gate_bias", 0.0, ("exclusive_gating", "shortcut_only_gating")),
        ("shortcut_dropout", 0.5, ("dropout",)),
    ):
        if getattr(net, field) != neutral and net.shortcut not in kinds:
            raise UserError(f"{field}={getattr(net, field)} is for shortcut {' or '.join(kinds)}, not {net.shortcut!r}")
    if not 0 <= net.stochastic_depth < 1:
        raise UserError(f"stochastic_depth={net.stochastic_depth} must be in [0, 1)")
    if net.stochastic_depth and net.shortcut == "none":
        raise UserError("stochastic_depth needs a shortcut: without its residual a plain unit passes nothing on")
    if net.pool_size is not None and net.pool_size < 1:
        raise UserError(f"pool_size={net.pool_size} must be 1 or more")
    if net.pool_size is not None and net.head != "classifier":
        raise UserError(f"pool_size={net.pool_size} is for nets that classify, not for head {net.head!r}")
    possible = [stem_stride(net) * 2**i for i in range(len(net.stage_sizes))]
    if net.output_stride not in (None, *possible):
        raise UserError(f"output_stride={net.output_stride} is none of this net's: {', '.join(map(str, possible))}")
    strided = BLOCKS[net.block][stride_index(net.block, net.stride_on)]
    if net.padding == "same" and strided[0] > 1 and (net.output_stride or possible[-1]) < possible[-1]:
        raise UserError(
            f"output_stride={net.output_stride} is not for padding='same', by which {strided[0]}x{strided[0]} kernels "
            "lie elsewhere where they stride: the same weights would give other values"
        )
    if net.scan and (net.stochastic_depth or net.unit_dropout or net.shortcut == "dropout"):
        raise UserError(
            "scan is for units that are alike and draw nothing: not with stochastic_depth, unit_dropout or "
            "shortcut 'dropout'"
        )
    if net.head == "classifier" and (net.aux_head or net.head_width is not None):
        raise UserError("aux_head and head_width are for nets that segment: head=fcn or deeplabv3")
    if net.head_width is not None and net.head_width < 1:
        raise UserError(f"head_width={net.head_width} must be 1 or more")
    if net.aux_head and len(net.stage_sizes) < 2:
        raise UserError("aux_head is on the last stage but one, and this net has one stage")
    _check_unit_fields(net)
    if not 0 <= net.shortcut_dropout < 1:
        raise UserError(f"shortcut_dropout={net.shortcut_dropout} must be in [0, 1)")


def _check_unit_fields(net: "ResNet") -> None:
    """Raises UserError for fields of the wider nets that the block cannot have."""
    if min(net.groups, net.width_per_group, 1 if net.stem_width is None else net.stem_width) < 1:
        raise UserError("groups, width_per_group and stem_width must be 1 or more")
    if (net.groups, net.width_per_group) != (1, 64) and net.block != "bottleneck":
        raise UserError(
            f"groups={net.groups} and width_per_group={net.width_per_group} are for bottleneck blocks, "
            f"not {net.block!r}"
        )
    for width in net.widths:
        if net.width_per_group != 64 and width * net.width_per_group % 64:
            raise UserError(f"width_per_group={net.width_per_group} gives width {width} no whole number of features")
    features = net.widths[0] * BLOCKS[net.block][-1][1]
    if net.stem_width and net.stem_width > features and net.shortcut not in CAN_NARROW:
        raise UserError(
            f"shortcut {net.shortcut!r} pads new channels with zeros and cannot narrow stem_width={net.stem_width} to "
            f"{features}; use shortcut B or C"
        )
    if not 0 <= net.unit_dropout < 1:
        raise UserError(f"unit_dropout={net.unit_dropout} must be in [0, 1)")
    if net.unit_dropout and net.block != "basic":
        raise UserError(f"unit_dropout={net.unit_dropout} is for basic blocks, not {net.block!r}")
