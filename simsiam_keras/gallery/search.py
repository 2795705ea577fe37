"""`search`: the images of a gallery that are most like given ones."""

import json
import os
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simsiam_keras import cards, config, export, plots, runs, settings
from simsiam_keras.data import images as codec
from simsiam_keras.errors import sentence
from simsiam_keras.gallery import embed, exact, index, pictures, sheets, vectors
from simsiam_keras.progress import saying

ANSWERS, SHEET = "answers.jsonl", "sheet.png"
_ALIKE = (
    "encoder trust_encoder batch_size backend seed split labels labels_columns value_range".split()
)
SHOWN = (20, 12)  # queries and answers of a sheet


@settings.own
def search(cfg, console=None):
    """Finds for each query the k most similar images of a gallery.

    Args:
        cfg: a `config.Search`.
        console: a `rich.console.Console` for what is said, standard error by default.

    Returns:
        A dict that says what was written; the folder has `answers.jsonl`, a line for each query,
        and `sheet.png`.

    Raises:
        ValueError: if the encoder, the gallery or a query cannot be used.
    """
    console = console or Console(stderr=True)
    say = saying(console)
    encoder = export.load_encoder(cfg.encoder, cfg.trust_encoder)
    queries = paths_of(cfg.query)
    asked = encoded_queries(encoder, queries)  # before a gallery that may take long
    reader = vectors.Reader(_gallery(cfg, console))
    refuse_other_encoder(cfg.encoder, encoder, reader)
    began = time.perf_counter()
    if cfg.index == "exact":
        similarities, numbers = exact.neighbours(reader.chunks(), asked, cfg.k)
    else:
        if len(reader.files) > 1:
            raise ValueError(
                f"--index={cfg.index} is of one file of vectors, --gallery names "
                f"{len(reader.files)}; take --index=exact"
            )
        built = index.found(reader.files[0], cfg.index, reader, cfg.rebuild_index, say)
        began = time.perf_counter()
        similarities, numbers = index.search(built, asked, cfg.k)
    seconds = time.perf_counter() - began
    answers = answers_of(reader, queries, similarities, numbers)
    folder = Path(cfg.run_dir) if cfg.run_dir else Path(reader.files[0]).parent / "search"
    runs.make_folder(folder)
    lines = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
    runs.write_atomically(folder / ANSWERS, lines)
    plots.write_png(folder / SHEET, _sheet(answers, reader.about, cfg.value_range, say))
    Console(soft_wrap=False).print(_table(answers))
    return {
        "queries": len(queries),
        "gallery": len(reader),
        "index": cfg.index,
        "seconds": seconds,
        "answers": str(folder / ANSWERS),
        "sheet": str(folder / SHEET),
    }


def paths_of(text):
    """The files of `--query`: paths with commas between them; a path may itself have one."""
    return [text] if os.path.exists(text) else [path for path in text.split(",") if path]


def refuse_other_encoder(path, encoder, reader):
    """Raises where vectors are not those of an encoder.

    Args:
        path: of the encoder.
        encoder: the `export.LoadedEncoder`.
        reader: a `vectors.Reader`.

    Raises:
        ValueError: if its digest or width is another.
    """
    about = reader.about
    if about.encoder == cards.digest(path):
        return
    card = cards.read(os.path.dirname(os.path.abspath(path)))
    # The SavedModel and the .keras file of one card are the same encoder.
    if card and cards.describes(card, path) and about.encoder in card.digest.values():
        return
    raise ValueError(
        f"{reader.files[0]} has vectors of another encoder ({about.dim} wide, of images of "
        f"{about.image_size} px) than {path} ({encoder.dim}, {encoder.image_size} px); give that "
        "encoder, or write the vectors anew with `embed`"
    )


def encoded_queries(encoder, paths):
    """Features of files, float32 `[m, d]`.

    Raises:
        ValueError: if one is no image.
    """
    images = []
    for path in paths:
        if not os.path.isfile(path):
            raise ValueError(f"--query must name files of images; there is no file {path}")
        try:
            # Read as the gallery was: whole, then scaled and cropped.
            image = codec.decode(path, None, _range(encoder), encoder.channels)
        except Exception as error:  # every decoder raises what it likes
            raise ValueError(
                f"--query={path} is no image that can be read ({sentence(error)}); give another"
            ) from error
        images.append(codec.resize_and_crop(image, encoder.image_size, encoder.eval_crop))
    return encoder(np.stack(images))


def answers_of(reader, queries, similarities, numbers):
    """For each query a dict of what was found, for JSON."""
    known = reader.some(np.unique(numbers[numbers >= 0]))
    answers = []
    for query, row, similar in zip(queries, numbers.tolist(), similarities.tolist(), strict=True):
        found = [
            {"rank": rank, "similarity": round(value, 6), **known[number]}
            for rank, (number, value) in enumerate(zip(row, similar, strict=True), 1)
            if number >= 0
        ]
        answers.append({"query": query, "found": found})
    return answers


def _range(encoder):
    found = encoder.stored_range
    return tuple(found) if isinstance(found, list) else found


def _gallery(cfg, console):
    """The path of the vectors; those of a data set are made first, or brought up to date."""
    kind = cfg.gallery.partition(":")[0]
    if kind != "folder":
        path = Path(cfg.gallery)
        if path.is_dir() and not any(path.glob("*.parquet")):
            raise ValueError(
                f"{path} has no .parquet of vectors; for a folder of images say "
                f"--gallery=folder:{path}"
            )
        return cfg.gallery
    options = {name: getattr(cfg, name) for name in _ALIKE}
    options |= {"dataset": cfg.gallery, "format": "parquet", "update": True}
    options |= {"run_dir": cfg.gallery_dir}
    made = embed.embed(config.make("embed", **options), console)
    return made["vectors"]


def _sheet(answers, about, value_range, say):
    answers = answers[: SHOWN[0]]
    files = [answer["query"] for answer in answers]
    asked = pictures.Paths(files, pictures.range_of(about, value_range), about.channels)
    shown = [found for answer in answers for found in answer["found"][: SHOWN[1]]]
    names, splits = ([found[key] for found in shown] for key in ("name", "split"))
    try:
        gallery = pictures.of_vectors(about, names, splits, value_range)
    except Exception as error:  # a data set that is not here any more; the answers are
        say(f"{SHEET} has no pictures of the gallery: {sentence(error)}")
        gallery = None
    rows, numbers = [], iter(range(len(shown)))
    for place, answer in enumerate(answers):
        row = [(pictures.tile_or_grey(asked, place, sheets.SIDE), "query")]
        for found in answer["found"][: SHOWN[1]]:
            caption = f"{found['similarity']:.3f} {found.get('class') or found['name']}"
            row.append((pictures.tile_or_grey(gallery, next(numbers), sheets.SIDE), caption))
        rows.append(row)
    return sheets.sheet(rows)


def _table(answers):
    table = Table(title="search", title_justify="left")
    for heading in ("query", "rank", "similarity", "found", "class"):
        table.add_column(heading)
    for answer in answers:
        for found in answer["found"]:
            first = found["rank"] == 1
            table.add_row(
                Text(os.path.basename(answer["query"]) if first else ""),
                str(found["rank"]),
                f"{found['similarity']:.4f}",
                Text(found["name"]),
                Text(found.get("class") or ""),
                end_section=found is answer["found"][-1],
            )
    return table
