"""A PNG or JPEG file without its metadata: what is left decodes to the same pixels."""

import struct
import zlib
from collections.abc import Iterator

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"
# The chunks from which Pillow makes pixels. Of an animation, IDAT is the first frame.
PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
# Markers of JPEG: APP1 holds EXIF, APP0 (JFIF) and APP14 (Adobe) tell which colours the components are.
APP1, APP14, APP15, START_OF_SCAN = 0xE1, 0xEE, 0xEF, 0xDA
# Markers that stand alone: TEM, RST0 to RST7, SOI, EOI.
ALONE = (0x01, *range(0xD0, 0xDA))


def without_metadata(data: bytes) -> Iterator[bytes]:
    """Yield the file with its EXIF as the only metadata, then without any; nothing where it is no PNG or JPEG.

    Bytes of pixels are copied as they are, so that a file that is cut short or damaged there stays so.

    Args:
      data: the bytes of the file, broken or not.
    """
    for keep_exif in (True, False):
        if data.startswith(PNG_START):
            yield _png(data, keep_exif)
        elif data.startswith(JPEG_START):
            yield _jpeg(data, keep_exif)


def _png(data: bytes, keep_exif: bool) -> bytes:
    kept, position = [PNG_START], len(PNG_START)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + length + 12  # of the length, the kind, the content and its sum
        if kind in PNG_PIXELS or (keep_exif and kind == b"eXIf" and _sum_is_right(data, position, end)):
            kept.append(data[position:end])
        position = end
    return b"".join(kept)


def _sum_is_right(data: bytes, start: int, end: int) -> bool:
    return end <= len(data) and zlib.crc32(data[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")


def _jpeg(data: bytes, keep_exif: bool) -> bytes:
    kept, position = [JPEG_START], len(JPEG_START)
    while position + 4 <= len(data):
        marker = data[position + 1]
        # Bytes between segments mean nothing, and FF before a marker fills up.
        if data[position] != 0xFF or marker in (0x00, 0xFF):
            position += 1
            continue
        if marker == START_OF_SCAN:
            break
        end = position + 2 + (0 if marker in ALONE else int.from_bytes(data[position + 2 : position + 4], "big"))
        is_exif = marker == APP1 and data[position + 4 : position + 10] == b"Exif\0\0"
        if not APP1 <= marker <= APP15 or marker == APP14 or (keep_exif and is_exif):
            kept.append(data[position:end])
        position = end
    return b"".join([*kept, data[position:]])
