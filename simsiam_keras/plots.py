"""Pictures: augmented pairs, curves of a run, and a map of the embedding."""

import warnings

import numpy as np

from simsiam_keras import runs


def write_png(path, image):
    """Writes a uint8 image `[height, width, 3]`."""
    from PIL import Image

    Image.fromarray(image).save(path)


def shown(images):
    """Images of any channels as a picture shows them: grey, or the first three as RGB.

    Args:
        images: uint8 `[n, height, width, channels]`; of one or two channels the first is grey.

    Returns:
        uint8 `[n, height, width, 3]`.
    """
    return images[..., :3] if images.shape[-1] >= 3 else images[..., :1].repeat(3, axis=-1)


def pair_grid(x1, x2, small=(), columns=8, zoom=1):
    """Lays view pairs out as one image: the two views of an image above each other.

    Args:
        x1: uint8 images `[n, size, size, 3]`.
        x2: uint8 images `[n, size, size, 3]`.
        small: further views, uint8 `[n, side, side, 3]` each with side <= size, shown as they are
            to the right of their pair, from top to bottom; default none.
        columns: pairs in a row.
        zoom: whole number that every pixel is enlarged by.

    Returns:
        A uint8 image; white lines separate the pairs.
    """
    cells = np.concatenate([x1, x2], axis=1)
    if small:
        cells = np.concatenate([cells, _stacked(small, cells.shape[1])], axis=2)
    n, high, wide = cells.shape[:3]
    gap, columns = 2, min(columns, n)
    rows = -(-n // columns)
    height = high + gap
    grid = np.full((rows * (height + gap) - gap, columns * (wide + gap) - gap, 3), 255, "uint8")
    for i, cell in enumerate(cells):
        top, left = i // columns * (height + gap), i % columns * (wide + gap)
        grid[top : top + high, left : left + wide] = cell
    return grid.repeat(zoom, axis=0).repeat(zoom, axis=1)


def curves(rows, path, title):
    """Draws loss, std x sqrt(d), effective rank and kNN accuracy over the epochs.

    Args:
        rows: rows of metrics.jsonl.
        path: PNG to write.
        title: heading.
    """
    panels = (
        ("loss", "loss"),
        ("z_std", "std of output × √d (0: collapsed)"),
        ("feature_rank", "effective rank of features"),
        ("knn_accuracy", "kNN accuracy"),
        ("mean_average_precision", "mean average precision of kNN"),
    )
    panels = [p for p in panels if any(row.get(p[0]) is not None for row in rows)]
    figure, axes = _figure(len(panels), (4.2 * len(panels), 3.4))
    for ax, (key, label) in zip(axes, panels, strict=True):
        points = [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]
        marker = "o" if len(points) < 40 else None
        ax.plot(*zip(*points, strict=True), marker=marker, markersize=3, linewidth=1.5)
        ax.set(xlabel="epoch", title=label)
        ax.grid(alpha=0.3)
        if key == "z_std":
            ax.set_ylim(0, 1.1)
            ax.axhline(1, linestyle=":", color="gray")
    _save(figure, path, title)


def embedding_map(features, labels, class_names, path, title, seed=0, limit=2000):
    """Draws a t-SNE map of features, coloured by class where labels are known.

    Args:
        features: `[n, d]`; normalized here, since cosine is what kNN compares.
        labels: `[n]` whole numbers, or None; several for an image are not drawn.
        class_names: names that the labels index, or None.
        path: PNG to write.
        title: heading.
        seed: seed of the subset and of the map.
        limit: at most this many points are drawn, taken at random.

    Reference:
        van der Maaten & Hinton, Visualizing Data using t-SNE, JMLR 2008
    """
    from sklearn.manifold import TSNE

    chosen = np.random.default_rng(seed).permutation(len(features))[:limit]
    x = features[chosen]
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    perplexity = min(30, (len(x) - 1) / 3)
    points = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(x)
    figure, (ax,) = _figure(1, (6.4, 5.2))
    if labels is None or np.ndim(labels) == 2:
        ax.scatter(*points.T, s=6)
    else:
        labels = labels[chosen]
        classes = np.unique(labels)
        for i, c in enumerate(classes):
            colour = _colour(i, len(classes))
            ax.scatter(*points[labels == c].T, s=7, color=colour, label=str(i))
        if len(classes) <= 20:
            legend = ax.legend(
                markerscale=2, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5)
            )
            for text, c in zip(legend.get_texts(), classes, strict=True):
                _write(text, class_names[c] if class_names else str(c))
    ax.set(xticks=[], yticks=[])
    _save(figure, path, title)


def confusion(matrix, class_names, path, title):
    """Draws which classes are taken for which, each row as shares of its images.

    Up to 20 classes have the numbers in their cells, up to 50 their names.

    Args:
        matrix: counts `[classes, classes]`, rows true, columns predicted.
        class_names: names of the classes.
        path: PNG to write.
        title: heading.
    """
    n = len(matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 2.5 + 0.42 * min(n, 40)
    figure, (ax,) = _figure(1, (side + 1, side))
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ax.set(xlabel="classified as", ylabel="is", xticks=[], yticks=[])
    if n <= 50:
        names = [_shortened(name) for name in class_names]
        ax.set_xticks(range(n), names, rotation=45, ha="right", fontsize=9)
        ax.set_yticks(range(n), names, fontsize=9)
        for text in (*ax.get_xticklabels(), *ax.get_yticklabels()):
            text.set_parse_math(False)
    if n <= 20:
        for i, j in np.argwhere(matrix > 0):
            ink = "white" if shares[i, j] > 0.5 else "black"
            ax.text(j, i, str(matrix[i, j]), ha="center", va="center", fontsize=8, color=ink)
    _save(figure, path, title)


def _stacked(views, height):
    """Views of one size, side by side once a column is full, on white: `[n, height, width, 3]`."""
    n, side = views[0].shape[:2]
    per_column = height // side
    width = -(-len(views) // per_column) * side
    canvas = np.full((n, height, width, 3), 255, "uint8")
    for i, view in enumerate(views):
        top, left = i % per_column * side, i // per_column * side
        canvas[:, top : top + side, left : left + side] = view
    return canvas


def _figure(panels, size):
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def _colour(i, count):
    from matplotlib import colormaps

    return colormaps["tab10"](i) if count <= 10 else colormaps["turbo"](i / count)


def _save(figure, path, title):
    _write(figure.suptitle("", fontsize=10), title)
    save(figure, path)


def save(figure, path):
    """Writes a figure of Matplotlib as PNG; it appears when it is whole."""
    with runs.atomic_file(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in letters that the font has not
        figure.savefig(file, dpi=110, format="png")


def _write(text, words):
    # A name of the user's may hold two dollars, which would be mathematics, begin with _, which
    # Matplotlib leaves out of legends, or hold bytes that are no text.
    text.set_parse_math(False)
    text.set_text(_plain(words))


def _plain(words):
    return str(words).encode(errors="replace").decode()


def _shortened(name, most=24):
    name = " ".join(_plain(name).split())
    return name if len(name) <= most else f"{name[: most - 3]}..."
