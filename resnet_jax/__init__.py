"""Residual nets in JAX: reproduces the two papers of He et al. (2015, 2016), and is made to be built on.

    import resnet_jax
    model = resnet_jax.create_model("resnet50")

Names are imported at first use: `import resnet_jax` alone does not import JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnet_jax.analysis.cam import grad_cam as grad_cam
    from resnet_jax.config import base_config as base_config
    from resnet_jax.errors import UserError as UserError
    from resnet_jax.evaluation.predict import classes_of as classes_of
    from resnet_jax.evaluation.predict import embed as embed
    from resnet_jax.evaluation.predict import predict as predict
    from resnet_jax.evaluation.predict import prepare_image as prepare_image
    from resnet_jax.evaluation.single_view import evaluate as evaluate
    from resnet_jax.interop.programs import export_onnx as export_onnx
    from resnet_jax.interop.programs import export_stablehlo as export_stablehlo
    from resnet_jax.interop.weights import Weights as Weights
    from resnet_jax.interop.weights import save_weights as save_weights
    from resnet_jax.models.features import feature_info as feature_info
    from resnet_jax.models.features import forward_with_features as forward_with_features
    from resnet_jax.models.registry import create_model as create_model
    from resnet_jax.models.registry import list_models as list_models
    from resnet_jax.models.summary import summarize as summarize
    from resnet_jax.training.load_weights import load_weights as load_weights
    from resnet_jax.training.loop import fit as fit
    from resnet_jax.training.result import Result as Result

_HOMES = {
    "Result": "training.result",
    "UserError": "errors",
    "Weights": "interop.weights",
    "base_config": "config",
    "classes_of": "evaluation.predict",
    "create_model": "models.registry",
    "embed": "evaluation.predict",
    "evaluate": "evaluation.single_view",
    "export_onnx": "interop.programs",
    "export_stablehlo": "interop.programs",
    "feature_info": "models.features",
    "fit": "training.loop",
    "forward_with_features": "models.features",
    "grad_cam": "analysis.cam",
    "list_models": "models.registry",
    "load_weights": "training.load_weights",
    "predict": "evaluation.predict",
    "prepare_image": "evaluation.predict",
    "save_weights": "interop.weights",
    "summarize": "models.summary",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'resnet_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"resnet_jax.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
