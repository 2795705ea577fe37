"""Files of numbers: .npy, DICOM, and TIFF that Pillow does not read."""

import contextlib

import numpy as np
from PIL import Image

from simsiam_keras.data.stored import Skipped, Stored


def _of_array(shape, dtype, read, **known):
    """A `Stored` of an array; `read` is a function without arguments."""
    if len(shape) == 3 and shape[-1] in (1, 3, 4) or len(shape) == 2:
        height, width = shape[:2]
    else:
        raise Skipped(
            f"it holds an array of shape {list(shape)}; an image is [height, width] or "
            "[height, width, 1 | 3 | 4]"
        )
    if dtype == np.uint8 and not known:

        def eight_bits(min_side):
            values = np.asarray(read())
            return Image.fromarray(values[..., 0] if values.shape[2:] == (1,) else values)

        return Stored((width, height), eight_bits, mode=str(dtype))
    if dtype.kind not in "buif":
        raise Skipped(f"it holds values of type {dtype}, not numbers")
    opaque = np.iinfo(dtype).max if dtype.kind in "ui" else 1.0
    known |= {"opaque": opaque, "mode": str(dtype)}
    return Stored((width, height), lambda min_side: read(), True, **known)


def npy(file, item):
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
    window = {"window": (0.0, 1.0)} if values.dtype == bool else {}
    return _of_array(values.shape, values.dtype, lambda: values, **window)


@contextlib.contextmanager
def _needing(package, sign=""):
    """Within, an error that names a package which is not installed leaves the image out."""
    try:
        yield
    except (ImportError, RuntimeError, ValueError) as error:
        if (sign or package) not in str(error):
            raise
        raise Skipped(f"its compression needs another library: pip install {package}") from None


def tiff_values(file, error):
    """What Pillow does not read: colours of floats or of 32 bits, half floats, doubles."""
    try:
        import tifffile
    except ImportError:
        raise Skipped(
            f"Pillow does not read this kind of TIFF ({error}); pip install tifffile"
        ) from None
    page = tifffile.TiffFile(file).pages[0]
    shape, planes = page.shape, page.axes == "SYX"
    if planes:
        shape = (*shape[1:], shape[0])

    def read():
        with _needing("imagecodecs"):
            values = page.asarray()
        return np.moveaxis(values, 0, -1) if planes else values

    return _of_array(shape, page.dtype, read)


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
