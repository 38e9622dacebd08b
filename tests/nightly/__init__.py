"""Long programs of the nightly run; pytest does not collect them."""
