"""Packaging of brainseg_jax."""

import re
from pathlib import Path

from setuptools import find_packages, setup

INIT = Path(__file__).with_name("brainseg_jax") / "__init__.py"
VERSION = re.search(r'__version__ = "(.+)"', INIT.read_text())[1]

# Each runs the script of its name: brainseg-predict is scripts/predict.py.
PROGRAMS = ("train", "evaluate", "predict", "prepare-data", "cross-validate", "compare", "export", "report")

setup(
    name="brainseg_jax",
    version=VERSION,
    description="Brain tumour segmentation in MRI slices: U-Net and LinkNet in JAX and Flax.",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["brainseg_jax", "brainseg_jax.*"]), "brainseg_jax.scripts"],
    package_dir={"brainseg_jax.scripts": "scripts"},
    entry_points={"console_scripts": [f"brainseg-{name} = brainseg_jax.cli:run_program" for name in PROGRAMS]},
    package_data={
        "brainseg_jax": ["published_curves.json", "py.typed", "weights/*/*"],
        "brainseg_jax.data.figshare_brain_tumor": ["README.md", "CITATIONS.bib", "TAGS.txt"],
        "brainseg_jax.evaluation.report": ["assets/*"],
    },
    install_requires=[
        "jax>=0.10",  # arrays, gradients, compilation
        "flax>=0.12",  # the networks (linen)
        "optax>=0.2.8",  # Adam, losses, the plateau schedule
        "orbax-checkpoint>=0.12",  # checkpoints: atomic, asynchronous
        "tensorflow-datasets>=4.9.10",  # the dataset builder; runs without TensorFlow
        "array_record>=0.8.6",  # the form in which TFDS reads without TensorFlow
        "importlib_resources>=6",  # TFDS imports it and does not declare it
        "grain>=0.2.18",  # streams slices that do not fit in device memory
        "psutil>=6",  # free memory, where the device is the host
        "ml_collections>=1.1",  # configuration files
        "absl-py>=2.1",  # flags
        "h5py>=3.11",  # MATLAB v7.3 files
        "safetensors>=0.5",  # weights that travel
        "numpy>=2.0",
        "scipy>=1.14",  # the phantom's smooth fields
        "matplotlib>=3.9",  # figures
        "pillow>=10.1",  # PNG and JPEG
        "tensorboardX>=2.6.2.2",  # TensorBoard files without TensorFlow
        "tqdm>=4.66",  # progress bars
        "pooch[progress]>=1.8",  # the download from figshare, with checksums
    ],
    extras_require={
        "formats": [
            "pydicom>=3.0.1",  # DICOM files
            "highdicom>=0.26",  # DICOM segmentations
            "nibabel>=5.3",  # NIfTI volumes
            "tifffile>=2025.1.10",  # TIFF files of every depth
            "imagecodecs>=2025.3.30",  # compressed TIFF and DICOM files and PNG colours of 16 bits
        ],
        "cuda12": ["jax[cuda12]>=0.10"],  # NVIDIA GPUs
        "tf": [
            "tensorflow-cpu>=2.20",  # `tfds build`, `tfds.load` and TFDS's own test case
            "apache-beam>=2.60",  # the `tfds` command imports it and TFDS does not declare it
            "mlcroissant>=1.0",  # likewise
            "dill>=0.3.8",  # TFDS's test case likewise
        ],
        "onnx": [
            "onnx>=1.17",  # writes model.onnx; the first for NumPy 2
            "onnxruntime>=1.20",  # runs it once after export; likewise
        ],
        "bench": ["torch>=2.9"],  # what scripts/benchmark.py measures against
        "docs": [
            "sphinx>=9",  # builds docs/, with the API from the docstrings
            "myst-parser>=5",  # Markdown pages in Sphinx
            "furo>=2025.9",  # the theme: light, dark, narrow screens
        ],
        "browser": ["playwright>=1.50"],  # the tests that open a report in Debian's chromium
        "test": [
            "brainseg_jax[formats,onnx]",
            "python-gdcm>=3.0.24.1",  # decodes and encodes DICOM files independently of imagecodecs
            "pytest>=8",
            "pytest-xdist>=3.7",  # the tests in two processes
            "ruff>=0.14",
            "mypy>=1.18",
            "import-linter>=2.7",
        ],
    },
)
