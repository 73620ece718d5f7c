"""What `fit` refuses: damaged records, configs that cannot run, folders that it cannot have."""

import pytest

from resnet_jax.errors import UserError
from resnet_jax.training.loop import fit
from resnet_jax.training.run_folder import RunFolder


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("result.json", "{", "cannot read .*result.json"),
        ("result.json", "[]", "result.json is damaged"),
        ("config.json", "[]", "config.json is damaged"),
        ("config.json", '{"steps": "many"}', "config.json is damaged: .*steps"),
        ("metrics.jsonl", '{"step": 1}\nx\n{"step": 2}\n', "line 2 of .*metrics.jsonl is damaged"),
        ("metrics.jsonl", '{"loss": 1}\n', "line 1 of .*metrics.jsonl is damaged"),
    ],
)
def test_damaged_records_are_said(tiny_config, tmp_path, file, content, message):
    fit(tiny_config(), tmp_path / "run")
    (tmp_path / "run" / file).write_text(content)
    if file == "metrics.jsonl":
        (tmp_path / "run/result.json").unlink()
    with pytest.raises(UserError, match=message):
        fit(tiny_config(), tmp_path / "run")


def test_checkpoints_without_a_config_are_not_adopted(tiny_config, tmp_path):
    fit(tiny_config(), tmp_path / "run")
    for file in ("config.json", "result.json"):
        (tmp_path / "run" / file).unlink()
    with pytest.raises(UserError, match="checkpoints but no config.json"):
        fit(tiny_config(seed=5), tmp_path / "run")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 12}, "batch_size=12 is not divisible by the 8 devices; 8 or 16"),
        ({"steps": 0}, "steps=0 must be 1 or more"),
        ({"steps": -5}, "steps=-5 must be 1 or more"),
        ({"seed": -1}, "seed=-1"),
        ({"model__name": "cifar_resnet21"}, "unknown net 'cifar_resnet21'; did you mean .*cifar_resnet20"),
        ({"model__shortcut": "D"}, "unknown shortcut 'D'"),
        ({"model__widths": (16, 8, 8)}, "cannot narrow"),
        ({"model__bn_group_size": 5}, "bn_group_size=5 does not divide"),
        ({"seed": 2**32}, "seed=4294967296 must be below"),
        ({"model__widths": (4.5, 8, 8)}, "widths=.* whole numbers"),
        ({"model__stage_sizes": ("a", 1, 1)}, "stage_sizes=.* whole numbers"),
        ({"schedule__boundaries": ("a",)}, "fractions"),
        ({"schedule__warmup_error": float("nan")}, "warmup_error=nan must be a finite number"),
        ({"data__padding": 100}, "padding=100 is more than"),
        ({"accumulate": 3}, "accumulate=3 does not divide"),
        ({"accumulate": 4}, "micro-batches of 4 is not divisible by the 8 devices"),
        ({"accumulate": 2, "model__bn_group_size": 16}, "bn_group_size=16 does not divide"),
        ({"optimizer__name": "adam"}, "optimizer.name='adam' must be one of sgd, lars"),
        ({"model__dropout": 0.5}, "has no field 'dropout'"),
        ({"data__name": "cifar11"}, "unknown dataset 'cifar11'; did you mean cifar10"),
        ({"data__normalization": "imagenet"}, "RGB"),
        ({"data__held_out": 5000}, "held_out=5000"),
        ({"data__data_dir": "/tmp"}, "data_dir=/tmp is not for digits"),
        ({"dtype": "float16"}, "dtype='float16' must be one of float32, bfloat16"),
        ({"precision": "double"}, "precision='double' must be one of default, high, highest"),
        ({"schedule__boundaries": (32000, 48000)}, "fractions"),
        ({"schedule__warmup": "cosine"}, "none, steps, error, linear"),
        ({"profile_steps": (5, 2)}, r"profile_steps=\(5, 2\) must be the first and the last step"),
        ({"profile_steps": (3,)}, "profile_steps="),
        ({"on_nan": "pray"}, "on_nan='pray' must be one of stop, rollback"),
        ({"loss_jump": -1.0}, "loss_jump=-1.0 must be 0 or more"),
    ],
)
def test_bad_configs_are_refused_before_anything_is_written(tiny_config, tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        fit(tiny_config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unwritable_workdir(tiny_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to workdir"):
        fit(tiny_config(), tmp_path / "file/run")


def test_a_folder_in_use_is_refused(tiny_config, tmp_path):
    other = RunFolder(tmp_path / "run")
    other.open(tiny_config())
    with pytest.raises(UserError, match="another process trains in workdir"):
        fit(tiny_config(), tmp_path / "run")
    other.close()
    assert fit(tiny_config(), tmp_path / "run").steps == 6
