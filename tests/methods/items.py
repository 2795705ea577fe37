"""Data that `fit` takes besides arrays; imported where there is no pytest too."""

import keras


class Items(keras.utils.PyDataset):
    """Batches of some arrays, the last of what is left."""

    def __init__(self, x, size):
        super().__init__()
        self.x, self.size = x, size

    def __len__(self):
        return -(-len(self.x[0]) // self.size)

    def __getitem__(self, i):
        return tuple(x[i * self.size : (i + 1) * self.size] for x in self.x)


def generated(x, size):
    """The same, from a generator."""
    items = Items(x, size)
    yield from (items[i] for i in range(len(items)))
