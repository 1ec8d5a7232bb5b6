"""Small pictures of images, by Pillow (the extra `images`)."""

import io
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from everloop.core.errors import DataError

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")
MOST_PIXELS = 64_000_000
"""Pixels of the largest image that is decoded: a small file may claim to hold gigabytes."""


def thumbnail(stream: BinaryIO, edge: int) -> tuple[bytes, int, int]:
    """A PNG of at most `edge` pixels a side, turned as the camera says, and the image's own width and height.

    Raises `DataError` for what is no image, is broken, or has too many pixels.
    """
    try:
        with Image.open(stream, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise DataError(f"the image has {width} x {height} pixels", hint=f"at most {MOST_PIXELS} are decoded")
            image.draft("RGB", (edge, edge))  # a JPEG is decoded at the size that is needed
            small = ImageOps.exif_transpose(image)
            small.thumbnail((edge, edge))
            sink = io.BytesIO()
            small.convert("RGBA" if "A" in small.getbands() or "transparency" in image.info else "RGB").save(
                sink, "PNG"
            )
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"not a readable image: {error}", hint="open the file to see what it holds") from error
    return sink.getvalue(), width, height
