"""Removes metadata from a PNG or JPEG file; the rest decodes to the same pixels."""

import struct
import zlib
from collections.abc import Iterator

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"
# The chunks that determine pixels in Pillow. In an animation, IDAT is the first frame.
PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
# Markers of JPEG: APP1 has EXIF; APP0 (JFIF) and APP14 (Adobe) give the colour space.
APP1, APP14, APP15, START_OF_SCAN = 0xE1, 0xEE, 0xEF, 0xDA
# Markers without content: TEM, RST0 to RST7, SOI, EOI.
ALONE = (0x01, *range(0xD0, 0xDA))


def without_metadata(data: bytes) -> Iterator[bytes]:
    """Yield the file with EXIF as its only metadata, then without any; nothing if it is not a PNG or JPEG.

    Bytes of pixels are copied unchanged, so a file that is truncated or damaged there remains so.

    Args:
        data: the content of the file, which may be broken.
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
        end = position + length + 12  # length, kind, content and checksum
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
        # Bytes between segments have no meaning, and FF before a marker is padding.
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
