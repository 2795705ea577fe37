"""Contact sheets: queries with what was found for them, as a picture."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE, GAP, CAPTION = 128, 8, 18  # px
INK, PAPER, QUERY = (40, 40, 40), (255, 255, 255), (190, 60, 40)


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
