"""TensorBoard, beside a run: what fails here is said once, and ends nothing."""

import dataclasses
import os
import time

from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2

from simsiam_keras.family import FAMILY

# The heading that a number stands under; all others are of the training itself.
GROUPS = {
    "collapse": (
        "z_std feature_rank output_rank alignment uniformity eigenvalue_share alpha_req lidar"
    ).split(),
    "quality": "knn_accuracy knn_of_the_bank mean_average_precision".split(),
}
TRAINING = "training"
# What runs are compared by in the hyper-parameters' table, with the flags of the method.
COMPARED = (
    "method dataset encoder weights recipe image_size epochs batch_size base_lr weight_decay seed "
    "view_whitening"
).split()


def tag(name):
    """The name of a number in TensorBoard.

    Example:
    >>> tag("z_std"), tag("learning_rate")
    ('collapse/z_std', 'training/learning_rate')
    """
    groups = (group for group, names in GROUPS.items() if name in names)
    return f"{next(groups, TRAINING)}/{name}"


def compared(flags):
    """Of a run's flags those that it is compared with others by, values by name."""
    own = [field.name for field in dataclasses.fields(FAMILY[flags["method"]].flags)]
    return {name: flags[name] for name in (*COMPARED, *own)}


class Board:
    """Writes event files, at once: a queue behind a full disk would hold the run up for ever.

    Args:
        folder: where the event files go.
        say: function of a sentence.
        first_step: what earlier event files hold from here on is measured again; default 0.
    """

    def __init__(self, folder, say, first_step=0):
        self.say, self.broken = say, False
        self._guarded(self._open, folder, first_step)

    def _open(self, folder, first_step):
        folder.mkdir(parents=True, exist_ok=True)
        # By process: a run that is started again within a second would overwrite its file.
        self.writer = event_file_writer.EventsWriter(str(folder / "events"), f".{os.getpid()}")
        if first_step:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(event_pb2.Event(session_log=start), first_step)

    def text(self, tag, text):
        """Adds a text."""
        readable = text.encode(errors="replace").decode()  # a path may hold what is no text
        self._guarded(lambda: self._add(summary.text(tag, readable), 0))

    def image(self, tag, image):
        """Adds a picture, uint8 `[height, width, 3]`."""
        self._guarded(lambda: self._add(summary.image(tag, image, dataformats="HWC"), 0))

    def hparams(self, flags, metrics):
        """Adds what runs are compared by, and the numbers that they are compared in.

        Args:
            flags: numbers, texts and switches by name.
            metrics: names of numbers that `scalars` adds.
        """
        known = {name: value for name, value in flags.items() if value not in ("", None)}

        def add():
            for found in summary.hparams(known, {tag(name): 0.0 for name in metrics}):
                self._add(found, 0)

        self._guarded(add)

    def scalars(self, values, step):
        """Adds numbers by name, each under its heading."""

        def add():
            for name, value in values.items():
                self._add(summary.scalar(tag(name), value), step)
            self.writer.flush()

        self._guarded(add)

    def close(self):
        """Writes what is left."""
        self._guarded(lambda: self.writer.close())

    def _add(self, found, step):
        self._write(event_pb2.Event(summary=found), step)

    def _write(self, event, step):
        event.step, event.wall_time = step, time.time()
        self.writer.write_event(event)

    def _guarded(self, function, *arguments):
        if self.broken:
            return
        try:
            function(*arguments)
        except Exception as error:
            self.broken = True
            self.say(f"TensorBoard's files cannot be written, the run goes on without: {error}")
