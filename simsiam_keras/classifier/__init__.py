"""A calibrated classifier from an encoder and labels: `fine-tune` makes it, `predict` uses it."""
