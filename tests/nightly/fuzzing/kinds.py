"""All kinds of files that the fuzzer damages."""

from tests.nightly.fuzzing import figshare, images, runs, settings
from tests.nightly.fuzzing.kind import Kind

KINDS: dict[str, Kind] = figshare.KINDS | images.KINDS | settings.KINDS | runs.KINDS
