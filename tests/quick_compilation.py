"""XLA's options for programs that run for seconds: compiling them is most of the work.

A step of training compiles five times as fast and runs three times as long. `python -m tests.quick_compilation` prints
them, for .ci/run.
"""

from importlib import metadata

FLAGS = "--xla_backend_optimization_level=0"
RELEASE = int(metadata.version("jaxlib").split(".")[1])  # an XLA that does not know an option ends the program
if RELEASE < 12:
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
if RELEASE == 12:  # programs with oneDNN cannot be kept in the cache; tests/models/test_compilation.py tests them
    FLAGS += " --xla_cpu_experimental_onednn_custom_call=false"

if __name__ == "__main__":
    print(FLAGS)
