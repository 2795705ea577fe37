"""Pictures of known pixels, as files and as bytes."""

import io
import struct
import zlib

import numpy as np
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


def png16(values, key=None):
    """A PNG of 16 bits, which Pillow writes only in grey: uint16 `[h, w, 1 | 2 | 3 | 4]`."""
    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = {b"IHDR": struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)}
    if key is not None:
        parts[b"tRNS"] = np.array(key, ">u2").tobytes()
    parts |= {b"IDAT": zlib.compress(rows), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts.items())


def chunk(name, data):
    """One part of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tiff(values, order="<", deflate=False, photometric=None, orientation=1):
    """A TIFF of one strip, of numbers `[h, w]` or `[h, w, 3 | 4]`."""
    height, width, channels = values.shape if values.ndim == 3 else (*values.shape, 1)
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if deflate else data
    if photometric is None:
        photometric = 1 if channels == 1 else 2
    bits, kind = 8 * values.dtype.itemsize, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    entries = [(256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * channels)]
    entries += [(259, 3, [8 if deflate else 1]), (262, 3, [photometric]), (273, 4, [0])]
    entries += [(274, 3, [orientation]), (277, 3, [channels]), (278, 4, [height])]
    entries += [(279, 4, [len(data)]), (284, 3, [1])]
    entries += [(338, 3, [2])] if channels == 4 else []
    entries += [(339, 3, [kind] * channels)]
    beyond = 8 + 2 + 12 * len(entries) + 4  # where longer values begin
    more, table = b"", struct.pack(f"{order}H", len(entries))
    room = sum(2 * len(v) for _, t, v in entries if t == 3 and len(v) > 2)
    for tag, kind, content in entries:
        content = [beyond + room] if tag == 273 else content
        packed = struct.pack(f"{order}{len(content)}{'HI'[kind - 3]}", *content)
        if len(packed) > 4:
            offset, more = beyond + len(more), more + packed
            packed = struct.pack(f"{order}I", offset)
        table += struct.pack(f"{order}HHI", tag, kind, len(content)) + packed.ljust(4, b"\0")
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    return head + table + bytes(4) + more + data


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def icc(primaries, gamma):
    """A colour profile: XYZ of red, green and blue under D50, and one exponent for all."""

    def xyz(values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + bytes(78)
    tags = {b"desc": text, b"wtpt": xyz((0.9642, 1, 0.8249)), b"cprt": b"text\0\0\0\0x\0\0\0"}
    tags |= dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, primaries), strict=True))
    tags |= {name: curve for name in (b"rTRC", b"gTRC", b"bTRC")}
    start = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content.ljust(-(-len(content) // 4) * 4, b"\0")
    head = struct.pack(">I", start + len(data)) + b"\0\0\0\0" + struct.pack(">I", 0x02100000)
    head += b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + data
