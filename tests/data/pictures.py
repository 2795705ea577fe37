"""Pictures of known pixels, as files and as bytes."""

import io

from PIL import Image

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def solid(color, size=(6, 4), mode="RGB"):
    return Image.new(mode, size, color)


def fill(folder, count, size=(6, 4), ending="png"):
    """Images whose pixels are all their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        solid((i, i, i), size).save(folder / f"{i:03}.{ending}")
    return folder


def split_image(left, right, size=(16, 8)):
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
