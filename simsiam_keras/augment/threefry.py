"""Random numbers that are functions of a seed and a place: Threefry, in `keras.ops`."""

from keras import ops


def uniform(seed, step, n, count, first=0):
    """Uniform draws in [0, 1), a function of seed, step, row and column alone.

    `keras.random` takes no tensor as a seed, differs between the backends, and on torch would give
    seed 0 at step 1 the draws of seed 1 at step 0.

    Args:
        seed: an integer within [0, 2**32).
        step: an integer scalar, may be a tensor.
        n: number of rows, may be a tensor.
        count: number of columns.
        first: index of the first row, may be a tensor.

    Returns:
        float32 `[n, count]`, multiples of 2**-24.
    """
    rows = (first + ops.arange(n, dtype="int32"))[:, None]
    columns = ops.arange((count + 1) // 2, dtype="int32")[None]
    bits = ops.concatenate(threefry((seed, ops.cast(step, "int32")), (rows, columns)), axis=1)
    return ops.cast(shift_right(bits[:, :count], 8), "float32") * 2.0**-24


def threefry(key, counter):
    """Two words of random bits for each counter: Threefry-2x32 of 20 rounds.

    In int32, whose arithmetic wraps and which every backend has.

    Args:
        key: two words; integers or int32 scalars.
        counter: two int32 tensors that broadcast to one shape.

    Returns:
        Two int32 tensors of that shape.

    Reference:
        Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011, section 4.2
    """
    key = [ops.convert_to_tensor(signed(k) if isinstance(k, int) else k, "int32") for k in key]
    key.append(ops.bitwise_xor(ops.bitwise_xor(key[0], key[1]), 0x1BD11BDA))
    x, y = counter[0] + key[0], counter[1] + key[1]
    for group in range(1, 6):
        for rotation in ((17, 29, 16, 24), (13, 15, 26, 6))[group % 2]:
            x = x + y
            y = ops.bitwise_xor(rotate(y, rotation), x)
        x, y = x + key[group % 3], y + (key[(group + 1) % 3] + group)
    return x, y


def rotate(x, bits):
    """Rotate the bits of int32 `x` to the left."""
    return ops.bitwise_or(ops.left_shift(x, bits), shift_right(x, 32 - bits))


def shift_right(x, bits):
    """Shift int32 `x` to the right and fill with zeros, as if it were unsigned."""
    return ops.bitwise_and(ops.right_shift(x, bits), 2 ** (32 - bits) - 1)


def signed(word):
    """The int32 of the bits of a 32-bit unsigned integer."""
    return (word + 2**31) % 2**32 - 2**31
