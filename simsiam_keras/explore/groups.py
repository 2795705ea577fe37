"""Groups of duplicates: who is in them, the best of each; a table and a page, nothing deleted."""

import csv
import dataclasses
import hashlib
import html
import io
import itertools
import os

import numpy as np

from simsiam_keras import runs
from simsiam_keras.explore import page, sprites

CSV, PAGE = "groups.csv", "groups.html"
COLUMNS = ("group", "file", "similarity", "keep", "width", "height", "bytes", "exact_copy")
SIDE = 160  # pixels of a picture on the page
MOST = 48  # pictures of a group on the page


@dataclasses.dataclass(frozen=True)
class Member:
    """A file of a group.

    Attributes:
        group: its number, from 1 on; the largest group is the first.
        number: of the image.
        file: its name.
        similarity: to the one that is kept, 1 for itself.
        keep: whether it is the best.
        width: in pixels; 0 where the file cannot be read.
        height: likewise.
        bytes: of the file.
        exact: whether the file has the same bytes as one of the group that comes before it.
    """

    group: int
    number: int
    file: str
    similarity: float
    keep: bool
    width: int
    height: int
    bytes: int
    exact: bool


def of(found, x, group):
    """The members of all groups of two or more, the best of each first.

    The best has the most pixels; of these the largest file, then the first name. The others follow
    by similarity to it.

    Args:
        found: a `collection.Collection` of n files.
        x: its l2-normalized vectors `[n, d]`.
        group: int64 `[n]`, as `near.groups` gives it.

    Returns:
        A list of `Member`.
    """
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    parts = sorted((part for part in parts if len(part) > 1), key=lambda p: (-len(p), p[0]))
    return [
        member
        for place, part in enumerate(parts, start=1)
        for member in _members(found, x, part.tolist(), place)
    ]


def _members(found, x, numbers, place):
    facts = {number: _facts(found.pictures, number) for number in numbers}

    def rank(number):
        width, height, size, _ = facts[number]
        return -width * height, -size, found.names[number]

    best = min(numbers, key=rank)
    similarity = dict(zip(numbers, (x[numbers] @ x[best]).tolist(), strict=True))
    similarity[best] = 1.0
    rest = sorted((i for i in numbers if i != best), key=lambda i: (-similarity[i], rank(i)))
    seen, members = set(), []
    for number in [best, *rest]:
        width, height, size, digest = facts[number]
        exact = digest is not None and digest in seen
        seen.add(digest)
        name, value = found.names[number], min(1.0, similarity[number])
        members.append(
            Member(place, number, name, value, number == best, width, height, size, exact)
        )
    return members


def _facts(pictures, number):
    """Width, height, bytes and digest of a file; 0 and None of one that cannot be read."""
    try:
        path = pictures.path(number)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        height, width = pictures.shape(number)
        return width, height, os.path.getsize(path), digest
    except Exception:  # every decoder raises what it likes
        return 0, 0, 0, None


def write_csv(path, members):
    """Writes the table of all groups."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for m in members:
        keep, exact = ("yes" if value else "no" for value in (m.keep, m.exact))
        row = (m.group, m.file, f"{m.similarity:.4f}", keep, m.width, m.height, m.bytes, exact)
        table.writerow(row)
    runs.write_atomically(path, text.getvalue())


def write_page(path, found, members, why, most):
    """Writes the page of groups, the largest first.

    Args:
        path: the HTML file.
        found: a `collection.Collection`.
        members: what `of` gives.
        why: how the threshold was chosen.
        most: groups at most.

    Returns:
        How many groups are on the page.
    """
    by_group = [list(part) for _, part in itertools.groupby(members, key=lambda m: m.group)]
    total, count = len(by_group), min(len(by_group), most)
    shown = [part[:MOST] for part in by_group[:most]]
    numbers = [m.number for part in shown for m in part]
    tiles = zip(numbers, sprites.tiles(found.pictures, numbers, SIDE), strict=True)
    pictures = {number: _picture(tile) for number, tile in tiles}
    of_all = f" of {total:,}, the largest" if count < total else ""
    kept = sum(m.keep for m in members)
    body = [
        f"<p>{count:,} groups{of_all}: {len(members):,} of {len(found):,} files are in groups, "
        f"{len(members) - kept:,} besides the kept ones. Threshold: {_text(why)}. The green frame "
        "is the one to keep: most pixels, then the largest file. Nothing has been deleted; "
        f"{CSV} has the list.</p>"
    ]
    if not members:
        body.append("<p>No two files are as similar as that.</p>")
    for part, whole in zip(shown, by_group, strict=False):
        body.append(f"<h2>Group {part[0].group}</h2>\n<ul>")
        body += [_figure(m, pictures[m.number]) for m in part]
        body.append("</ul>")
        if len(whole) > len(part):
            body.append(f"<p>And {len(whole) - len(part):,} more, in {CSV}.</p>")
    text = page.document(
        "groups.html",
        title=f"Duplicates in {found.title}",
        style=page.template("groups.css"),
        images="data:",
        body="\n".join(body),
    )
    runs.write_atomically(path, text)
    return count


def _picture(tile):
    if isinstance(tile, Exception):
        tile = np.full((SIDE, SIDE, 3), sprites.GREY, np.uint8)
    return page.data_uri(sprites.encoded(tile))


def _figure(m, source):
    said = f"{m.width} × {m.height}, {m.bytes / 1000:,.0f} kB"
    if m.keep:
        said += ", <strong>keep</strong>"
    else:
        said += f", similarity {m.similarity:.3f}"
    if m.exact:
        said += ", exact copy"
    kept = ' class="keep"' if m.keep else ""
    name = _text(m.file)
    return (
        f'<li{kept}><img src="{source}" width="{SIDE}" height="{SIDE}" alt="{name}" loading="lazy">'
        f"<span>{name}</span> {said}</li>"
    )


def _text(words):
    return html.escape(words.encode("utf-8", "backslashreplace").decode())
