"""Decodes compressed pixels of DICOM files with imagecodecs, as a plugin of pydicom.

GDCM, which pydicom would use, calls abort() on many damaged files, which would end the whole program.
"""

import functools
import re
import struct
from typing import Any

from brainseg_jax.utils.extras import require

PLUGIN = "imagecodecs"
DECODER_DEPENDENCIES: dict[str, tuple[str, ...]] = {}  # pydicom asks every plugin for it
# JPEG and JPEG-LS: the markers of segments that hold the image size, and the markers without a length.
_SIZE_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}

_YBR = re.compile(rb"\xff\xee\x00\x0eAdobe.{6}[\x01\x02]", re.DOTALL)  # Adobe's segment: the channels were transformed


def choose_decoder(dataset: Any) -> None:
    """Makes pydicom decode a dataset's pixels with a decoder that does not end the program."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in _functions():
        _register()
        dataset.pixel_array_options(decoding_plugin=PLUGIN)
    elif syntax.name == "RLE Lossless":
        dataset.pixel_array_options(decoding_plugin="pydicom")


def is_available(uid: str) -> bool:
    """Whether frames of a transfer syntax can be decoded here; pydicom asks every plugin."""
    return uid in _functions()


def decode_frame(source: bytes, runner: Any) -> bytes:
    """Decodes a frame for pydicom, after checking the size that the frame declares.

    Args:
      source: the compressed frame.
      runner: pydicom's `DecodeRunner`; it is told how the bytes are to be read.

    Raises:
      ValueError: the frame has another size than the file declares; imagecodecs has errors of its own for damaged ones.
    """
    imagecodecs = require("imagecodecs", extra="formats", reason="Decoding compressed DICOM files")
    name = _functions()[runner.transfer_syntax]
    declared = (runner.rows, runner.columns, runner.samples_per_pixel)
    size = _size_of_jpeg2000(source) if name == "jpeg2k_decode" else _size_of_jpeg(source)
    if size != declared:
        raise ValueError(f"its compressed pixels have rows, columns and channels {size}, not {declared}")
    # A JPEG whose three channels are RGB need not say so; by default it is decoded as YBR.
    is_rgb = name == "jpeg8_decode" and runner.photometric_interpretation == "RGB" and not _YBR.search(source[:1000])
    pixels = getattr(imagecodecs, name)(source, **({"colorspace": "RGB", "outcolorspace": "RGB"} if is_rgb else {}))
    if pixels.shape != (declared if declared[2] > 1 else declared[:2]):
        raise ValueError(f"its decoded pixels have shape {pixels.shape}, not {declared}")
    runner.set_option("bits_allocated", 8 * pixels.itemsize)
    if declared[2] > 1:
        runner.set_option("planar_configuration", 0)
        if runner.photometric_interpretation.startswith("YBR") and name != "jpegls_decode":
            runner.set_option("photometric_interpretation", "RGB")  # which the decoder gives
    decoded: bytes = pixels.tobytes()
    return decoded


@functools.cache
def _functions() -> dict[str, str]:
    """Returns the function of imagecodecs for each transfer syntax."""
    uid = require("pydicom.uid", extra="formats", reason="Reading DICOM files")
    jpeg = {uid.JPEGBaseline8Bit: "jpeg8_decode", uid.JPEGExtended12Bit: "jpeg8_decode"}
    lossless = dict.fromkeys((uid.JPEGLossless, uid.JPEGLosslessSV1), "ljpeg_decode")
    others = dict.fromkeys(uid.JPEGLSTransferSyntaxes, "jpegls_decode")
    return {**jpeg, **lossless, **others, **dict.fromkeys((uid.JPEG2000Lossless, uid.JPEG2000), "jpeg2k_decode")}


@functools.cache
def _register() -> None:
    pixels = require("pydicom.pixels", extra="formats", reason="Reading DICOM files")
    for syntax in _functions():
        pixels.get_decoder(syntax).add_plugin(PLUGIN, (__name__, decode_frame.__name__))


def _size_of_jpeg(frame: bytes) -> tuple[int, int, int]:
    """Returns rows, columns and channels of a JPEG or JPEG-LS stream."""
    place = 2
    while place + 10 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker in _SIZE_MARKERS:
            rows, columns, channels = struct.unpack(">HHB", frame[place + 5 : place + 10])
            return rows, columns, channels
        if marker == 0xFF:  # a fill byte
            place += 1
        else:
            place += 2 if marker in _WITHOUT_LENGTH else 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    raise ValueError("its compressed pixels do not say their size")


def _size_of_jpeg2000(frame: bytes) -> tuple[int, int, int]:
    """Returns rows, columns and channels of a JPEG 2000 stream."""
    place = frame.find(b"\xff\x4f\xff\x51")  # start of the stream, with its size; a JP2 file has boxes before it
    if place < 0 or len(frame) < place + 42:
        raise ValueError("its compressed pixels do not say their size")
    right, bottom, left, top = struct.unpack(">IIII", frame[place + 8 : place + 24])
    (channels,) = struct.unpack(">H", frame[place + 40 : place + 42])
    return bottom - top, right - left, channels
