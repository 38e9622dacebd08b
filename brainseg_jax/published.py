"""What the published work reports."""

# What the published work reports of its test slices, at 512×512, of a random division of the slices.
PUBLISHED_DICE = {"unet": 0.703, "linknet": 0.715}


PUBLISHED_SIZE = 512
