"""JPEG files: what their headers say, and decoding by libjpeg-turbo, whole, reduced, or down to a row.

simplejpeg is the fastest in `python -m benchmarks input_pipeline` that notices damaged files, and releases the GIL.
`data.image_files` is the way from any file to pixels.
"""

import math
import struct
from collections.abc import Iterator

import numpy as np
import simplejpeg

#: Markers of frame headers; the three others of that range are not.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

#: Frames that are decoded row by row; the memory of a reduced image is enough for them. Others are kept whole.
_SEQUENTIAL = (0xC0, 0xC1)

#: Those of baseline, extended and progressive Huffman coding; others are rare.
_HUFFMAN = (*_SEQUENTIAL, 0xC2)

#: What an EXIF segment and an XMP segment begin with; both may say how a camera was held.
_NOTES = (b"Exif\0\0", b"http:/")

_SCAN, _APP1 = 0xDA, 0xE1


def is_jpeg(data: bytes) -> bool:
    """Returns whether a file begins as a JPEG, whatever its name."""
    return data[:3] == b"\xff\xd8\xff"


def stored_size(data: bytes) -> tuple[int, int]:
    """Reads (height, width) of the stored rows from the header; raises IndexError or struct.error if it is cut off."""
    height, width = struct.unpack_from(">HH", data, _frame(data) + 5)
    return height, width


def is_sequential(data: bytes) -> bool:
    """Returns whether decoding at a fraction of the size takes a fraction of the memory, unlike a progressive JPEG."""
    return data[_frame(data) + 1] in _SEQUENTIAL


def has_notes(data: bytes) -> bool:
    """Returns whether there are EXIF or XMP notes, which may say how the camera was held."""
    try:
        return any(marker == _APP1 and data[at + 4 : at + 10] in _NOTES for marker, at in _segments(data))
    except IndexError:
        return False


def turbo(data: bytes, reduce: int = 1, strict: bool = True) -> np.ndarray:
    """Decodes a JPEG as it is stored, uint8 RGB.

    Args:
      data: the file.
      reduce: 1, 2, 4 or 8: at that fraction of its size, rounded up, from its low frequencies alone.
      strict: whether to refuse what libjpeg warns of.

    Raises:
      ValueError: for CMYK, and for what is damaged or irregular.
    """
    height, width = reduced(stored_size(data), reduce) if reduce > 1 else (0, 0)
    # Fast upsampling would gain 5 % and change pixels more than everything else here together.
    return simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, min_height=height, min_width=width,
                                  min_factor=1, strict=strict)  # fmt: skip


def reduced(shape: tuple[int, int], reduce: int) -> tuple[int, int]:
    """Returns (height, width) of an image that is decoded at a fraction of its size."""
    return -(-shape[0] // reduce), -(-shape[1] // reduce)


def cut_below(data: bytes, bottom: float) -> bytes:
    """Returns a JPEG whose header says fewer rows, down to `bottom`; decoders stop after them.

    Where that is not possible, or the file is truncated, it returns the file.
    """
    if not is_jpeg(data) or data[-2:] != b"\xff\xd9":
        return data
    at = _frame(data)
    if data[at + 1] not in _HUFFMAN:
        return data
    # A row of blocks is as high as the component with the most samples. Colours are interpolated with the next row.
    components = data[at + 10 : at + 10 + 3 * data[at + 9]]
    block = 8 * max([1, *(factors & 15 for factors in components[1::3])])
    rows = (math.ceil(bottom / block) + 1) * block
    if rows >= stored_size(data)[0]:
        return data
    return data[: at + 5] + struct.pack(">H", rows) + data[at + 7 :]


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields (marker, place) of the segments up to the first scan; raises IndexError if there is none."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0:  # what is no marker is passed over, as libjpeg does
        marker = data[at + 1]
        if marker in (0x00, 0xFF):  # no marker, and padding
            at += 1
            continue
        yield marker, at
        if marker == _SCAN:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise IndexError(len(data))


def _frame(data: bytes) -> int:
    """Finds the frame header; raises IndexError if there is none."""
    for marker, at in _segments(data):
        if marker in _FRAMES:
            return at
    raise IndexError(len(data))
