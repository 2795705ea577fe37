"""The methods, by the name that `--method` takes."""

from simsiam_keras.methods.simsiam import SimSiam

METHODS = {"simsiam": SimSiam}
