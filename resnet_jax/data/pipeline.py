"""From a config to the pipeline that feeds its training and evaluation steps."""

from jax.sharding import Mesh
from ml_collections import ConfigDict

from resnet_jax.data.detection.pipeline import BoxBatches, BoxPipeline, make_boxes
from resnet_jax.data.imagenet import STREAMED, TFDS
from resnet_jax.data.resident import ResidentBatches, ResidentPipeline, make_resident
from resnet_jax.data.segmentation.pipeline import SegmentationBatches, SegmentationPipeline, make_segmentation
from resnet_jax.data.sources import load_dataset
from resnet_jax.data.streaming import StreamingBatches, StreamingPipeline, make_streaming
from resnet_jax.data.tfds import open_tfds

Pipeline = ResidentPipeline | StreamingPipeline | SegmentationPipeline | BoxPipeline

#: What the jitted steps need of a pipeline; it holds no data.
Batches = ResidentBatches | StreamingBatches | SegmentationBatches | BoxBatches


def make_pipeline(config: ConfigDict, mesh: Mesh) -> Pipeline:
    """Opens the data set of a config: on the devices if it is small, streamed from files otherwise.

    What a batch of it is depends on `config.task`.

    Raises:
      UserError: for a set that cannot be read, and for fields that do not fit it.
    """
    data = config.data
    if config.task == "segmentation":
        return make_segmentation(config, mesh)
    if config.task == "detection":
        return make_boxes(config, mesh)
    if data.name in STREAMED or (data.name.startswith(TFDS) and open_tfds(data.name, data.data_dir).is_streamed):
        return make_streaming(config, mesh)
    dataset = load_dataset(
        data.name, data.data_dir, data.held_out, data.held_out_share, data.eval_split, data.resize, data.rgb
    )
    return make_resident(dataset, config, mesh)
