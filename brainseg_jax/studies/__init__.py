"""What takes several runs: cross-validation, ablations, benchmarks, reproduction."""
