"""Sets of images with boxes: PASCAL VOC's and COCO's layouts, checked, in batches of a few sizes."""
