"""Files of numbers: .npy, DICOM, and TIFF that Pillow does not read."""

import contextlib
import dataclasses

import numpy as np
from PIL import Image

from simsiam_keras.data.stored import COLOURS, ORIENTATION, TURNS, Skipped, Stored


def _of_array(shape, dtype, read, channels=3, **known):
    """A `Stored` of an array; `read` is a function without arguments."""
    _check_shape(shape, channels)
    height, width = shape[:2]
    found = shape[2] if len(shape) == 3 else 1
    if dtype == np.uint8 and channels not in COLOURS:
        return Stored((width, height), lambda min_side: read(), mode=str(dtype), channels=found)
    if dtype == np.uint8 and not known:

        def eight_bits(min_side):
            values = np.asarray(read())
            return Image.fromarray(values[..., 0] if values.shape[2:] == (1,) else values)

        return Stored((width, height), eight_bits, mode=str(dtype), channels=found)
    if dtype.kind not in "buif":
        raise Skipped(f"it holds values of type {dtype}, not numbers")
    opaque = np.iinfo(dtype).max if dtype.kind in "ui" else 1.0
    known |= {"opaque": opaque, "mode": str(dtype), "channels": found}
    return Stored((width, height), lambda min_side: read(), True, **known)


def _check_shape(shape, channels):
    if channels not in COLOURS:
        if len(shape) != 3 or shape[2] != channels:
            raise Skipped(
                f"it holds an array of shape {list(shape)}; --channels={channels} takes [height, "
                f"width, {channels}] or [{channels}, height, width]"
            )
    elif not (len(shape) == 2 or len(shape) == 3 and shape[2] in (1, 3, 4)):
        few = min(shape, default=0)  # channels, wherever they are; planes of colours are not taken
        as_is = len(shape) == 3 and (shape[2] == few or shape[0] == few not in COLOURS)
        other = f"; --channels={few} takes it as it is" if as_is and few else ""
        raise Skipped(
            f"it holds an array of shape {list(shape)}; an image is [height, width] or "
            f"[height, width, 1 | 3 | 4]{other}"
        )


def _are_planes(shape, channels):
    """Whether an array is `[channels, height, width]`; what may be either is refused."""
    if channels in COLOURS or len(shape) != 3 or shape[0] != channels:
        return False
    if shape[2] == channels:
        raise Skipped(
            f"its shape {list(shape)} may be [{channels}, height, width] or [height, width, "
            f"{channels}]; put such images into one array of an .npz"
        )
    return True


def npy(file, item, channels=3):
    """Opens a .npy, from a path by map; pickled objects are programs, and refused."""
    try:
        if isinstance(item, bytes):
            values = np.load(file, allow_pickle=False)
        else:
            values = np.load(item, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "object" in str(error).lower():
            raise Skipped("it holds Python objects, which are programs and not read") from None
        raise
    if _are_planes(values.shape, channels):
        values = np.moveaxis(values, 0, -1)
    window = {"window": (0.0, 1.0)} if values.dtype == bool else {}
    return _of_array(values.shape, values.dtype, lambda: values, channels, **window)


@contextlib.contextmanager
def _needing(package, sign=""):
    """Within, an error that names a package which is not installed leaves the image out."""
    try:
        yield
    except (ImportError, RuntimeError, ValueError) as error:
        if (sign or package) not in str(error):
            raise
        raise Skipped(f"its compression needs another library: pip install {package}") from None


def tiff_values(file, error, channels=3):
    """What Pillow does not read: colours of floats or of 32 bits, half floats, many channels.

    Of many channels, each may be a page of its own.
    """
    try:
        import tifffile
    except ImportError:
        raise Skipped(
            f"Pillow does not read this kind of TIFF ({error}); pip install tifffile"
        ) from None
    tiff = tifffile.TiffFile(file)
    first = tiff.pages[0]
    page = first if channels in COLOURS or first.samplesperpixel > 1 else tiff.series[0]
    shape, axes = page.shape, page.axes
    planes = axes == "SYX" or axes != "YXS" and _are_planes(shape, channels)
    if planes:
        shape = (*shape[1:], shape[0])

    def read():
        with _needing("imagecodecs"):
            values = page.asarray()
        return np.moveaxis(values, 0, -1) if planes else values

    stored = _of_array(shape, page.dtype, read, channels)
    if channels in COLOURS:
        return stored
    turn = first.tags.get(ORIENTATION)
    return dataclasses.replace(stored, turn=TURNS.get(turn and turn.value))


def dicom(file):
    """Opens the first frame of a DICOM, with pydicom: rescaled as the file says."""
    try:
        import pydicom
        from pydicom import pixels
    except ImportError:
        raise Skipped("DICOM needs pydicom: pip install pydicom") from None
    header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
    if "Rows" not in header:
        raise Skipped("it is a DICOM file without an image")
    samples, bits = header.get("SamplesPerPixel", 1), header.get("BitsStored", 8)
    shape = (header.Rows, header.Columns, *((samples,) if samples > 1 else ()))
    kind = header.get("PhotometricInterpretation", "")

    def read():
        file.seek(0)
        data = pydicom.dcmread(file, force=True)
        if "TransferSyntaxUID" not in data.file_meta:
            data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        with _needing("pylibjpeg[all]", "missing dependencies"):
            values = pixels.pixel_array(data, index=0)
        if kind == "PALETTE COLOR":
            return pixels.apply_color_lut(values, data)
        return pixels.apply_modality_lut(values, data) if samples == 1 else values

    known = {"inverted": True} if kind == "MONOCHROME1" else {}
    if kind == "PALETTE COLOR":
        return _of_array((*shape[:2], 3), np.dtype(np.uint16), read)
    window = _window(header) if samples == 1 else None
    if window:
        known["window"] = window
    rescaled = (header.get("RescaleSlope", 1), header.get("RescaleIntercept", 0)) != (1, 0)
    deep = bits > 8 or rescaled or known
    return _of_array(shape, np.dtype(np.uint16 if deep else np.uint8), read, **known)


def _window(header):
    """What a DICOM file says is black and white: PS3.3, C.11.2.1.2.1, in the first of its windows.

    With centre c and width w, LINEAR is black up to c - 1/2 - (w - 1)/2 and white from
    c - 1/2 + (w - 1)/2 on.
    """

    def first(name):
        found = header.get(name)
        found = found[0] if isinstance(found, (list, tuple)) or hasattr(found, "append") else found
        return None if found is None else float(found)

    centre, width = first("WindowCenter"), first("WindowWidth")
    if centre is None or width is None or not width > 1:
        return None
    return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
