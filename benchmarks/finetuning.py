"""Compares fine-tuning from CIFAR-10 on few digits with training from scratch, at equal steps.

    python -m benchmarks finetuning --weights=CIFAR10_RESNET20 --write

Of scikit-learn's 1,437 training digits, a tenth of each class is trained on (about 14 images), at 32x32 pixels in three
channels, and the rest evaluated on; the test set is not used. Every way has the same steps, batches and schedule.
"""

import statistics
import tempfile
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from benchmarks import note
from benchmarks.docs_tables import table
from configs.finetune import get_config
from resnet_jax.training.loop import fit

#: Fields of a run from random parameters.
SCRATCH = {
    "init_from": None,
    "model.name": "cifar_resnet20",
    "data.normalization": "imagenet",
    "data.image_size": 32,
}

#: The ways that are compared: names and fields.
WAYS: dict[str, Mapping[str, Any]] = {
    "from scratch, rate 0.01": SCRATCH,
    "from scratch, rate 0.1": SCRATCH | {"optimizer.learning_rate": 0.1},
    "fine-tuned, rate 0.01": {},
    "fine-tuned, `layer_decay=0.7`": {"finetune.layer_decay": 0.7},
    "fine-tuned, `frozen=stem,stage1`": {"finetune.frozen": "stem,stage1"},
    "linear probe, rate 0.1": {"finetune.linear_probe": True, "optimizer.learning_rate": 0.1},
}


def config_of(weights: str, steps: int, seed: int, **fields: Any) -> ConfigDict:
    """Returns the config of `configs/finetune.py` on a tenth of the digits."""
    config = get_config()
    config.init_from, config.steps, config.seed = weights, steps, seed
    config.data.update({"name": "digits", "resize": 32, "flip": False, "padding": 4})
    config.data.update({"eval_split": "held_out", "held_out_share": 0.9})
    config.eval_every = config.checkpoint_every = steps
    config.log_every = max(1, steps // 10)
    config.update_from_flattened_dict(fields)
    return config


def measure(weights: str, steps: int, seeds: int) -> dict[str, Any]:
    """Returns `steps`, and by way under `errors` the held-out error in percent of each seed.

    Args:
      weights: a net trained on CIFAR-10.
      steps, seeds: of each run, and how many.
    """
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for seed in range(seeds):
        for name, fields in WAYS.items():
            with tempfile.TemporaryDirectory() as folder:
                result = fit(config_of(weights, steps, seed, **fields), folder)
            found[name].append(result.metrics["test_error"])
            note(f"{name}, seed {seed}: {result.metrics['test_error']:.2f} %, {result.seconds:.0f} s")
    return {"steps": steps, "errors": found}


def report(found: Mapping[str, Any]) -> str:
    """Returns the table."""
    rows = []
    for name, errors in found["errors"].items():
        spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
        rows.append([name, f"{len(errors)}", f"{statistics.mean(errors):.2f}{spread}"])
    return table([f"ResNet-20, {found['steps']} steps of 32 images", "seeds", "held-out error (%)"], rows)
