"""Streamed runs tested by every protocol: scores against NumPy and Pillow, files, ensembles, experiments."""

import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from benchmarks.local_processes import Job
from experiments import registry
from experiments.experiment import asked_metric, row_config, run_folder, runnable
from experiments.run_index import index_runs
from experiments.scores import paper_protocols, run_errors
from experiments.tables import fill as fill_table
from resnet_jax.__main__ import main
from resnet_jax.config import config_hash
from resnet_jax.errors import UserError
from resnet_jax.evaluation import protocols
from resnet_jax.evaluation.evaluate_runs import evaluate_runs as run_test
from resnet_jax.evaluation.evaluation_files import write_evaluation
from resnet_jax.evaluation.open_run import open_run
from resnet_jax.evaluation.photographs import PIXELS, batches_of, score_photographs
from resnet_jax.evaluation.predict import predict
from resnet_jax.evaluation.scoring import jitted_forward
from resnet_jax.evaluation.single_view import evaluate
from resnet_jax.evaluation.statistics import from_training_images, recompute_statistics
from resnet_jax.interop.weights import save_weights
from resnet_jax.training.distributed import make_mesh
from resnet_jax.training.load_weights import load_weights
from resnet_jax.training.loop import fit
from resnet_jax.training.trainer import make_trainer
from tests.data.imagenet.conftest import SAMPLE, WNIDS, fill, picture
from tests.data.imagenet.test_streaming import config_of, loader_of
from tests.evaluation.tiny_net import TinyNet, numpy_scores
from tests.experiments.fakes import write_run

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

#: Of images made here: proportions that stay, that are rounded, and that are too wide to be shown whole.
SIZES = [(60, 80), (80, 60), (60, 80), (70, 70), (50, 73), (60, 81), (20, 90)]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module", params=["made", "real"])
def shown(request, tmp_path_factory):
    """A folder of lossless images, so that nothing is left to decoders, and their pixels in order."""
    if request.param == "real" and not SAMPLE.is_dir():
        pytest.skip("shared/data/imagenet_sample is not there")
    if request.param == "real":
        pixels = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(SAMPLE.glob("val/*/*"))[:6]]
    else:
        pixels = [np.asarray(Image.open(io.BytesIO(picture(i, size)))) for i, size in enumerate(SIZES)]
    files = {f"val/{WNIDS[i % 3]}/{i}.png": png(one) for i, one in enumerate(pixels)}
    files |= {f"train/{wnid}/0.JPEG": picture(0) for wnid in WNIDS}
    folder = fill(tmp_path_factory.mktemp(request.param), files)
    order = sorted(range(len(pixels)), key=lambda i: (WNIDS[i % 3], f"{i}.png"))
    return folder, [pixels[i] for i in order], [i % 3 for i in order]


def resized(pixels, height, width):
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def by_shorter_side(pixels, side):
    height, width = pixels.shape[:2]
    scale = side / min(height, width)
    return resized(pixels, *(side if a == min(height, width) else int(a * scale + 1e-9) for a in (height, width)))


def expected(pixels, name):
    """Views of an image, by the definition of the protocol, with sizes as in `found` below."""
    if name == "multi_scale":
        height, width = pixels.shape[:2]
        if width > 3 * height:
            pixels = pixels[:, (width - 3 * height) // 2 :][:, : 3 * height]
        parts = round(12 * pixels.shape[1] / height) if width > height else round(12 * height / width)
        views = []
        for side in (40, 56):
            long = side * parts // 12
            views.append(resized(pixels, *((side, long) if height <= width else (long, side))))
    else:
        crop, whole = (320, by_shorter_side(pixels, 320)) if name == "crop320" else (48, by_shorter_side(pixels, 56))
        bottom, right = whole.shape[0] - crop, whole.shape[1] - crop
        corners = [(bottom // 2, right // 2)]
        if name == "ten_crop":
            corners += [(0, 0), (0, right), (bottom, 0), (bottom, right)]
        views = [whole[y : y + crop, x : x + crop] for y, x in corners]
    mirrored = [view[:, ::-1] for view in views] if name in ("ten_crop", "multi_scale") else []
    return [(view / 255 - MEAN) / STD for view in (*views, *mirrored)]


def protocol_of(name):
    return protocols.choose_for_photographs(name, crop=48, side=56, scales=(40, 56) if name == "multi_scale" else ())


@pytest.fixture(scope="module")
def variables():
    model = TinyNet()
    return jax.tree.map(lambda v: 3 * v, model.init(jax.random.key(1), jnp.zeros((1, 8, 8, 3))))


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("name", ["centre_crop", "ten_crop", "crop320", "multi_scale"])
def test_scores_are_those_of_numpy_and_pillow(shown, variables, name, devices):
    if devices == 2 and name != "multi_scale":
        return
    folder, images, labels = shown
    trainer = make_trainer(config_of(folder, data__normalization="imagenet"), jax.devices()[:devices])
    told = []
    found = score_photographs(
        protocol_of(name), jitted_forward(TinyNet(), trainer.mesh), variables, trainer.pipeline, trainer.mesh,
        lambda *progress: told.append(progress),
    )  # fmt: skip
    assert found.labels.tolist() == labels and not found.unreadable.any()
    assert told[-1] == (len(images), len(images))
    apart = 0.0
    for pixels, row in zip(images, found.scores, strict=True):
        each = [numpy_scores(variables, view[None])[0] for view in expected(pixels, name)]
        np.testing.assert_allclose(row, np.mean(each, axis=0), atol=2e-5)
        logits = np.exp(np.mean(np.log(each), axis=0))
        apart = max(apart, abs(logits / logits.sum() - row).max())
    if name in ("ten_crop", "multi_scale"):  # the softmax is what is averaged
        assert apart > 5e-4


def test_every_image_is_in_one_batch_of_its_group_and_shapes_are_few(tmp_path, monkeypatch):
    """Batches of a group have one size: a compilation for each shape and no more."""
    sizes = [(60, 80)] * 5 + [(80, 60), (60, 81), (50, 50), (60, 90)]
    files = {f"{split}/{WNIDS[0]}/{i}.JPEG": picture(i, s) for i, s in enumerate(sizes) for split in ("train", "val")}
    folder = fill(tmp_path, files | {f"train/{WNIDS[1]}/0.JPEG": picture(9, (50, 50))})  # one class alone is no set
    mesh, views = make_mesh(jax.devices()[:2]), protocols.choose_for_photographs("multi_scale").views
    pipeline = make_trainer(config_of(folder), jax.devices()[:2]).pipeline
    # Room for one image of 640x853 on each device.
    monkeypatch.setattr("resnet_jax.evaluation.photographs.PIXELS", 640 * 853)
    batches = batches_of(pipeline.test_loader, views, mesh)
    assert [(b.group, b.indices.tolist(), b.images) for b in batches] == [
        ((12, 12), [7, 7], 1), ((12, 16), [0, 1], 2), ((12, 16), [2, 3], 2), ((12, 16), [4, 6], 2),
        ((12, 18), [8, 8], 1), ((16, 12), [5, 5], 1),
    ]  # fmt: skip
    forward = jitted_forward(TinyNet(), mesh)
    protocol = protocols.choose_for_photographs("multi_scale", scales=(24, 40))
    variables = TinyNet().init(jax.random.key(1), jnp.zeros((1, 8, 8, 3)))
    score_photographs(protocol, forward, variables, pipeline, mesh)
    assert forward._cache_size() == 4 * 2
    assert PIXELS // 224**2 == 128


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two trained nets of different seeds on images of three classes; one test image is damaged."""
    files = {f"train/{w}/{i}.JPEG": picture(10 * c + i) for c, w in enumerate(WNIDS) for i in range(4)}
    files |= {f"val/{w}/{i}.JPEG": picture(50 + 10 * c + i, SIZES[i]) for c, w in enumerate(WNIDS) for i in range(3)}
    data = fill(tmp_path_factory.mktemp("data"), files | {f"val/{WNIDS[1]}/bad.JPEG": picture(0)[:150]})
    folders = []
    for seed in (0, 1):
        folders.append(tmp_path_factory.mktemp("runs") / f"seed{seed}")
        fit(config_of(data, seed=seed), folders[-1])
    return folders


def test_the_centre_crop_is_what_training_measured(runs):
    tested, before = run_test([runs[0]]), evaluate(runs[0])
    found = tested.result
    assert (found.protocol, found.metric, before.protocol) == ("centre_crop", "single_crop_16", "centre_crop")
    assert found.test_error == before.test_error
    assert found.test_loss == pytest.approx(before.test_loss, rel=1e-5)
    assert found.examples == 10 and found.unreadable == 1
    for sentences in (tested.unreadable, before.unreadable):
        assert len(sentences) == 1 and f"{WNIDS[1]}/bad.JPEG cannot be read" in sentences[0]


def test_predict_answers_as_the_evaluation_does(runs):
    """The net of a run, the same files: the same probabilities, although images have several sizes."""
    tested = run_test([runs[0]])
    source = open_run(runs[0]).trainer.pipeline.test_loader.source
    readable = [index for index, path in enumerate(source.paths) if path.name != "bad.JPEG"]
    found = predict(load_weights(runs[0]), [source.paths[index] for index in readable])
    np.testing.assert_allclose(found, tested.scores[readable], rtol=1e-5)
    saved = save_weights(load_weights(runs[0]), runs[0] / "weights")
    assert load_weights(saved).shorter_side == 18


def test_larger_images_are_pooled_as_those_of_training(runs):
    """The authors' pool5; 16 pixels and a stride of 8 leave 2x2 positions of a training image."""
    found = {name: run_test([runs[0]], name, scales=[16, 40] if name == "multi_scale" else ())
             for name in ("centre_crop", "crop320", "multi_scale")}  # fmt: skip
    assert {name: (one.result.pool_size, one.result.shorter_sides) for name, one in found.items()} == {
        "centre_crop": (None, (18,)), "crop320": (2, (320,)), "multi_scale": (2, (16, 40)),
    }  # fmt: skip
    run = open_run(runs[0])
    protocol = protocols.choose_for_photographs("crop320")
    for pool_size, same in ((2, True), (None, False)):
        forward = jitted_forward(run.trainer.model.clone(pool_size=pool_size), run.trainer.mesh)
        scored = score_photographs(protocol, forward, run.variables, run.trainer.pipeline, run.trainer.mesh)
        assert np.allclose(scored.scores, found["crop320"].scores, rtol=1e-5) == same


def test_an_ensemble_averages_its_members(runs):
    members = [run_test([run], "ten_crop") for run in runs]
    both = run_test(runs, "ten_crop")
    np.testing.assert_allclose(both.scores, (members[0].scores + members[1].scores) / 2)
    assert (both.result.metric, both.result.protocol) == ("ensemble", "ten_crop")


@pytest.mark.parametrize(
    ("flags", "metric"),
    [
        (["--protocol=ten_crop", "--recompute_bn=12"], "ten_crop"),
        (["ensemble"], "ensemble"),
    ],
)
def test_the_command(runs, capsys, flags, metric):
    both = ",".join(map(str, runs))
    flags = [f"--workdir={both}"] if flags == ["ensemble"] else [f"--workdir={runs[0]}", *flags]
    assert main(["evaluate", *flags]) == 0
    captured = capsys.readouterr()
    assert "10 validation images of image_folder (1 of them unreadable and shown grey)" in captured.out
    assert "bad.JPEG cannot be read" in captured.err and "10/10" in captured.err
    found = json.loads((runs[0] / f"evaluations/{metric}.json").read_text())
    assert (found["metric"], found["examples"], found["unreadable"]) == (metric, 10, 1)
    for kind in ("classes.csv", "confusion.csv", "calibration.csv", "confusion.png"):
        assert (runs[0] / f"evaluations/{metric}_{kind}").stat().st_size


@pytest.mark.long
def test_two_processes_show_every_image_once(runs, tmp_path):
    """Each decodes its part of every batch, and one that meets the damaged image says so."""
    arguments = ["evaluate", f"--workdir={runs[1]}", "--protocol=multi_scale", "--scales=16,20", "--json"]
    ended = Job(arguments, tmp_path / "log", 2, 2, tmp_path / "cache").wait()
    assert [one.status for one in ended] == [0, 0], ended[0].output
    found = json.loads(ended[0].output.splitlines()[-1])
    alone = run_test([runs[1]], "multi_scale", scales=[16, 20])
    assert (found["examples"], found["unreadable"]) == (10, 1)
    assert found["test_error"] == alone.result.test_error
    assert found["test_loss"] == pytest.approx(alone.result.test_loss, rel=1e-5)
    assert any("bad.JPEG cannot be read" in one.output for one in ended)
    assert json.loads((runs[1] / "evaluations/multi_scale.json").read_text()) == found


def test_statistics_from_streamed_training_images(tiny_folder):
    """Of the batches that training begins with, normalised here."""
    config = config_of(tiny_folder, data__flip=False, data__colour_pca=0.0, data__normalization="imagenet")
    found = []
    for devices in (1, 2):
        trainer = make_trainer(config, jax.devices()[:devices])
        variables = trainer.init().tested_variables
        found.append(from_training_images(trainer.model, variables, trainer.pipeline, trainer.mesh, 12))
    images = loader_of(tiny_folder, rows=(0, 8), batch=8).batches([0, 1])[0]
    batches = np.float32((images / 255 - MEAN) / STD)
    wanted = recompute_statistics(trainer.model, jax.device_get(variables), batches)
    for one in found:
        for a, b in zip(*(jax.tree.leaves(jax.device_get(x["batch_stats"])) for x in (one, wanted)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_nothing_readable_and_other_images_are_errors(runs, tiny_folder, tmp_path):
    fit(config_of(tiny_folder), tmp_path / "other")
    with pytest.raises(UserError, match="other test images than the first run"):
        run_test([runs[0], tmp_path / "other"])
    for path in tiny_folder.glob("val/*/*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none of the 6 test images can be read: .* an empty file"):
        run_test([tmp_path / "other"])


def test_the_experiments_find_the_files_of_every_imagenet_row(runs, tmp_path):
    """What the protocols write into the folder of a row's run is what its table shows."""
    tested = {name: run_test([runs[0]], name, scales=[16] if name == "multi_scale" else ())
              for name in protocols.NAMES[1:]}  # fmt: skip
    # The tiny net's crops have 16 pixels; that of a row's run has its config's.
    paper = {name: protocols.choose_for_photographs(name).metric for name in tested}
    rows = 0
    for name in registry.NAMES:
        experiment = registry.load(name)
        for row in runnable(experiment):
            config = row_config(row)
            if config.data.name != "imagenet":
                continue
            metric = row.metric or experiment.metric
            if metric in ("test_error", "train_error"):
                continue
            folder = run_folder(tmp_path / name / row.name, config)
            write_run(tmp_path / name / row.name, config, 50.0)
            protocol = next(one for one, known in paper.items() if known == metric)
            one = tested[protocol]
            # As ImageNet's validation set is, which the papers test on; a folder's val/ is not.
            wanted = paper_protocols()[metric]
            result = dataclasses.replace(
                one.result, metric=metric, top5_error=12.5, evaluated_on="test", crop=wanted.crop,
                shorter_sides=wanted.shorter_sides, recompute_bn=asked_metric(experiment, row)[1],
                config_hashes=(config_hash(config),), step=config.steps,
            )  # fmt: skip
            write_evaluation(dataclasses.replace(one, result=result), folder)
            filled = fill_table(experiment, index_runs(tmp_path / name / row.name), with_computed=False)
            (run,) = next(iter(filled.runs.values()))
            found, _ = run_errors(run, metric, result.recompute_bn)
            assert (found["top1"], found["top5"]) == (one.result.test_error, 12.5)
            entry = next(entry for entry in filled.entries if entry.name == row.name)
            values = [measure.ours.mean for measure in entry.measures if measure.ours]
            assert one.result.test_error in values, (name, row.name)
            rows += 1
    assert rows >= 20
