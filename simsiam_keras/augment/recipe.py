"""The augmentation recipe: one set of numbers that every augmenter reads."""

import dataclasses
import math

# Beyond these a number is a mistake, which would take hours or all memory before it shows.
LARGEST_SIZE = 8192  # px
LARGEST_SIGMA = 50.0  # px
LEAST_EVAL_CROP = 0.1  # an image is first scaled to size / eval_crop


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Strengths of the random augmentation that makes a view, in torchvision's definitions.

    A view is, in this order: random resized crop, colour jitter, grayscale, Gaussian blur,
    horizontal flip. Images have values 0..255. A probability or strength of 0 leaves the operation
    out. Small views (multi-crop) differ in their size and crop area alone.

    Args:
        size: side of a view in pixels, at most 8192.
        crop_area: range of the crop's share of the image area, within (0, 1].
        crop_aspect: range of the crop's width / height, drawn uniformly in its logarithm.
        flip: probability of a horizontal flip.
        jitter: strengths (b, c, s, h): brightness, contrast and saturation factors are uniform in
            [max(0, 1 - b), 1 + b] and so on; the hue shift is uniform in [-h, h] of the colour
            circle, h <= 0.5.
        jitter_probability: probability that a view is jittered at all.
        grayscale: probability that a view becomes grey.
        blur: probability that a view is blurred.
        blur_sigma: range of the blur's standard deviation in pixels, at most 50.
        eval_crop: evaluation's centre crop as a fraction of the resized short side, within [.1, 1];
            224 / 256 for ImageNet.
        small_views: number of small views beside the full ones.
        small_size: side of a small view in pixels, within [1, size]; read where there are any.
        small_crop_area: `crop_area` of a small view; default SwAV's.
        channels: of the images; default 3, RGB. Any other number has no saturation, no hue and no
            grayscale, which must be 0, see `in_channels`; contrast is about the mean of all values.

    Raises:
        ValueError: if a number is out of its range.

    Example:
    >>> dataclasses.replace(CIFAR, size=64).crop_area
    (0.2, 1.0)

    Reference:
        Chen & He, Exploring Simple Siamese Representation Learning, 2020, section 3 and
        appendix D, https://arxiv.org/abs/2011.10566; small views: Caron et al., Unsupervised
        Learning of Visual Features by Contrasting Cluster Assignments, 2020, section 3.2,
        https://arxiv.org/abs/2006.09882
    """

    size: int
    crop_area: tuple = (0.2, 1.0)
    crop_aspect: tuple = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: tuple = (0.4, 0.4, 0.4, 0.1)
    jitter_probability: float = 0.8
    grayscale: float = 0.2
    blur: float = 0.0
    blur_sigma: tuple = (0.1, 2.0)
    eval_crop: float = 1.0
    small_views: int = 0
    small_size: int = 0
    small_crop_area: tuple = (0.05, 0.14)
    channels: int = 3

    def __post_init__(self):
        if not isinstance(self.size, int) or not 1 <= self.size <= LARGEST_SIZE:
            raise ValueError(
                f"`size` must be an integer within [1, {LARGEST_SIZE}]. Received: size={self.size}"
            )
        for name in ("flip", "jitter_probability", "grayscale", "blur"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` must be within [0, 1]. Received: {name}={value}")
        for name in ("crop_area", "crop_aspect", "blur_sigma", "small_crop_area"):
            value = getattr(self, name)
            if len(value) != 2 or not 0 < value[0] <= value[1]:
                raise ValueError(
                    f"`{name}` must be (low, high) with 0 < low <= high. Received: {name}={value}"
                )
        for name in ("crop_area", "small_crop_area"):
            value = getattr(self, name)
            if value[1] > 1:
                raise ValueError(f"`{name}` must be within (0, 1]. Received: {name}={value}")
        if self.blur_sigma[1] > LARGEST_SIGMA:
            raise ValueError(
                f"`blur_sigma` must be at most {LARGEST_SIGMA:g} pixels. "
                f"Received: blur_sigma={self.blur_sigma}"
            )
        b_c_s, h = self.jitter[:3], self.jitter[3:]
        if len(h) != 1 or not all(0 <= x < math.inf for x in b_c_s) or not 0 <= h[0] <= 0.5:
            raise ValueError(
                "`jitter` must be four finite strengths >= 0 (brightness, contrast, saturation, "
                f"hue), hue <= 0.5. Received: jitter={self.jitter}"
            )
        if not isinstance(self.channels, int) or self.channels < 1:
            raise ValueError(
                f"`channels` must be an integer >= 1. Received: channels={self.channels}"
            )
        if self.channels != 3 and (any(self.jitter[2:]) or self.grayscale):
            raise ValueError(
                "`jitter` must have saturation and hue 0, and `grayscale` must be 0, where "
                f"`channels` is not 3; `in_channels` makes them so. Received: "
                f"channels={self.channels}, jitter={self.jitter}, grayscale={self.grayscale}"
            )
        if not LEAST_EVAL_CROP <= self.eval_crop <= 1:
            raise ValueError(
                f"`eval_crop` must be within [{LEAST_EVAL_CROP}, 1]. "
                f"Received: eval_crop={self.eval_crop}"
            )
        if not isinstance(self.small_views, int) or self.small_views < 0:
            raise ValueError(
                f"`small_views` must be an integer >= 0. Received: small_views={self.small_views}"
            )
        side = self.small_size
        if self.small_views and (not isinstance(side, int) or not 1 <= side <= self.size):
            raise ValueError(
                f"`small_size` must be an integer within [1, {self.size}], the size of a full "
                f"view, with `small_views`. Received: small_size={side}"
            )

    @property
    def small(self):
        """The recipe of the small views alone; None when there are none."""
        if not self.small_views:
            return None
        return dataclasses.replace(
            self, size=self.small_size, crop_area=self.small_crop_area, small_views=0
        )


CIFAR = Recipe(size=32)
IMAGENET = Recipe(size=224, blur=0.5, eval_crop=224 / 256)
# A digit is not its mirror image, and grey images have neither hue nor saturation.
DIGITS = Recipe(size=16, flip=0.0, jitter=(0.4, 0.4, 0.0, 0.0), grayscale=0.0)

RECIPES = {"cifar": CIFAR, "imagenet": IMAGENET, "digits": DIGITS}


def named(recipe, size=None):
    """A recipe by its name, and at a size.

    Args:
        recipe: a `Recipe`, or the name of one in `RECIPES`.
        size: side of a full view in pixels; default the recipe's.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: if no recipe has the name, or it cannot have the size.

    Example:
    >>> named("cifar", 64) == dataclasses.replace(CIFAR, size=64)
    True
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            known = ", ".join(RECIPES)
            raise ValueError(
                f"`recipe` must be a Recipe or one of {known}. Received: recipe={recipe}"
            )
        recipe = RECIPES[recipe]
    return recipe if size is None else dataclasses.replace(recipe, size=size)


def in_channels(recipe, channels):
    """A recipe for images of other channels, of which only red, green and blue are colours.

    Args:
        recipe: a `Recipe`.
        channels: of the images, at least 1.

    Returns:
        The recipe itself where it has them; otherwise, but for 3, one without saturation, hue and
        grayscale.

    Example:
    >>> in_channels(CIFAR, 13).jitter
    (0.4, 0.4, 0.0, 0.0)
    """
    if channels in (3, recipe.channels):
        return dataclasses.replace(recipe, channels=channels)
    jitter = (*recipe.jitter[:2], 0.0, 0.0)
    return dataclasses.replace(recipe, channels=channels, jitter=jitter, grayscale=0.0)


def weaker_colors(recipe, strength):
    """A recipe with all that changes colours scaled, SimCLR's s as a share of the recipe's.

    Args:
        recipe: a `Recipe`.
        strength: at least 0; 1 is the recipe itself.

    Returns:
        A `Recipe`, whose jitter and probability of grayscale are `strength` times the old ones.

    Raises:
        ValueError: if hue or probability get beyond their range.

    Example:
    >>> weaker_colors(CIFAR, 0.5).jitter, weaker_colors(CIFAR, 0.5).grayscale
    ((0.2, 0.2, 0.2, 0.05), 0.1)

    Reference:
        Chen et al., A Simple Framework for Contrastive Learning, 2020, section 3.2 and appendix A,
        https://arxiv.org/abs/2002.05709
    """
    jitter = tuple(strength * x for x in recipe.jitter)
    return dataclasses.replace(recipe, jitter=jitter, grayscale=strength * recipe.grayscale)


def needed_side(recipe):
    """Short side below which a decoder's shrinking would cost the smallest crop resolution.

    Args:
        recipe: an augmentation recipe.

    Returns:
        An integer, of a square image's side.
    """
    low, high = recipe.crop_aspect

    def needed(recipe):
        # Of a square image's side, the smallest and narrowest crop has this fraction.
        fraction = (recipe.crop_area[0] * min(low, 1 / high, 1)) ** 0.5
        return math.ceil(recipe.size / fraction)

    return max(needed(each) for each in (recipe, recipe.small) if each)
