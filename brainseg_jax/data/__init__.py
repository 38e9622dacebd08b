"""From the published archives to batches on the device."""
