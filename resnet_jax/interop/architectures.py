"""Tells which other nets there are, by names of tensors and of files, so that an error can say what a file is."""

import re
from collections.abc import Iterable

#: A net by names of its tensors: the pattern is searched in each. The first that is found is what is said.
BY_TENSORS: tuple[tuple[str, str], ...] = (
    ("CLIP's ResNet, with three convolutions in its stem and an attention pool", r"(^|\.)attnpool\."),
    ("a quantised net, and only floating-point weights are read", r"\.(zero_point|_packed_params)($|\.)"),
    ("a ResNeSt, with split attention", r"\.conv2\.(bn0|fc1|bn1|fc2)\.(weight|bias)|\.radix"),
    ("a Res2Net, with a hierarchy of convolutions in each unit", r"layer\d+\.\d+\.convs\.\d+\."),
    ("an SK-ResNet, with selective kernels", r"\.conv\d\.(paths|attn)\."),
    ("an ECA-ResNet, with channel attention", r"layer\d+\.\d+\.(se|eca)\.conv\."),
    ("an SE-ResNet, with squeeze-and-excitation", r"(^|\.)(se|se_module|se_layer)\.|layer\d+\.\d+\.fc\d?\."),
    ("a ResNet with CBAM's attention", r"(^|\.)(ca|sa|cbam|channel_attention|spatial_attention)\d?\."),
    ("an IBN-Net, with instance norm", r"\.(IN|BN)\.weight"),
    ("an anti-aliased ResNet, with blur pools", r"\.(filt|blur|aa)($|\.)"),
    ("a ResNet-D, whose shortcuts pool ahead of their convolution", r"layer\d+\.0\.downsample\.2\."),
    ("a ResNet-C or -D, with three convolutions in its stem", r"(^|\.)(conv1\.[036]|stem\.[036]|conv1_1)\.weight"),
    ("a BiT ResNet, with group norm and standardised weights", r"(^|\.)(root\.conv|block\d\.unit\d\d)"),
    ("detectron2's ResNet", r"(^|\.)res2\.0\.conv1\.norm\."),
    ("Caffe's or the MSRA's ResNet", r"(^|\.)res2(_0|a)_branch"),
    ("a RegNet", r"trunk_output\.|(^|\.)s1\.b1\.conv1"),
    ("a Swin Transformer", r"relative_position_bias_table"),
    ("an EfficientNet or a MobileNet", r"(^|\.)(_?conv_stem|conv_pwl?)\.|features\.1\.(0\.block|conv)\."),
    ("a ConvNeXt", r"(\.|^)(dwconv|conv_dw|pwconv1)\..*|downsample_layers\."),
    ("a Vision Transformer", r"cls_token|pos_embed|position_embeddings|\.attn\.qkv"),
    ("a DenseNet", r"denseblock1\."),
    ("an Inception net", r"Mixed_5b|inception3a"),
    ("a VGG with batch norm, which no net here has", r"(^|\.)features\.1\.running_mean"),
    ("an AlexNet, a SqueezeNet, or a VGG of other layers than VGG-16 and VGG-19",
     r"(^|\.)features\.0\.(weight|bias)"),
)  # fmt: skip

#: A net by what files and configs call it, where its tensors are those of a plain ResNet.
BY_NAME = re.compile(r"(?:^|[^a-z])(?:se|eca)?res(?:net|next)(?:v2_?)?(?:aa|blur)\d+|antialias", re.IGNORECASE)

#: Says that a bottleneck strides in its first convolution, by what files are called.
CAFFE = re.compile(r"(^|[^a-z])(caffe2?|msra)([^a-z]|$)", re.IGNORECASE)

#: Says that a detector adds nothing to the variances of batch norm: torchvision published such ones in 2019.
NO_EPSILON = re.compile(r"(fasterrcnn|maskrcnn|keypointrcnn)_resnet50_fpn_coco")

#: Says that a net may pad as TensorFlow does.
TENSORFLOW = re.compile(r"(^|[^a-z])(tf|tensorflow|keras)([^a-z]|$)", re.IGNORECASE)

#: Options of timm's nets that change what they compute and have no tensors.
TIMM_OPTIONS = (
    "aa_layer", "act_layer", "avg_down", "block_args", "norm_layer", "output_stride", "replace_stem_pool", "stem_type",
    "down_kernel_size", "block_reduce_first",
)  # fmt: skip


def named_by_tensors(names: Iterable[str]) -> str:
    """Returns what to add to an error: which other net these tensors are of. Empty if nobody knows."""
    joined = "\n".join(names)
    found = next((what for what, pattern in BY_TENSORS if re.search(pattern, joined, re.MULTILINE)), None)
    return f"; it looks like {found}" if found else ""


def pools_before_strides(name: str) -> bool:
    """Returns whether a net of this name pools ahead of its strides: that adds no tensor to a plain ResNet's."""
    return bool(BY_NAME.search(name))
