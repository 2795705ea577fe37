"""Contact sheets: queries with what was found for them, as a picture."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from simsiam_keras.data import images as codec

SIDE, GAP, CAPTION = 128, 8, 18  # px
MISSING = (200, 200, 200)
INK, PAPER, QUERY = (40, 40, 40), (255, 255, 255), (190, 60, 40)


def thumbnail(item, side=SIDE, channels=3):
    """A square picture of an image's centre; grey where it cannot be read.

    Args:
        item: a path, encoded bytes, or None.
        side: in pixels; default 128.
        channels: of the image; only of 1 or 3 there is a picture.

    Returns:
        uint8 `[side, side, 3]`.
    """
    try:
        image = codec.decode(item, side, None, channels)
        if channels not in (1, 3):
            image = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
        image = codec.resize_and_crop(np.ascontiguousarray(image), side)
        return np.ascontiguousarray(np.broadcast_to(image, (side, side, 3)))
    except Exception:  # every decoder raises what it likes
        return np.full((side, side, 3), MISSING, "uint8")


def sheet(rows, side=SIDE):
    """A picture of rows of captioned thumbnails, the first of each framed.

    Args:
        rows: a list of rows, each a list of `(thumbnail, caption)`.
        side: of the thumbnails in pixels.

    Returns:
        uint8 `[height, width, 3]`.
    """
    columns = max(map(len, rows))
    cell, high = side + GAP, side + CAPTION + GAP
    page = Image.new("RGB", (columns * cell + GAP, len(rows) * high + GAP), PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for i, row in enumerate(rows):
        for j, (picture, caption) in enumerate(row):
            x, y = GAP + j * cell, GAP + i * high
            page.paste(Image.fromarray(picture), (x, y))
            if j == 0:
                draw.rectangle((x - 3, y - 3, x + side + 2, y + side + 2), outline=QUERY, width=3)
            draw.text((x, y + side + 2), _fitting(caption, draw, font, side), INK, font)
    return np.asarray(page)


def _fitting(text, draw, font, width):
    text = text.encode("ascii", "replace").decode()  # what the font has
    while text and draw.textlength(text, font) > width:
        text = text[:-1]
    return text
