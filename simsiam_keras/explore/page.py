"""The page: one HTML file that asks nothing of a network, or a folder where it would be large."""

import base64
import hashlib
import html
import json
import re
from importlib import resources
from pathlib import Path

import numpy as np

from simsiam_keras import runs

POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; img-src {images}; "
    "base-uri 'none'; form-action 'none'"
)
LEVELS = 65535  # of a coordinate
DECIMALS = 10_000  # of a similarity


def write(path, content, sheets, beside=False):
    """Writes the page; it appears when it is whole.

    Args:
        path: the HTML file.
        content: what `content` gives.
        sheets: a `sprites.Sheets`.
        beside: whether the thumbnails are files in a folder beside the page.

    Returns:
        Bytes of the page.
    """
    path = Path(path)
    if beside:
        folder = path.with_name(f"{path.stem}_thumbnails")
        folder.mkdir(exist_ok=True)
        sources = []
        for number, jpeg in enumerate(sheets.jpegs):
            name = f"{number:04d}.jpg"
            runs.write_atomically(folder / name, jpeg)
            sources.append(f"{folder.name}/{name}")
    else:
        sources = [data_uri(jpeg) for jpeg in sheets.jpegs]
    text = filled(content, sheets, sources)
    runs.write_atomically(path, text)
    return len(text.encode("utf-8", "surrogateescape"))


def filled(content, sheets, sources):
    """The text of the page.

    Args:
        content: what `content` gives.
        sheets: a `sprites.Sheets`.
        sources: what an image element finds each sheet by.
    """
    sprites = {
        "side": sheets.side,
        "columns": sheets.columns,
        "each": sheets.each,
        "sheets": sources,
    }
    missing = [[number, why] for number, why in sheets.missing.items()]
    images = "data:" if all(source.startswith("data:") for source in sources) else "'self' file:"
    return document(
        "page.html",
        title=content["title"],
        style=template("page.css"),
        script=template("plot.js") + template("page.js"),
        data=in_script({**content, "sprites": sprites, "missing": missing}),
        images=images,
    )


def document(name, title, style, images, script="", data="", body=""):
    """A template with its places filled, and a policy that lets nothing else in.

    Args:
        name: of the template.
        title: text, escaped here.
        style: CSS.
        images: what images may come from.
        script: JavaScript; default none.
        data: what `in_script` gives; default none.
        body: HTML; default none.
    """
    policy = POLICY.format(
        script=_hash(script) if script else "'none'", style=_hash(style), images=images
    )
    values = {
        "title": html.escape(title.encode("utf-8", "replace").decode()),
        "policy": policy,
        "style": style,
        "script": script,
        "data": data,
        "body": body,
    }
    # In one pass: what is put in may hold anything, also the names of places.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template(name))


def template(name):
    """The text of a file of this package."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def in_script(value):
    r"""JSON that can stand in a script element, whatever its texts hold.

    Example:
    >>> print(in_script("</script>"))
    "\u003c/script\u003e"
    """
    text = json.dumps(value, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def data_uri(jpeg):
    """A JPEG as text that an image element takes."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def packed(array, kind):
    """An array as the page reads it.

    Args:
        array: numbers of any shape.
        kind: `u1`, `u2`, `u4` or `i2`: whole numbers, signed or not, of so many bytes.
    """
    flat = np.ascontiguousarray(array).astype(f"<{kind}").tobytes()
    return {"kind": kind, "data": base64.b64encode(flat).decode()}


def content(collection, points, cluster, cluster_names, nearest, about):
    """What the page knows of n images besides their thumbnails.

    Args:
        collection: a `collection.Collection`.
        points: `[n, 2]` within [0, 1].
        cluster: int64 `[n]`.
        cluster_names: list of str.
        nearest: similarities and indices, `[n, k]` each.
        about: list of `(name, text)`, how it was made.

    Returns:
        A dict for JSON.
    """
    similarity, index = nearest
    colourings = []
    if collection.labels is not None:
        labels = collection.labels
        names = collection.class_names or [str(i) for i in range(labels.max() + 1)]
        colourings.append(_colouring("label", list(map(str, names)), labels))
    colourings.append(_colouring("cluster", cluster_names, cluster))
    splits = list(dict.fromkeys(collection.splits))
    if len(splits) > 1:
        places = {name: i for i, name in enumerate(splits)}
        of = np.array([places[name] for name in collection.splits])
        colourings.append(_colouring("split", splits, of))
    n = len(collection)
    return {
        "title": collection.title,
        "root": collection.root,
        "names": [name.encode("utf-8", "backslashreplace").decode() for name in collection.names],
        "points": packed(np.rint(np.clip(points, 0, 1) * LEVELS), "u2"),
        "colourings": colourings,
        "nearest": {
            "k": index.shape[1],
            "index": packed(index, "u2" if n <= LEVELS else "u4"),
            "similarity": packed(np.rint(np.clip(similarity, -1, 1) * DECIMALS), "i2"),
        },
        "about": about,
    }


def _colouring(title, names, of):
    return {"title": title, "names": names, "of": packed(of, "i2" if len(names) < 2**15 else "i4")}


def _hash(text):
    """What a policy knows an element's text by."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
