"""A method of one's own: Barlow Twins (Zbontar et al. 2021, arXiv 2103.03230).

    python examples/custom_method.py --epochs=20

A method says what it makes of two views, `embed`, and its loss for each sample, `objective`. The
step, the measure of collapse, saving and the backends come from the base.
"""

import argparse

import keras
from keras import ops

import simsiam_keras as ss
from simsiam_keras.methods.base import JointEmbedding


@keras.saving.register_keras_serializable("examples")
class BarlowTwins(JointEmbedding):
    """L = sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2, C the correlation of z1 and z2."""

    def __init__(self, encoder, projector, augmenter=None, off_diagonal=5e-3, **kwargs):
        super().__init__(encoder, augmenter, **kwargs)
        self.projector = ss.heads.build(projector, encoder.output_shape[-1], name="projector")
        self.off_diagonal = off_diagonal
        self.built = True

    def embed(self, views, training):
        x1, x2 = views
        return {"z1": self.project(x1, training), "z2": self.project(x2, training)}

    def objective(self, z1, z2):
        z1, z2 = ((z - ops.mean(z, 0)) / (ops.std(z, 0) + 1e-4) for z in (z1, z2))
        n, d = ops.shape(z1)[0], z1.shape[1]
        correlation = ops.matmul(ops.transpose(z1), z2) / ops.cast(n, z1.dtype)
        on, square = ops.eye(d, dtype=z1.dtype), ops.square
        loss = ops.sum(on * square(correlation - 1))
        loss += self.off_diagonal * ops.sum((1 - on) * square(correlation))
        return ops.broadcast_to(loss, (n,))  # the base takes the mean of the samples

    def get_config(self):
        own = {"projector": self.projector, "off_diagonal": self.off_diagonal}
        return {**super().get_config(), **own}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()

    keras.utils.set_random_seed(0)
    train, test = ss.data.load("digits"), ss.data.load("digits", split="test")
    encoder = ss.encoders.resnet10((16, 16, 3), stem="stride2", width=16)
    model = BarlowTwins(encoder, ss.heads.projector(64), ss.augment.Views("digits"))
    model.compile(ss.optimizers.SGD(0.003, momentum=0.9, weight_decay=5e-4))
    model.fit(train.images, batch_size=64, epochs=arguments.epochs, verbose=2)
    bank, queries = (ss.evaluation.features(model.predict, source, 16) for source in (train, test))
    accuracy = ss.evaluation.knn_accuracy(bank, train.labels, queries, test.labels, k=37)
    print(f"kNN {accuracy:.3f}")


if __name__ == "__main__":
    main()
