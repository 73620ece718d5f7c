"""Images with a mask, which has the class of each pixel: their folders, their reading, and the way to the devices."""

#: Values of config.data.name for such sets. `image_masks` is a folder of the user's own.
SETS = ("voc2012", "cityscapes", "image_masks")
