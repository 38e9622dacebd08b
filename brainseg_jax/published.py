"""What the published work reports."""

START_FILTERS = {"unet": 16, "linknet": 64}
# Of its test slices, a random tenth, at 512×512.
PUBLISHED_DICE = {"unet": 0.703, "linknet": 0.715}
PUBLISHED_SIZE = 512
