"""Values that would take all memory or hours are refused where they are given."""

import pytest

from simsiam_keras import build, config


@pytest.mark.parametrize("flags", [{"image_size": 8192, "batch_size": 1024}, {"image_size": 10**6}])
def test_views_that_no_machine_holds_are_refused_at_once(flags):
    flags = {"dataset": "digits", "encoder": "resnet10", "augment": "device", **flags}
    cfg = config.make("pretrain", **flags)
    with build.place(cfg), pytest.raises(ValueError, match="must fit in memory|within .1, 8192"):
        build.parts(cfg, print)


@pytest.mark.parametrize("min_crop", [1e-300, 1e-9])
def test_a_tiny_crop_is_the_central_one_at_worst(min_crop, tmp_path):
    from simsiam_keras import commands

    flags = {"augment": "device", "recipe": "digits", "pairs": 2, "min_crop": min_crop}
    cfg = config.make("preview", output=str(tmp_path / "a.png"), **flags)
    assert commands.preview(cfg)["pairs"] == 2
