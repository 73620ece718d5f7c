"""The nets of both papers."""

from resnet_jax.models.features import FeatureInfo, feature_info, forward_with_embeddings, forward_with_features
from resnet_jax.models.registry import VARIANTS, Variant, create_model, get_variant, list_models
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.vgg import VGG

__all__ = [
    "VARIANTS",
    "VGG",
    "FeatureInfo",
    "ResNet",
    "Variant",
    "create_model",
    "feature_info",
    "forward_with_embeddings",
    "forward_with_features",
    "get_variant",
    "list_models",
]
