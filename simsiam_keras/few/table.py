"""The cells of a table, filled in order: frozen features first, then networks that are trained."""

import functools

import numpy as np

from simsiam_keras.evaluation import logistic
from simsiam_keras.few import cells, draws, finetune, images, rows
from simsiam_keras.progress import counted

# What the network of a row begins with.
TRAINED_ON = {
    rows.START_FINETUNED: rows.START,
    rows.FINETUNED: rows.TRAINED,
    rows.SCRATCH: rows.SCRATCH,
}


class Table:
    """What is measured, in order; `fill` measures what is not there yet.

    Args:
        cfg: a `config.Worth`.
        folder: where cells are kept.
        titles: `{row: title}`.
        encoder: an `export.LoadedEncoder`, after self-supervision.
        start: another, before it, or None.
        sources: the training and the test images.
        flip: whether views are mirrored.
        console: a `rich.console.Console`.
    """

    def __init__(self, cfg, folder, titles, encoder, start, sources, flip, console):
        self.cfg, self.folder, self.titles = cfg, folder, titles
        self.encoder, self.start = encoder, start
        self.sources, self.flip, self.console = sources, flip, console
        self.identity, self.cells = {}, []

    def fill(self, asked, tuning, identity):
        """Measures every cell, first those of frozen features.

        Args:
            asked: labels per class, as `draws.parsed` gives them.
            tuning: a `cells.Tuning`.
            identity: what is measured, `{name: digest}`.
        """
        self.identity = identity
        # Read before anything is drawn: an image that cannot be decoded has no label to draw.
        first = self._of(next(iter(self.titles)))
        self.labels = first[1]
        self.beyond = draws.beyond(self.labels, asked)
        self.numbers = [number for number in asked if number not in self.beyond]
        if self.beyond and draws.ALL not in self.numbers:
            self.numbers.append(draws.ALL)
        self.smaller = draws.smaller(self.labels, self.numbers)
        drawn = draws.draws(self.labels, self.numbers, self.cfg.draws, self.cfg.seed)
        where = self.folder / "cells"
        self.cells = [
            cells.Cell(row, draw, where, self.identity) for row in self.titles for draw in drawn
        ]
        self._fill_linear(first)
        self._fill_networks(tuning)

    def right(self):
        """What was classified rightly, `{(row, number): [draws, images]}` of 0 and 1."""
        return {
            (row, number): np.stack(
                [cells.right_of(cell.measured()) for cell in self.cells_of(row, number)]
            )
            for row in self.titles
            for number in self.numbers
        }

    def cells_of(self, row, number):
        """The cells of a row and a number of labels, one for each draw."""
        return [c for c in self.cells if (c.row, c.draw.per_class) == (row, number)]

    def done(self):
        """How many cells are measured, and how many there are."""
        return sum(cell.measured() is not None for cell in self.cells), len(self.cells)

    def _waiting(self, row):
        return [cell for cell in self.cells if cell.row == row and cell.measured() is None]

    def _of(self, row):
        described = rows.features(row, self.encoder, self.start, self.sources[0], self.cfg.seed)
        return rows.of_both(
            described, *self.sources, self.cfg.batch_size, self.folder, self.console
        )

    def _fill_linear(self, first):
        linear = [row for row in self.titles if row not in TRAINED_ON]
        total = len([cell for cell in self.cells if cell.row in linear])
        waiting = sum(len(self._waiting(row)) for row in linear)
        with counted("classifiers", total, total - waiting, self.console) as advance:
            for row in linear:
                cells_of = self._waiting(row)
                if not cells_of:
                    continue
                data = first if row == linear[0] else self._of(row)
                _refuse_changed(data, self.labels)
                scaled = logistic.scaling(data[0])
                for cell in cells_of:
                    cells.linear(cell, scaled, data, self.cfg.seed)
                    advance(1)
                self._say_row(row)

    def _fill_networks(self, tuning):
        trained = [row for row in self.titles if row in TRAINED_ON and self._waiting(row)]
        if not trained:
            return
        size, crop = self.encoder.image_size, self.encoder.eval_crop
        with self.console.status("reading images"):
            parts = [images.kept(source, size, crop, self.folder) for source in self.sources]
        labels = [source.labels[source.rows()] for source in self.sources]
        data = parts[0], labels[0], parts[1], labels[1]
        _refuse_changed(data, self.labels)
        waiting = [cell for row in trained for cell in self._waiting(row)]
        steps = sum(self._steps(tuning, cell) for cell in waiting)
        with counted("fine-tuning, steps", steps, 0, self.console) as advance:
            for row in trained:
                self._train(row, data, tuning, functools.partial(advance, 1))

    def _steps(self, tuning, cell):
        return tuning.total(cell.draw, self.labels, self.cfg.finetune_batch)

    def _train(self, row, data, tuning, on_step):
        base = TRAINED_ON[row]
        encoder = self.start if base == rows.START else self.encoder
        model, features = encoder.model, None
        if base != rows.SCRATCH:
            size = self.cfg.batch_size
            parts = [data[0][first : first + size] for first in range(0, len(data[0]), size)]
            features = np.concatenate([encoder(np.asarray(part)) for part in parts])
        net = finetune.Network(
            model,
            classes=len(np.unique(self.labels)),
            flip=self.flip,
            min_crop=self.cfg.finetune_min_crop,
            learn_statistics=base == rows.SCRATCH or self.cfg.finetune_batch_norm == "learned",
            batch_size=self.cfg.finetune_batch,
            seed=self.cfg.seed,
        )
        for cell in self._waiting(row):
            start = model.get_weights()
            if base == rows.SCRATCH:
                start = finetune.random_like(model, scratch_seed(self.cfg.seed, cell.draw))
                start = start.get_weights()
            cells.network(cell, net, start, data, features, tuning, on_step)
            if not self.console.is_terminal:
                self._say_cell(cell)
        self._say_row(row)

    def _say_cell(self, cell):
        found, (done, total) = cell.measured(), self.done()
        self._say(
            f"[{done}/{total}] {self.titles[cell.row]}, {draws.heading(cell.draw.per_class)}, "
            f"draw {cell.draw.number}: {100 * found['accuracy']:.1f} %, {found['seconds']:.0f} s"
        )

    def _say_row(self, row):
        parts = []
        for number in self.numbers:
            found = [cell.measured()["accuracy"] for cell in self.cells_of(row, number)]
            parts.append(f"{draws.heading(number)} {100 * np.mean(found):.1f} %")
        self._say(f"{self.titles[row]}: {', '.join(parts)}")

    def _say(self, text):
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)


def scratch_seed(seed, draw):
    """The seed of the weights that a network is trained from scratch from: another in each draw."""
    return seed + 1 + draw.number


def _refuse_changed(data, labels):
    if len(data[0]) != len(labels) or not np.array_equal(data[1], labels):
        raise ValueError("the images changed while they were read; run the same command again")
