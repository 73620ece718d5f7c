"""Times a few training steps of nets and leaves nothing behind."""

import tempfile
import time
from collections.abc import Iterable, Mapping

from ml_collections import ConfigDict

from experiments.estimate import Rates
from experiments.launchers.process import TrialProcess
from resnet_jax.config import to_dict
from resnet_jax.data.sources import BUILT_IN
from resnet_jax.training.run_record import RunRecord

#: Seconds that timing one net may take, with its compilation.
MEASURE_SECONDS = 180

#: Sets whose images have the size of "synthetic"'s: an estimate needs no others, and downloads nothing.
LIKE_SYNTHETIC = ("cifar10", "cifar100")


def measure(rates: Rates, configs: Iterable[ConfigDict], env: Mapping[str, str], on_cpu: bool) -> None:
    """Times a few steps of each net whose rate is not known, in a process of its own.

    Args:
      rates: where they are added; nothing is, if images are not at hand, or timing fails or takes too long.
      configs: of the nets.
      env: environment variables of the process besides this one's own, the same as a run's.
      on_cpu: whether steps are dispatched one by one; elsewhere a dispatch has 100, and three dispatches are timed.
    """
    for config in configs:
        if rates.seconds(config, 1) is not None or config.data.name not in (*BUILT_IN, *LIKE_SYNTHETIC):
            continue
        short = _shortened(config, on_cpu)
        with tempfile.TemporaryDirectory() as folder:
            process = TrialProcess({"folder": folder, "config": to_dict(short)}, env)
            try:
                end = time.monotonic() + MEASURE_SECONDS
                while process.poll() is None and time.monotonic() < end:
                    time.sleep(0.1)
            finally:
                process.kill()
            if (result := RunRecord(folder).result()) is not None:
                rates.add(config, result.images_per_second, f"{short.steps} steps, timed")


def _shortened(config: ConfigDict, on_cpu: bool) -> ConfigDict:
    """Returns the config of a run of a few steps at the same batch."""
    short = config.copy_and_resolve_references()
    if short.data.name in LIKE_SYNTHETIC:
        short.data.name = "synthetic"
    short.data.held_out = 0
    short.data.data_dir = None
    short.log_every = 2 if on_cpu else 100
    short.steps = short.eval_every = short.checkpoint_every = 3 * short.log_every
    return short
