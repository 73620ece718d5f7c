"""`prepare`: writes ImageNet, from any of its usual forms, as sharded files that training reads at random."""

import os
import sys
from collections.abc import Sequence

from resnet_jax.cli.flags import parse, verb_flags
from resnet_jax.errors import UserError, counted, printable

USAGE = (
    "prepare imagenet --source=DIR --out=DIR [--shorter_side=256 --quality=90], or prepare imagenet --out=DIR --verify"
)


def main(arguments: Sequence[str]) -> None:
    """Prepares with progress on stderr, and prints a summary of each split."""
    values = verb_flags(
        ("string", "source", None, "folder of the original tars, of train/ and val/, or of TFDS"),
        ("string", "out", None, "the directory to write; the same command continues an unfinished one"),
        ("integer", "shorter_side", 0, "shrink to it, in pixels; 0: original bytes"),
        ("integer", "quality", 90, "of JPEGs that are shrunk, 1 to 100"),
        ("integer", "images_per_shard", 5000, "images in one file"),
        ("integer", "workers", 0, "processes; 0: one for each core"),
        ("string", "val_labels", None, "text or CSV file with the WordNet id of each validation image (docs/data.md)"),
        ("bool", "allow_partial", False, "accept fewer images and classes than ImageNet's"),
        ("bool", "verify", False, "only compare checksums of what is there"),
    )
    names = parse(values, USAGE, arguments)
    if names != ["imagenet"] or not values.out or not (values.source or values.verify):
        raise UserError(f"prepare needs `imagenet`, --source and --out; usage: {USAGE}")
    for flag, least, most in (("shorter_side", 0, 10_000), ("quality", 1, 100), ("images_per_shard", 1, 10**7),
                              ("workers", 0, 1024)):  # fmt: skip
        if not least <= getattr(values, flag) <= most:
            raise UserError(f"--{flag}={getattr(values, flag)} must be from {least:,} to {most:,}")

    from resnet_jax.cli.progress_bar import progress_bar
    from resnet_jax.data.imagenet.originals import open_originals
    from resnet_jax.data.imagenet.prepare import Recipe, prepare, verify

    if values.verify:
        print(f"{counted(verify(values.out), 'shard')} in {values.out}: as written")
        return
    splits = open_originals(values.source, values.val_labels, values.allow_partial)
    recipe = Recipe(values.shorter_side, values.quality, values.images_per_shard)
    with progress_bar("preparing") as report:
        manifests = prepare(splits, values.out, recipe, values.workers or os.cpu_count() or 1, report)
    for split, manifest in manifests.items():
        size = sum(shard["bytes"] for shard in manifest["shards"])
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in manifest["counts"].items())
        print(
            f"{split}: {counted(manifest['examples'], 'image')} ({kinds}) in "
            f"{counted(len(manifest['shards']), 'shard')}, {size / 1e9:.2f} GB; {len(manifest['skipped']):,} skipped"
        )
        for name, why in manifest["skipped"]:
            print(printable(f"skipped {split} {name}: {why}"), file=sys.stderr)
