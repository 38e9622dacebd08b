"""Lists what a compiled program runs: each kernel with its kind, how often it runs and the bytes that it moves."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from brainseg_jax.studies.gpu_program.hlo import Computation, Instruction, Module, Shape

CONVOLUTIONS = {
    "__cudnn$convForward": "forward",
    "__cudnn$convForwardGraph": "forward",
    "__cudnn$convBiasActivationForward": "forward",
    "__cudnn$convBackwardInput": "input gradient",
    "__cudnn$convBackwardFilter": "kernel gradient",
}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# Instructions that run no kernel, or whose work is counted at the instruction that starts it.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"),
    *("call", "while", "conditional", "copy-done", "async-done", "async-update", *(f"{c}-done" for c in COLLECTIVES)),
}
# Instructions that only move values, perhaps to another dtype.
_MOVES = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "copy", "copy-start", "transpose", "reshape"),
    *("broadcast", "concatenate", "pad", "slice", "reverse", "convert", "dynamic-slice"),
}
# Of the operand of these instructions a kernel reads only as much as the result has.
_READS_A_PART = {"slice", "dynamic-slice", "gather"}


class Kernel(NamedTuple):
    """A kernel that is started on the GPU.

    Attributes:
      name: of its instruction.
      kind: "convolution", "matrix product", "collective", "layout" (only moves values, into another order), "move"
        (only moves values, in the same order: concatenation, padding, another dtype), "reduction" or "elementwise".
      detail: of a convolution "forward", "input gradient" or "kernel gradient" and what is fused into it ("bias",
        "bias and ReLU"); of a collective its name; "" for others.
      dtype: of the largest array that it reads or writes, in XLA's words.
      runs: how often a call of the program runs it.
      read, written: bytes, each run.
      shape: of its first result.
      op_name: where it comes from in the network.
    """

    name: str
    kind: str
    detail: str
    dtype: str
    runs: int
    read: int
    written: int
    shape: Shape
    op_name: str

    @property
    def nbytes(self) -> int:
        """Bytes that it moves in all runs: each operand read once, each result written once."""
        return (self.read + self.written) * self.runs


def list_kernels(module: Module) -> list[Kernel]:
    """Lists the kernels that a call of the program runs, in their order; both branches of a condition."""
    return list(_kernels(module, module.computations[module.entry], runs=1))


def _kernels(module: Module, computation: Computation, *, runs: int) -> Iterator[Kernel]:
    for instruction in computation.instructions.values():
        opcode = instruction.opcode
        if opcode in ("while", "call") and instruction.called:
            yield from _kernels(module, module.computations[instruction.called], runs=runs * instruction.trips)
        elif opcode == "conditional":
            branches = "".join(re.findall(r"branch_computations=\{.*?\}", instruction.text))
            for name in re.findall(r"%([\w.\-]+)", branches):
                yield from _kernels(module, module.computations[name], runs=runs)
        elif opcode not in _FREE:
            yield _kernel(module, computation, instruction, runs=runs)


def _kernel(module: Module, computation: Computation, instruction: Instruction, *, runs: int) -> Kernel:
    fused = module.computations.get(instruction.called or "") if instruction.opcode == "fusion" else None
    operands = [_shape(computation, name) for name in instruction.operands]
    kind, detail = _kind(instruction, fused or computation, is_fused=fused is not None)
    results = [shape for shape in instruction.shapes if not _is_workspace(instruction, shape)]
    read, written = sum(shape.nbytes for shape in operands), sum(shape.nbytes for shape in results)
    if fused is not None:
        read, written = _read_by(fused), written - _left_alone(fused)
    elif instruction.opcode in _READS_A_PART:
        read = written
    shape = instruction.shapes[0] if instruction.shapes else Shape("token", ())
    dtype = max((*operands, shape), key=lambda array: array.nbytes).dtype
    return Kernel(instruction.name, kind, detail, dtype, runs, read, written, shape, instruction.op_name)


def _kind(instruction: Instruction, computation: Computation, *, is_fused: bool) -> tuple[str, str]:
    """Says what a kernel does; `computation` is the one that it fuses, or the one that it is part of."""
    opcode, target = instruction.opcode, instruction.target
    if target in CONVOLUTIONS:
        return "convolution", CONVOLUTIONS[target] + _fused_into(instruction)
    if opcode == "convolution":
        return "convolution", "without cuDNN"
    if "gemm" in target or "matmul" in target or opcode == "dot":
        return "matrix product", ""
    if collective := next((name for name in COLLECTIVES if opcode in (name, f"{name}-start")), ""):
        return "collective", collective
    inside = list(computation.instructions.values()) if is_fused else [instruction]
    opcodes = {line.opcode for line in inside}
    if opcodes & {"dot", "convolution"}:
        return "matrix product", ""
    if opcodes <= _MOVES:
        return ("layout" if any(_reorders(line, computation) for line in inside) else "move"), ""
    return ("reduction" if opcodes & {"reduce", "reduce-window"} else "elementwise"), ""


def _fused_into(instruction: Instruction) -> str:
    if instruction.target != "__cudnn$convBiasActivationForward":
        return ""
    return ", bias and ReLU" if '"activation_mode":"kRelu"' in instruction.text else ", bias"


def _reorders(instruction: Instruction, computation: Computation) -> bool:
    """Whether values change their order in memory: a transposition, or a copy to another layout."""
    if instruction.opcode == "copy":
        return _shape(computation, instruction.operands[0]).layout != instruction.shapes[0].layout
    return instruction.opcode in ("transpose", "reverse")


def _shape(computation: Computation, name: str) -> Shape:
    """Returns the shape of an operand; of a tuple, that of all its arrays as one row of bytes."""
    shapes = computation.instructions[name].shapes
    return shapes[0] if len(shapes) == 1 else Shape("u8", (sum(shape.nbytes for shape in shapes),))


def _is_workspace(instruction: Instruction, shape: Shape) -> bool:
    """Whether a result of a library's call is its working memory."""
    return instruction.opcode == "custom-call" and len(instruction.shapes) > 1 and shape == instruction.shapes[-1]


def _read_by(fused: Computation) -> int:
    """Sums what a kernel reads: its parameters, of which it may use only a part."""
    total = 0
    for name, parameter in fused.instructions.items():
        if parameter.opcode != "parameter":
            continue
        users = [line for line in fused.instructions.values() if name in line.operands]
        whole, part = parameter.shapes[0].nbytes, 0
        for user in users:
            if user.opcode in _READS_A_PART and user.operands[0] == name:
                part += user.shapes[0].size * parameter.shapes[0].nbytes // max(parameter.shapes[0].size, 1)
            elif user.opcode != "dynamic-update-slice" or user.operands[0] != name:  # which leaves the rest where it is
                part = whole
        total += min(whole, part)
    return total


def _left_alone(fused: Computation) -> int:
    """Sums the bytes that a kernel does not write, because it replaces a part of an array in place."""
    root = fused.root
    results = [root] if root.opcode != "tuple" else [fused.instructions[name] for name in root.operands]
    return sum(
        result.shapes[0].nbytes - _shape(fused, result.operands[1]).nbytes
        for result in results
        if result.opcode == "dynamic-update-slice"
    )
