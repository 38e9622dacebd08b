"""What tests/nightly/fuzz.py consists of: seeds, damage, readers and the process that reads."""
