"""Generate the protobuf stubs, or check that they are current: of the API from proto/, and of TEI's service.

    python tools/generate_stubs.py            write client/ragstone/v1 and embedders/remote/_tei
    python tools/generate_stubs.py --check    exit with 1 when what is there differs
    python tools/generate_stubs.py --image F  write a descriptor set with sources, for `buf lint F`

The protos state their rules with protovalidate's options. Its own .proto is not kept here: the
installed protovalidate carries the compiled form, and protoc takes that. The generated code does not
import it (`import option`), so clients need nothing but protobuf.
"""

from __future__ import annotations

import argparse
import filecmp
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

import protovalidate
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc
from protobuf import DescFile

ROOT: Final = Path(__file__).resolve().parents[1]
PROTO: Final = ROOT / "proto"
STUBS: Final = ROOT / "client" / "ragstone" / "v1"
TEI: Final = ROOT / "embedders" / "remote" / "_tei"
INIT: Final = '"""Generated from proto/ragstone/v1 by tools/generate_stubs.py. Do not edit."""\n'


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Generate or check the protobuf stubs.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="compare only")
    choice.add_argument("--image", type=Path, metavar="FILE", help="write a descriptor set for buf")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rules = write_rules(Path(folder) / "validate.binpb")
        if chosen.image:
            compile_protos(rules, "--include_imports", "--include_source_info", f"-o{chosen.image}")
            return 0
        stubs = {
            STUBS: generate(rules, Path(folder) / "stubs"),
            TEI: generate_tei(Path(folder) / "tei"),
        }
        if chosen.check:
            return report_drift([path for current, fresh in stubs.items() for path in drift(fresh, current)])
        for current, fresh in stubs.items():
            install(fresh, current)
    return 0


def write_rules(target: Path) -> Path:
    """Write protovalidate's descriptor and all that it imports to ``target``, in order of imports."""
    found: dict[str, FileDescriptorProto] = {}

    def visit(file: DescFile) -> None:
        for imported in file.dependencies:
            visit(imported)
        found[file.name] = FileDescriptorProto.FromString(file.proto.to_binary())

    visit(protovalidate.ViolationPb.desc().file)
    target.write_bytes(FileDescriptorSet(file=found.values()).SerializeToString())
    return target


def generate(rules: Path, target: Path) -> Path:
    """Compile every proto of the API into ``target``; returns the folder of the package."""
    target.mkdir()
    compile_protos(rules, f"--python_out={target}", f"--pyi_out={target}")
    package = target / "ragstone" / "v1"
    (package / "__init__.py").write_text(INIT, encoding="utf-8")
    return package


def generate_tei(target: Path) -> Path:
    """Compile the proto of TEI's service into ``target``; returns the folder of the package."""
    package = target / TEI.relative_to(ROOT)
    package.mkdir(parents=True)
    protoc_or_exit(f"-I{ROOT}", f"--python_out={target}", f"--pyi_out={target}", str(TEI / "tei.proto"))
    (package / "__init__.py").write_bytes((TEI / "__init__.py").read_bytes())
    return package


def compile_protos(rules: Path, *options: str) -> None:
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    well_known = str(files("grpc_tools") / "_proto")
    # Descriptors come before folders, so the well-known types are found in `rules` first.
    protoc_or_exit(f"--descriptor_set_in={rules}", f"-I{PROTO}", f"-I{well_known}", *options, *sources)


def protoc_or_exit(*arguments: str) -> None:
    if status := protoc.main(["protoc", *arguments]):
        sys.exit(status)


def drift(fresh: Path, current: Path) -> list[Path]:
    """The files that are missing, left over or different in ``current``."""
    names = {path.name for path in fresh.iterdir()}
    there = {path.name for path in current.glob("*.py*")} if current.is_dir() else set()
    different = filecmp.cmpfiles(fresh, current, sorted(names & there), shallow=False)[1]
    return [current / name for name in sorted((names ^ there) | set(different))]


def report_drift(files: Sequence[Path]) -> int:
    for file in files:
        print(f"{file.relative_to(ROOT)} is not what its .proto generates", file=sys.stderr)
    if files:
        print("run: python tools/generate_stubs.py", file=sys.stderr)
    return 1 if files else 0


def install(fresh: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.py*"):
        old.unlink()
    for path in fresh.iterdir():
        (target / path.name).write_bytes(path.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
