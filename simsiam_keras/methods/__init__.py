"""The methods, by the name that `--method` takes."""

from simsiam_keras.methods.byol import BYOL
from simsiam_keras.methods.siamese import SiameseContrastive, SiameseTriplet
from simsiam_keras.methods.simclr import SimCLR
from simsiam_keras.methods.simsiam import SimSiam
from simsiam_keras.methods.swav import SwAV

METHODS = {
    "simsiam": SimSiam,
    "byol": BYOL,
    "simclr": SimCLR,
    "swav": SwAV,
    "siamese_contrastive": SiameseContrastive,
    "siamese_triplet": SiameseTriplet,
}
