"""Values of PyTorch's own losses, for tests that compare ours with them.

    .venv-torch/bin/python tests/golden/losses.py

writes `losses.json` beside this file, with the inputs, the command and the version.
"""

import json
from pathlib import Path

import numpy as np

COMMAND = ".venv-torch/bin/python tests/golden/losses.py"


def main():
    import torch
    from torch.nn import functional as F  # noqa: N812 - PyTorch's own name for it

    random = np.random.default_rng(0)
    z1, z2, z3 = (random.normal(size=(7, 5)).round(3) for _ in range(3))
    scores = random.uniform(-1, 1, size=(7, 4)).round(3)
    codes = random.dirichlet(np.ones(4), size=7)
    a, b, c = (F.normalize(torch.tensor(z)) for z in (z1, z2, z3))

    def nt_xent(temperature):
        z = torch.cat([a, b])
        logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
        losses = F.cross_entropy(logits, torch.arange(14).roll(7), reduction="none")
        return losses.reshape(2, 7).mean(0)

    def soft_cross_entropy(temperature):
        logits = torch.tensor(scores) / temperature
        return F.cross_entropy(logits, torch.tensor(codes), reduction="none")

    def triplet(margin):
        # eps is added to each difference of coordinates; ours is inside the root.
        return torch.nn.TripletMarginLoss(margin, eps=0.0, reduction="none")(a, b, c)

    values = {
        "nt_xent": {t: nt_xent(t) for t in (0.1, 0.5, 1.0)},
        "regression": 5 * F.mse_loss(a, b, reduction="none").mean(1),
        "swapped_prediction": {t: soft_cross_entropy(t) for t in (0.1, 1.0)},
        "pairwise_distances": torch.cdist(a, a, compute_mode="donot_use_mm_for_euclid_dist"),
        "triplet": {m: triplet(m) for m in (0.2, 1.0)},
    }
    record = {
        "command": COMMAND,
        "version": f"torch {torch.__version__}",
        "inputs": {"z1": z1, "z2": z2, "z3": z3, "scores": scores, "codes": codes},
        "values": values,
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(record, default=lambda x: x.tolist()) + "\n", "utf-8")


if __name__ == "__main__":
    main()
