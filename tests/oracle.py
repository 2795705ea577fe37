"""The paper's formulas as loops over NumPy scalars, in float64 and in the paper's notation.

Written from the paper's Algorithm 1 and equations, PyTorch's documentation and the definition of a
convolution, never from the package, which this module must not import.
"""

import math

import numpy as np


def unit(v):
    """`v / ||v||_2` of one vector; a zero vector stays zero."""
    norm = math.sqrt(sum(float(a) ** 2 for a in v))
    return [float(a) / norm if norm > 0 else 0.0 for a in v]


def distance(p, z):
    """`D(p, z) = -(p / ||p||) . (z / ||z||)` for each row. Equation 1."""
    return np.array(
        [
            -sum(a * b for a, b in zip(unit(p_i), unit(z_i), strict=True))
            for p_i, z_i in zip(p, z, strict=True)
        ]
    )


def distance_gradient(p, z):
    """`dD / dp` for each row with z constant: `-(z^ - (p^ . z^) p^) / ||p||`, hats for unit."""
    rows = []
    for p_i, z_i in zip(p, z, strict=True):
        p_hat, z_hat = unit(p_i), unit(z_i)
        cosine = sum(a * b for a, b in zip(p_hat, z_hat, strict=True))
        norm = math.sqrt(sum(float(a) ** 2 for a in p_i))
        rows.append([-(b - cosine * a) / norm for a, b in zip(p_hat, z_hat, strict=True)])
    return np.array(rows)


def algorithm_1(p1, p2, z1, z2, D=distance):  # noqa: N803 - the paper's name
    """`L = D(p1, z2)/2 + D(p2, z1)/2`, D a mean over the batch. Algorithm 1."""
    return sum(D(p1, z2)) / len(p1) / 2 + sum(D(p2, z1)) / len(p2) / 2


def softmax(v):
    """`exp(v_j) / sum_k exp(v_k)` of one vector, by the definition."""
    powers = [math.exp(float(a)) for a in v]
    return [a / sum(powers) for a in powers]


def cross_entropy(p, z):
    """`D(p, z) = -softmax(z) . log softmax(p)` for each row. Section 4.5."""
    return np.array(
        [
            -sum(b * math.log(a) for a, b in zip(softmax(p_i), softmax(z_i), strict=True))
            for p_i, z_i in zip(p, z, strict=True)
        ]
    )


def cross_entropy_gradient(p, z):
    """`dD / dp` for each row with z constant: `softmax(p) - softmax(z)`."""
    return np.array(
        [
            [a - b for a, b in zip(softmax(p_i), softmax(z_i), strict=True)]
            for p_i, z_i in zip(p, z, strict=True)
        ]
    )


def asymmetric(p, z, D=distance):  # noqa: N803 - the paper's name
    """`L = D(p, z)`, a mean over the batch. Equation 3."""
    return sum(D(p, z)) / len(p)


def output_std(z):
    """`sqrt(d)` times the mean over channels of the deviation of `z / ||z||`. Section 4.1."""
    z = [unit(z_i) for z_i in z]
    n, d = len(z), len(z[0])
    total = 0.0
    for j in range(d):
        mean = sum(z[i][j] for i in range(n)) / n
        total += math.sqrt(sum((z[i][j] - mean) ** 2 for i in range(n)) / n)
    return math.sqrt(d) * total / d


def effective_rank(x):
    """RankMe: `exp(-sum_k p_k log p_k)`, `p_k = s_k / ||s||_1 + 1e-7`. arXiv 2210.02885, section 3.

    The singular values s are NumPy's; the rows are not centred.
    """
    singular = [float(s) for s in np.linalg.svd(np.asarray(x, "float64"), compute_uv=False)]
    entropy = 0.0
    for s in singular:
        p = s / sum(singular) + 1e-7
        entropy -= p * math.log(p)
    return math.exp(entropy)


def squared_distance(a, b):
    return sum((float(u) - float(v)) ** 2 for u, v in zip(a, b, strict=True))


def alignment(z1, z2):
    """`E ||f(x) - f(y)||^2` over positive pairs of unit vectors. arXiv 2005.10242, section 4.1."""
    return sum(squared_distance(unit(a), unit(b)) for a, b in zip(z1, z2, strict=True)) / len(z1)


def uniformity(z):
    """`log E exp(-2 ||f(x) - f(y)||^2)` over different images. arXiv 2005.10242, section 4.1."""
    z = [unit(z_i) for z_i in z]
    terms = [math.exp(-2 * squared_distance(z[i], z[j])) for i in range(len(z)) for j in range(i)]
    return math.log(sum(terms) / len(terms))


def largest_eigenvalue_share(x):
    """Largest eigenvalue of `(1/n) sum_i (x_i - mean) (x_i - mean)^T` over its trace."""
    n, d = len(x), len(x[0])
    mean = [sum(float(x[i][j]) for i in range(n)) / n for j in range(d)]
    covariance = np.zeros((d, d))
    for j in range(d):
        for k in range(d):
            covariance[j, k] = (
                sum((float(x[i][j]) - mean[j]) * (float(x[i][k]) - mean[k]) for i in range(n)) / n
            )
    return max(np.linalg.eigvalsh(covariance)) / sum(covariance[j, j] for j in range(d))


def batch_norm(x, gamma=None, beta=None, epsilon=1e-5):
    """Each channel to mean 0 and (biased) variance 1 over the batch, then scaled and shifted."""
    x = np.asarray(x, "float64")
    y = np.empty_like(x)
    n, d = x.shape
    for j in range(d):
        mean = sum(x[i, j] for i in range(n)) / n
        variance = sum((x[i, j] - mean) ** 2 for i in range(n)) / n
        for i in range(n):
            y[i, j] = (x[i, j] - mean) / math.sqrt(variance + epsilon)
            y[i, j] = y[i, j] * (1 if gamma is None else gamma[j]) + (
                0 if beta is None else beta[j]
            )
    return y


def linear(x, kernel, bias=None):
    """`x W + b`, W of shape `[inputs, outputs]`."""
    y = np.zeros((len(x), kernel.shape[1]))
    for i in range(len(x)):
        for j in range(kernel.shape[1]):
            y[i, j] = sum(float(a) * float(w) for a, w in zip(x[i], kernel[:, j], strict=True))
            y[i, j] += 0 if bias is None else bias[j]
    return y


def conv2d(images, kernel, stride, padding):
    """`torch.nn.Conv2d(stride, padding)` on `[n, h, w, c]` images: zeros on all four sides alike.

    out[i, y, x, o] = sum_{r, s, c} kernel[r, s, c, o] * image[i, y*stride + r - padding, ...]
    """
    n, height, width, channels = images.shape
    size, _, _, filters = kernel.shape
    out_h = (height + 2 * padding - size) // stride + 1
    out_w = (width + 2 * padding - size) // stride + 1
    out = np.zeros((n, out_h, out_w, filters))
    for i, y, x, o in np.ndindex(out.shape):
        for r, s, c in np.ndindex(size, size, channels):
            row, column = y * stride + r - padding, x * stride + s - padding
            if 0 <= row < height and 0 <= column < width:
                out[i, y, x, o] += float(images[i, row, column, c]) * float(kernel[r, s, c, o])
    return out


def sgd(w, gradients, rates, momentum=0.0, weight_decay=0.0, nesterov=False):
    """torch.optim.SGD, line by line of the algorithm in its documentation; dampening 0.

    Returns w after every step, `[steps, ...]`.
    https://pytorch.org/docs/stable/generated/torch.optim.SGD.html
    """
    w, b, path = np.array(w, "float64"), None, []
    for g, lr in zip(gradients, rates, strict=True):
        g = np.array(g, "float64")
        if weight_decay != 0:
            g = g + weight_decay * w
        if momentum != 0:
            b = g if b is None else momentum * b + g
            g = g + momentum * b if nesterov else b
        w = w - lr * g
        path.append(w)
    return np.array(path)


def cosine_rate(t, lr, total, warmup=0):
    """Linear warm-up `lr * t / warmup`, then half a cosine to 0 at `total`; 0 beyond it."""
    if t < warmup:
        return lr * t / warmup
    return lr * (1 + math.cos(math.pi * min(1.0, (t - warmup) / (total - warmup)))) / 2


def cosine(a, b):
    return sum(u * v for u, v in zip(unit(a), unit(b), strict=True))


def nt_xent_of_anchors(z1, z2, temperature):
    """`l(i, j)` of all 2N outputs as anchors, in the order of the views. SimCLR, Algorithm 1."""
    z, n = [*z1, *z2], len(z1)
    losses = []
    for i in range(2 * n):
        j = (i + n) % (2 * n)  # the other view of the same sample
        terms = [math.exp(cosine(z[i], z[k]) / temperature) for k in range(2 * n) if k != i]
        losses.append(-math.log(math.exp(cosine(z[i], z[j]) / temperature) / sum(terms)))
    return losses


def nt_xent(z1, z2, temperature):
    """`(l(2k - 1, 2k) + l(2k, 2k - 1)) / 2` of each sample k, whose mean is SimCLR's loss."""
    losses = nt_xent_of_anchors(z1, z2, temperature)
    n = len(z1)
    return np.array([(losses[k] + losses[k + n]) / 2 for k in range(n)])


def regression(p, z):
    """`|| p / ||p|| - z / ||z|| ||^2` for each row. BYOL, equation 2."""
    return np.array([squared_distance(unit(a), unit(b)) for a, b in zip(p, z, strict=True)])


def sinkhorn(scores, epsilon=0.05, iterations=3):
    """SwAV's pseudo-code, supplementary A: Q of K prototypes by B samples, returned as `[B, K]`."""
    B, K = len(scores), len(scores[0])
    Q = [[math.exp(float(scores[b][k]) / epsilon) for b in range(B)] for k in range(K)]
    everything = sum(map(sum, Q))
    Q = [[q / everything for q in row] for row in Q]
    for _ in range(iterations):
        for k in range(K):
            u = sum(Q[k])
            Q[k] = [q * (1 / K) / u for q in Q[k]]
        for b in range(B):
            column = sum(Q[k][b] for k in range(K))
            for k in range(K):
                Q[k][b] *= (1 / B) / column
    codes = np.empty((B, K))
    for b in range(B):
        column = sum(Q[k][b] for k in range(K))
        for k in range(K):
            codes[b, k] = Q[k][b] / column
    return codes


def swapped_prediction(scores, codes, temperature):
    """`-sum_k q_k log softmax(scores / temperature)_k` for each row. SwAV, equation 2."""
    losses = []
    for s, q in zip(scores, codes, strict=True):
        probabilities = softmax([float(a) / temperature for a in s])
        losses.append(-sum(float(b) * math.log(a) for a, b in zip(probabilities, q, strict=True)))
    return np.array(losses)


def contrastive(distance, same, margin):
    """`Y D^2 + (1 - Y) max(margin - D, 0)^2` of one pair."""
    return same * distance**2 + (1 - same) * max(margin - distance, 0.0) ** 2


def triplet(d_ap, d_an, margin):
    """`max(d(a, p) - d(a, n) + margin, 0)` of one triplet."""
    return max(d_ap - d_an + margin, 0.0)


def euclidean(a, b):
    """`|| a / ||a|| - b / ||b|| ||` of two vectors."""
    return math.sqrt(squared_distance(unit(a), unit(b)))


def contrastive_batch(z, labels, margin):
    """For each sample, the mean over the others of their pairs' contrastive loss."""
    rows = []
    for i in range(len(z)):
        pairs = [
            contrastive(euclidean(z[i], z[j]), int(labels[i] == labels[j]), margin)
            for j in range(len(z))
            if j != i
        ]
        rows.append(sum(pairs) / len(pairs) if pairs else 0.0)
    return np.array(rows)


def others_of(labels, a):
    """The anchor's positives and negatives. arXiv 1703.07737, section 2."""
    positives = [i for i in range(len(labels)) if labels[i] == labels[a] and i != a]
    return positives, [i for i in range(len(labels)) if labels[i] != labels[a]]


def triplet_hard(z, labels, margin):
    """For each anchor, `[m + max_p D(a, p) - min_n D(a, n)]_+`. Batch hard, equation 5."""
    rows = []
    for a in range(len(z)):
        p, n = ([euclidean(z[a], z[i]) for i in others] for others in others_of(labels, a))
        rows.append(triplet(max(p), min(n), margin) if p and n else 0.0)
    return np.array(rows)


def triplet_all(z, labels, margin):
    """For each anchor, the mean of `[m + D(a, p) - D(a, n)]_+`. Batch all, equation 6."""
    rows = []
    for a in range(len(z)):
        positives, negatives = others_of(labels, a)
        losses = [
            triplet(euclidean(z[a], z[p]), euclidean(z[a], z[n]), margin)
            for p in positives
            for n in negatives
        ]
        rows.append(sum(losses) / len(losses) if losses else 0.0)
    return np.array(rows)


def finite_differences(f, x, step=1e-5):
    """Central differences of the scalar `f(x)`, in float64: step^2 from the cut, 1e-16 / step."""
    x = np.asarray(x, "float64")
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[i] = step
        gradient[i] = (f(x + e) - f(x - e)) / (2 * step)
    return gradient
