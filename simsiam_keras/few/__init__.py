"""What an encoder is worth with few labels: draws of labels, classifiers, report of `worth`."""
