"""What a compiled program launches and moves, read from its text (`compiled.as_text()`), without a device.

Each fusion, product, copy or call of a library or of a Pallas kernel is a launch. What it moves are its operands and results,
with the exceptions that make the difference: updates in place move what is updated, gathers and slices the rows that they read,
and buffers that a call returns as it was given them are not moved at all. Exact in what is launched, an estimate of traffic.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

BYTES = {
    "pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "f8e4m3fn": 1, "f8e5m2": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2,
    "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8,
}  # fmt: skip
# Operations that run nothing on the device.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
    "opt-barrier", "copy-done", "slice-done", "async-done", "add-dependency",
}  # fmt: skip
_FREE_CALLS = {"AllocateBuffer", "AssumeGatherIndicesInBound", "Sharding"}
_LINE = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")


def shapes(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """(dtype, dimensions) of each array that a type names."""
    found = [(kind, tuple(int(d) for d in dims.split(",") if d)) for kind, dims in _SHAPE.findall(text)]
    return [(kind, dims) for kind, dims in found if kind in BYTES]


def size(text: str) -> float:
    """Bytes of a type, tuples included."""
    return sum(BYTES[kind] * math.prod(dims) for kind, dims in shapes(text))


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: its name, type and operation, the names of its operands, and all that follows them."""

    name: str
    type: str
    op: str
    operands: tuple[str, ...]
    rest: str
    root: bool

    def called(self, keyword: str) -> str | None:
        found = re.search(rf"{keyword}=%?([\w.\-]+)", self.rest)
        return found.group(1) if found else None


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One launch. `weight` is the largest operand that it reads whole, in bytes; flops those of products that XLA shows."""

    name: str
    op: str
    type: str
    bytes: float
    flops: float
    times: int = 1


class Program:
    """The computations of a module by name; `entry` is the one that runs."""

    def __init__(self, text: str) -> None:
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        current: dict[str, Instruction] = {}
        for line in text.splitlines():
            if line.endswith("{") and not line.startswith(" "):
                words = line.split()
                name = words[1 if words[0] == "ENTRY" else 0].lstrip("%")
                self.entry = name if words[0] == "ENTRY" else self.entry
                current = self.computations.setdefault(name, {})
            elif line.startswith(" ") and (instruction := _parse(line)) is not None:
                current[instruction.name] = instruction

    def loops(self) -> list[tuple[Instruction, str]]:
        """While loops of the entry, and what they call, with their bodies' names."""
        found = []
        for computation in self._reached(self.entry):
            for one in self.computations[computation].values():
                if one.op == "while" and (body := one.called("body")):
                    found.append((one, body))
        return found

    def _reached(self, name: str) -> Iterator[str]:
        yield name
        for one in self.computations.get(name, {}).values():
            if one.op in ("call", "while", "conditional"):
                for inner in bodies(one):
                    yield from self._reached(inner)

    def kernels(self, name: str | None = None) -> list[Kernel]:
        """The launches of a computation (default: the entry); those of inner loops count as often as XLA knows they run."""
        here = self.computations[self.entry if name is None else name]
        found = []
        for one in here.values():
            if one.op in ("while", "call", "conditional"):
                trips = re.search(r'known_trip_count":\{"n":"(\d+)"', one.rest)
                times = int(trips.group(1)) if one.op == "while" and trips else 1
                inner = [kernel for body in bodies(one) for kernel in self.kernels(body)]
                found += [dataclasses.replace(kernel, times=kernel.times * times) for kernel in inner]
            elif one.op not in _FREE and not (one.op == "custom-call" and _target(one) in _FREE_CALLS):
                found.append(Kernel(one.name, one.op, one.type, self._traffic(one, here), self._flops(one, here)))
        return found

    def _traffic(self, one: Instruction, here: dict[str, Instruction]) -> float:
        types = {name: here[name].type for name in one.operands if name in here}
        inner = self.computations.get(one.called("calls") or "", {}) if one.op == "fusion" else {}
        if one.op == "custom-call":
            aliased = {one.operands[int(n)] for n in re.findall(r"\{\d*\}: \((\d+), ", _aliases(one))}
            kept = sum(size(types[name]) for name in aliased if name in types)
            return sum(size(t) for name, t in types.items() if name not in aliased) + size(one.type) - kept
        if one.op in ("dynamic-update-slice", "scatter"):
            update = types.get(one.operands[1 if one.op == "dynamic-update-slice" else 2], "")
            return 2 * size(update)
        if one.op in ("gather", "dynamic-slice", "slice"):
            return 2 * size(one.type)
        if not inner:
            return sum(map(size, types.values())) + size(one.type)
        return _fusion_traffic(one, types, inner)

    def _flops(self, one: Instruction, here: dict[str, Instruction]) -> float:
        if one.op == "fusion":
            inner = self.computations.get(one.called("calls") or "", {})
            return sum(self._flops(line, inner) for line in inner.values())
        if one.op not in ("dot", "convolution"):
            return 0.0
        left, right = (shapes(here[name].type)[0][1] if name in here else () for name in one.operands[:2])
        outputs = math.prod(shapes(one.type)[0][1])
        if one.op == "dot":
            axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.rest)
            return 2.0 * outputs * math.prod(left[int(a)] for a in axes.group(1).split(",")) if axes and left else 0.0
        labels = re.search(r"dim_labels=\w+_(\w+)->", one.rest)
        return 2.0 * outputs * math.prod(right) / right[labels.group(1).index("o")] if labels and right else 0.0


def _fusion_traffic(one: Instruction, types: dict[str, str], inner: dict[str, Instruction]) -> float:
    """Bytes of a fusion: rows where it reads rows of an operand, updates where it writes into one."""
    users: dict[str, list[Instruction]] = {}
    for line in inner.values():
        for operand in line.operands:
            users.setdefault(operand, []).append(line)
    parameters = {line.name: int(line.rest.split(")")[0]) for line in inner.values() if line.op == "parameter"}
    updates = [line for line in inner.values() if line.op in ("dynamic-update-slice", "scatter")]
    follow = functools.partial(_source, inner)
    targets = {follow(line.operands[0]): line for line in updates}
    total = 0.0
    for name, number in parameters.items():
        operand = one.operands[number] if number < len(one.operands) else ""
        whole = size(types.get(operand, inner[name].type))
        reads = _readers(name, users)
        if name in targets:
            continue
        rows = [size(line.type) for line in reads if line.op in ("dynamic-slice", "gather", "slice")]
        total += min(whole, sum(rows)) if reads and len(rows) == len(reads) else whole
    written = size(one.type)
    for line in updates:
        source = inner.get(follow(line.operands[0]))
        if source is not None and source.op == "parameter":
            update = inner.get(line.operands[1 if line.op == "dynamic-update-slice" else 2])
            written += (size(update.type) if update else 0.0) - size(line.type)
    return total + max(written, 0.0)


def _readers(name: str, users: dict[str, list[Instruction]]) -> list[Instruction]:
    """Who reads an array, looking through bitcasts."""
    found = []
    for line in users.get(name, []):
        found += _readers(line.name, users) if line.op == "bitcast" else [line]
    return found


def _source(inner: dict[str, Instruction], name: str) -> str:
    while name in inner and inner[name].op in ("bitcast", "copy") and inner[name].operands:
        name = inner[name].operands[0]
    return name


def _parse(line: str) -> Instruction | None:
    if (found := _LINE.match(line)) is None:
        return None
    name, kind, op, rest = found.groups()
    depth, end = 1, len(rest)
    for i, character in enumerate(rest):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            end = i
            break
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[:end]))
    return Instruction(name, kind, op, operands, rest, line.lstrip().startswith("ROOT"))


def bodies(one: Instruction) -> list[str]:
    if one.op == "while":
        return [name for name in (one.called("body"),) if name]
    if one.op == "call":
        return [name for name in (one.called("to_apply"),) if name]
    branches = re.search(r"branch_computations=\{([^}]*)\}", one.rest)
    return [name.strip().lstrip("%") for name in branches.group(1).split(",")][:1] if branches else []


def _target(one: Instruction) -> str:
    found = re.search(r'custom_call_target="([^"]*)"', one.rest)
    return found.group(1) if found else ""


def _aliases(one: Instruction) -> str:
    found = re.search(r"output_to_operand_aliasing=\{(.*?\))\}", one.rest)
    return found.group(1) if found else ""
