"""Sets of images with boxes: PASCAL VOC's and COCO's layouts, checked, in batches of a few sizes."""

#: Values of config.data.name for such sets. "voc" is also a folder of the user's own with VOC's XML files.
BOX_SETS = ("voc", "coco")
