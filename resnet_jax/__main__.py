"""Runs `python -m resnet_jax VERB`.

JAX is imported by the verbs that need it, so that help and mistakes are answered at once.
"""

import importlib
import sys
from collections.abc import Sequence

VERBS = {
    "train": "train a net as a config says",
    "prepare": "write ImageNet as files that training reads fast",
    "evaluate": "score the newest checkpoint of a run, or weights",
    "predict": "name the classes that a trained net sees in images, and show where",
    "convert": "convert weights of PyTorch, timm, transformers or Flax to this package's format",
    "export": "write weights, or those of a run, for other programs",
    "analyze": "draw layer responses, gradient norms, loss surface and lesions of trained runs",
    "compile": "compile a config's steps for TPUs or GPUs that are not there, and say what they will take",
    "summary": "print layers, depth, parameters and multiply-adds of a net; --list names all",
}

USAGE = "usage: python -m resnet_jax VERB [...]; VERB --help says more\n\n" + "\n".join(
    f"  {verb:10s}{text}" for verb, text in VERBS.items()
)


def main(arguments: Sequence[str]) -> int:
    """Runs a verb and returns its exit status; see `cli.run_command`."""
    from resnet_jax.cli.run_command import MISTAKE, run_command
    from resnet_jax.errors import unknown_name

    verb, *rest = arguments or [""]

    def command() -> None:
        if verb in ("", "--help", "-h", "help"):
            print(USAGE)
        elif verb not in VERBS:
            raise unknown_name("verb", verb, VERBS)
        else:
            importlib.import_module(f"resnet_jax.cli.{verb}").main(rest)

    return run_command(command) or (0 if arguments else MISTAKE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
