"""What a run will take, told from its first steps, and what would be affordable instead."""

import time

import keras

from simsiam_keras import devices
from simsiam_keras.data.decoding import memory_bytes

LONG = 24.0  # hours, from which a run says what would take less
MUCH = 0.8  # of the memory
SECONDS = 10.0  # of steps that are timed
# Multiply-adds of a view, counted by benchmarks.step.forward_macs: each against what is advised.
STEM, SMALLER = "a fifteenth", {"resnet18": "a seventh", "resnet34": "a 15th", "resnet50": "a 16th"}
SMALL_SIDE = 64  # pixels; a `cifar` stem is for less


class Stopwatch(keras.callbacks.Callback):
    """Times steps of an epoch without the first, which compiles, and says once what all will take.

    Args:
        steps: optimizer calls of the whole run.
        flags: the run's flags by name, from which the advice follows.
        side: pixels of a view's side.
        say: function of a sentence, called where the run is long or takes much memory.
        stop: end the training as soon as that is known.
    """

    def __init__(self, steps, flags, side, say, stop=False):
        super().__init__()
        self.steps, self.flags, self.side = steps, flags, side
        self.say, self.stop, self.found = say, stop, None

    def on_epoch_begin(self, epoch, logs=None):
        self.first = None

    def on_train_batch_end(self, batch, logs=None):
        if self.found:
            return
        self.last, now = batch, time.perf_counter()
        if self.first is None:
            float(logs["loss"])  # waits, as what is handed to a device has not been done
            self.first = batch, time.perf_counter()
        elif now - self.first[1] > SECONDS:
            self._tell(batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        if self.found is None and self.first and self.last > self.first[0]:
            self._tell(self.last, logs)

    def _tell(self, batch, logs):
        float(logs["loss"])
        before, began = self.first
        seconds = (time.perf_counter() - began) / max(1, batch - before)
        self.found = {"seconds_a_step": seconds, "hours": self.steps * seconds / 3600}
        for sentence in sentences(
            self.found["hours"], devices.peak_memory(), self.flags, self.side
        ):
            self.say(sentence)
        if self.stop:
            self.model.stop_training = True


def sentences(hours, memory, flags, side):
    """What to say of a run before it has taken long: nothing, where it will not.

    Args:
        hours: that it will take.
        memory: bytes that it takes, or None.
        flags: its flags by name.
        side: pixels of a view's side.

    Yields:
        Sentences.
    """
    whole = devices.accelerator_memory() or memory_bytes()
    if memory and memory > MUCH * whole:
        yield (
            f"Warning: the run takes {memory / 2**30:.1f} GB of {whole / 2**30:.1f} GB of memory. "
            f"Try --batch_size={max(2, flags['batch_size'] // 2)}, or {cheaper(flags, side)}"
        )
    if hours > LONG:
        epochs = int(flags["epochs"] * LONG / hours)
        yield (
            f"Warning: at this speed the run takes {hours:,.0f} hours. What takes less: "
            f"{cheaper(flags, side)}" + (f"; --epochs={epochs} for a day" if epochs else "")
        )


def cheaper(flags, side):
    """Flags that make a step cheaper, in words."""
    ways = []
    if flags["stem"] == "cifar" and side >= SMALL_SIDE:
        ways.append(f"--stem=imagenet, {STEM} of the computation")
    if flags["encoder"] in SMALLER:
        ways.append(f"--encoder=resnet10 --width=32, {SMALLER[flags['encoder']]} of it")
    if side > SMALL_SIDE:
        share = (SMALL_SIDE / side) ** 2
        ways.append(f"--image_size={SMALL_SIDE}, {100 * share:.0f} % of it")
    return "; ".join(ways) or "a machine with a GPU"


def plan(parts, say):
    """Trains a few steps, which are thrown away, and says what a run will take.

    Args:
        parts: a `build.Parts`.
        say: function of a sentence.

    Returns:
        A dict of numbers, for the closing table; nothing is written.
    """
    say(parts.headline)
    watch = Stopwatch(parts.epochs * parts.steps, parts.flags, parts.recipe.size, say, stop=True)
    parts.enter(0)
    parts.model.fit(
        parts.batches(0, 0),
        # Two, where all steps of the first one are one program, which compiles.
        epochs=min(2, parts.last(0)),
        steps_per_epoch=parts.steps,
        verbose=0,
        callbacks=[watch],
    )
    memory, found = devices.peak_memory(), watch.found or {}
    return {
        "images": len(parts.source),
        "steps": parts.epochs * parts.steps,
        "seconds_a_step": found.get("seconds_a_step"),
        "images_per_second": found and round(parts.batch_size / found["seconds_a_step"], 1) or None,
        "hours": found.get("hours"),
        "memory_gb": memory and round(memory / 2**30, 2),
        "written": "nothing; leave out --plan to train",
    }
