"""Times a few training steps of a net and leaves nothing behind: `python -m experiments.time_steps < CONFIG`.

It is a process of its own, since one that has opened a device keeps it. The images need not be the data set's own, only
of its size: nothing is downloaded for an estimate.
"""

import json
import sys
import tempfile

from ml_collections import ConfigDict

from resnet_jax.cli.run_command import run_command
from resnet_jax.data.sources import BUILT_IN
from resnet_jax.errors import UserError

#: Sets whose images have the size of "synthetic"'s.
LIKE_SYNTHETIC = ("cifar10", "cifar100")


def shortened(config: ConfigDict, on_cpu: bool) -> ConfigDict:
    """Changes a config to a run of a few steps at the same batch, and returns it.

    Args:
      config: of the run whose speed is wanted.
      on_cpu: whether steps are dispatched one by one; elsewhere a dispatch has 100, and three dispatches are timed.

    Raises:
      UserError: for a set whose images are not at hand.
    """
    if config.data.name in LIKE_SYNTHETIC:
        config.data.name = "synthetic"
    elif config.data.name not in BUILT_IN:
        raise UserError(f"the speed on {config.data.name} can only be told from records")
    config.data.held_out = 0
    config.data.data_dir = None
    config.log_every = 2 if on_cpu else 100
    config.steps = config.eval_every = config.checkpoint_every = 3 * config.log_every
    return config


def main() -> int:
    """Prints one JSON object: steps, and images_per_second, their median without compilation."""

    def command() -> None:
        import jax

        from resnet_jax.config import from_dict
        from resnet_jax.training.loop import fit

        config = shortened(from_dict(json.load(sys.stdin)), jax.devices()[0].platform == "cpu")
        with tempfile.TemporaryDirectory() as folder:
            result = fit(config, folder)
        print(json.dumps({"steps": config.steps, "images_per_second": result.images_per_second}))

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
