"""Studies over several runs: cross-validation, ablation, benchmark, reproduction."""
