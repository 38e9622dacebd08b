"""XLA's options for programs that run for seconds: compiling them is most of the work.

A step of training compiles five times as fast and runs three times as long. `python -m tests.quick_compilation` prints
them, for .ci/run.
"""

from importlib import metadata

FLAGS = "--xla_backend_optimization_level=0"
if int(metadata.version("jaxlib").split(".")[1]) < 12:  # later ones do not know the option, and end
    FLAGS += " --xla_cpu_use_fusion_emitters=false"

if __name__ == "__main__":
    print(FLAGS)
