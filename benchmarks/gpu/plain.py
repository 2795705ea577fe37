"""Plain PyTorch on a GPU, as its user would have it fast: what `bench` measures against.

The network, loss and optimizer of `benchmarks/plain_torch.py`, channels last, bfloat16 autocast,
`torch.compile`, the images on the device and the same augmentation there, from torch's own
generator. `tests/test_gpu_script.py` gives this augmentation and the package's the same draws.
"""

import math

import torch

from benchmarks import plain_torch

ATTEMPTS = 10
LUMA = (0.299, 0.587, 0.114)
CONTRAST, SATURATION, HUE = 1, 2, 3  # after brightness
# Uniform draws that a view needs: for the crop, the jitter, the grey and the mirror.
WIDTHS = (2 * ATTEMPTS + 2, 1 + 2 * 4, 1, 1)


def runner(cfg, recipe, images):
    """The model, and a function that makes so many steps on uint8 images, waits and counts them."""
    torch.manual_seed(cfg.seed)
    torch.set_float32_matmul_precision("high")  # as JAX on a GPU
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # On a CPU the backward of channels last crashed at the tiny size (PyTorch 2.13).
    layout = torch.channels_last if device == "cuda" else torch.contiguous_format
    model = plain_torch.SimSiam(cfg).to(device, memory_format=layout)
    optimizer = plain_torch.sgd(model, cfg)
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
    order = torch.randperm(len(images), device=device)

    def loss_of(batch):
        draws = torch.rand(2 * len(batch), sum(WIDTHS), device=batch.device)
        x1, x2 = augment(torch.cat([batch, batch]), draws, recipe).chunk(2)
        x1, x2 = (x.contiguous(memory_format=layout) for x in (x1, x2))
        with torch.autocast("cuda", torch.bfloat16, enabled=device == "cuda"):  # slow on a CPU
            return model(x1, x2)

    if device == "cuda":
        loss_of = torch.compile(loss_of)
    done = 0

    def run(steps):
        nonlocal done
        for _ in range(steps):
            start = done * cfg.batch_size % (len(images) - cfg.batch_size + 1)
            optimizer.zero_grad()
            loss, _ = loss_of(images[order[start : start + cfg.batch_size]])
            loss.backward()
            optimizer.step()
            done += 1
        loss.item()  # waits
        return steps

    return model, run


def augment(images, draws, recipe):
    """One view of each image, uint8 `[n, 3, h, w]`, with draws `[n, sum(WIDTHS)]` in [0, 1)."""
    cropped, jittered, grey, mirrored = draws.split(WIDTHS, dim=1)
    views = crop(images.float(), cropped, mirrored < recipe.flip, recipe)
    views = jitter(views, jittered, recipe)
    return torch.where((grey < recipe.grayscale)[:, :, None, None], luma(views), views)


def crop(images, draws, mirrored, recipe):
    """RandomResizedCrop and mirror, as products with interpolation matrices."""
    height, width = images.shape[2:]
    area, aspect, corner = draws.tensor_split([ATTEMPTS, 2 * ATTEMPTS], dim=1)
    area = between(area, *recipe.crop_area) * height * width
    aspect = between(aspect, *map(math.log, recipe.crop_aspect)).exp()
    h, w = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    fits = (h >= 1) & (h <= height) & (w >= 1) & (w <= width)
    first = fits.int().argmax(1, keepdim=True)
    h, w, fitted = h.gather(1, first), w.gather(1, first), fits.any(1, keepdim=True)
    # None of ten fits: the whole of the image, which is square here.
    h, w = torch.where(fitted, h, height), torch.where(fitted, w, width)
    top = (corner[:, :1] * (height - h + 1)).floor().clamp(max=height - h)
    left = (corner[:, 1:] * (width - w + 1)).floor().clamp(max=width - w)
    rows, columns = resizing(top, h, height, recipe.size), resizing(left, w, width, recipe.size)
    columns = torch.where(mirrored[:, :, None], columns.flip(1), columns)
    return rows[:, None] @ images @ columns[:, None].mT


def resizing(start, length, pixels, size):
    """Antialiased bilinear weights `[n, size, pixels]` of an interval of a line."""
    start, length = start[:, :, None], length[:, :, None]
    step = length / size
    target = start + (torch.arange(size, device=start.device)[:, None] + 0.5) * step
    source = torch.arange(pixels, device=start.device) + 0.5
    weights = (1 - (source - target).abs() / step.clamp(min=1)).clamp(min=0)
    weights = weights * ((source > start) & (source < start + length))
    return weights / weights.sum(2, keepdim=True)


def jitter(views, draws, recipe):
    """ColorJitter in a random order for each view; hue is computed once, between the others."""
    strengths = recipe.jitter
    low = [max(0.0, 1 - s) for s in strengths[:3]] + [-strengths[3]]
    high = [1 + s for s in strengths[:3]] + [strengths[3]]
    low, high = (torch.tensor(x, device=views.device) for x in (low, high))
    whether, order, amount = draws.split((1, 4, 4), dim=1)
    order = order.argsort(1)
    amount = between(amount, low[order], high[order])
    neutral = (order != HUE).float()
    amount = torch.where(whether < recipe.jitter_probability, amount, neutral)
    turn = (order == HUE).int().argmax(1, keepdim=True)
    slot = torch.arange(order.shape[1], device=views.device)
    views = blends(views, order[:, :-1], torch.where(slot < turn, amount, 1.0)[:, :-1])
    views = shift_hue(views, amount.gather(1, turn)[:, :, None, None])
    return blends(views, order[:, 1:], torch.where(slot > turn, amount, 1.0)[:, 1:])


def blends(views, order, amount):
    """Brightness, contrast or saturation, one slot of the order after the other."""
    for operation, factor in zip(order.T, amount.T, strict=True):
        operation, factor = operation[:, None, None, None], factor[:, None, None, None]
        grey = luma(views)
        target = torch.where(operation == CONTRAST, grey.mean((1, 2, 3), keepdim=True), 0.0)
        target = torch.where(operation == SATURATION, grey, target)
        views = (factor * views + (1 - factor) * target).clamp(0, 255)
    return views


def shift_hue(views, shift):
    """Turn the hue by a share of the circle, value and chroma kept."""
    r, g, b = views.split(1, dim=1)
    high = views.amax(1, keepdim=True)
    chroma = high - views.amin(1, keepdim=True)
    difference = torch.where(high == r, g - b, torch.where(high == g, b - r, r - g))
    sector = torch.where(high == r, 0.0, torch.where(high == g, 2.0, 4.0))
    hue = sector + difference / chroma.clamp(min=1e-6) + 6 * shift
    k = torch.cat([hue + 5, hue + 3, hue + 1], 1)
    k = k - 6 * (k / 6).floor()
    return high - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def luma(views):
    return sum(weight * views[:, c : c + 1] for c, weight in enumerate(LUMA))


def between(uniform, low, high):
    return low + (high - low) * uniform
