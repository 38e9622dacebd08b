"""Predicts masks of slices: `python scripts/predict.py --input='slices/*.png' --output=masks`."""

import sys
from pathlib import Path

from absl import flags

from brainseg_jax import cli
from brainseg_jax.errors import InputError

WEIGHTS = flags.DEFINE_list(
    "weights",
    [],
    "A workdir, a folder with model.safetensors, or a name in the package; the package's default if not given. "
    "Several, separated by commas, predict as an ensemble.",
)
flags.DEFINE_alias("workdir", "weights")
INPUT = flags.DEFINE_multi_string(
    "input",
    None,
    "A file, a folder or a quoted pattern: DICOM, NIfTI, TIFF, PNG, JPEG or .mat. May be given several times.",
    required=True,
)
OUTPUT = flags.DEFINE_string("output", None, "Folder for the masks, the overlays and predictions.csv.", required=True)
AXIS = flags.DEFINE_integer(
    "axis",
    2,
    "Which slices of NIfTI volumes: 0 sagittal, 1 coronal, 2 axial.",
    lower_bound=0,
    upper_bound=2,
)
PROBABILITIES = flags.DEFINE_bool("probabilities", False, "Write the probabilities too.")
REPORT = flags.DEFINE_bool("report", False, "Write report.html too: a page to look at all slices.")
POSTPROCESSING = cli.define_postprocessing_flags()


def main() -> None:
    """Predicts the masks, counts them and lists the files that could not be read."""
    from tqdm import tqdm

    from brainseg_jax.evaluation.report.predictions import PredictionReport
    from brainseg_jax.inference.ensemble import Ensemble
    from brainseg_jax.inference.find_images import find_images
    from brainseg_jax.inference.predict_files import predict_files
    from brainseg_jax.inference.predictor import Predictor
    from brainseg_jax.workdir.files import describe_run
    from brainseg_jax.workdir.weights import DEFAULT, find_weights

    output = Path(OUTPUT.value).expanduser()
    paths = find_images(INPUT.value, output=output)
    segmenter: Predictor | Ensemble
    names = WEIGHTS.value or [DEFAULT]
    if len(names) > 1:
        segmenter = Ensemble.from_workdirs([find_weights(name) for name in names], **POSTPROCESSING())
    else:
        segmenter = Predictor.from_pretrained(names[0], **POSTPROCESSING())
    if segmenter.config.data.dataset == "phantom":
        message = "this network was trained on synthetic slices (phantoms): its masks of real ones mean nothing"
        print(f"warning: {message}", file=sys.stderr)
    report = PredictionReport(output, segmenter.postprocessing) if REPORT.value else None
    outcomes = predict_files(
        segmenter,
        paths,
        output,
        weights=", ".join(names),
        axis=AXIS.value,
        probabilities=PROBABILITIES.value,
        on_slice=report.add if report else None,
    )
    reasons = [reason for _, reason in tqdm(outcomes, total=len(paths), unit="file", disable=None) if reason]
    print(f"{len(paths) - len(reasons)} of {len(paths)} files done: masks, overlays and predictions.csv in {output}")
    print("Not for the care of patients: a mask does not prove a tumour, nor an empty mask that there is none.")
    if not report and (output / "report.html").exists():
        print(f"{output / 'report.html'} is of an earlier call: add --report to write it anew.")
    if report:
        print(f"report: {report.write(network=describe_run(segmenter.config, name=', '.join(names)))}")
    if reasons:
        raise InputError("\n  ".join([f"{len(reasons)} of {len(paths)} files could not be done:", *reasons]))


if __name__ == "__main__":
    cli.run(main)
