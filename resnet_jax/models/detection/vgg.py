"""Faster R-CNN on the features of VGG-16 (Ren et al. 2015), with which the paper compares in tables 7 and 8."""

from jax import Array

from resnet_jax.models.detection.detector import Detector, pad_to_multiple
from resnet_jax.models.vgg import VGG


class VGGDetector(Detector, VGG):
    """A VGG whose convolutions see the image, and whose two hidden layers see each region that is proposed.

    RoI pooling takes the place of the last max-pool, so that `region_size` must be what that pool gives of the images
    that the weights are from: 7 of 224 pixels.
    """

    region_size: int = 7

    @property
    def strides(self) -> tuple[int, ...]:
        """Returns the pixels from one position of the one level to the next: 16, of five stages."""
        return (2 ** (len(self.stage_sizes) - 1),)

    def image_features(self, images: Array, train: bool) -> tuple[Array, ...]:
        """Returns what the last convolution gives, as the one level.

        Images are padded to multiples of the stride, at the bottom and on the right: max-pools leave out what does not
        fill them, and Caffe's, which round up, do not.
        """
        images = pad_to_multiple(images, self.strides[0])
        return (VGG.__call__(self, images, train, "convolutions"),)

    def see_regions(self, pooled: Array, train: bool) -> Array:
        """Returns what the second hidden layer gives of each region; in training both have dropout."""
        return VGG.__call__(self, pooled, train, "hidden")
