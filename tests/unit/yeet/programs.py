"""Programs and libraries for tests: real ones by gcc, and made-up ones of any word size and byte order."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from ezpz.yeet.relocate.formats.elf import read_dynamic

if TYPE_CHECKING:
    from pathlib import Path

    from ezpz.yeet.relocate.formats.elf import DynamicInfo

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
MAIN = "#include <stdio.h>\nconst char *hello(void);\nint main(void) { puts(hello()); return 0; }\n"
MACHINES = {(64, "<"): 62, (32, "<"): 3, (64, ">"): 21, (32, ">"): 8}  # x86-64, i386, ppc64, mips


def dynamic(data: bytes) -> DynamicInfo | None:
    """What the file `data` tells ld.so."""
    return read_dynamic(lambda offset, size: data[offset : offset + size])


def compile_c(out: Path, source: str, *flags: str) -> Path:
    """Make `out` of C."""
    out.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-x", "c", "-", "-o", out, "-x", "none", *flags], input=source.encode(), check=True)
    return out


def library(out: Path, says: str, *flags: str) -> Path:
    """Make a library whose function `hello` says so."""
    code = f'const char *hello(void) {{ return "{says}"; }}\n'
    return compile_c(out, code, "-shared", "-fPIC", f"-Wl,-soname,{out.name}", *flags)


def program(out: Path, needs: Path, *flags: str) -> Path:
    """Make a program that prints what `hello` of a library says."""
    return compile_c(out, MAIN, str(needs), *flags)


def run_path(path: str, *, old: bool = False) -> list[str]:
    """Flags for a DT_RUNPATH, or for a DT_RPATH, which is the `old` one."""
    return [f"-Wl,-rpath,{path}", "-Wl,--disable-new-dtags" if old else "-Wl,--enable-new-dtags"]


def output(path: Path, library_path: Path | None = None) -> str:
    """Run a program; what it prints, or "" if it does not start."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("LD_")}
    if library_path:
        env["LD_LIBRARY_PATH"] = str(library_path)
    return subprocess.run([path], env=env, capture_output=True, text=True).stdout.strip()


def loaded(path: Path, library_path: Path | None = None) -> dict[bytes, bytes]:
    """What ld.so itself would load for a program: name to path."""
    env = {**os.environ, "LD_TRACE_LOADED_OBJECTS": "1", "LD_LIBRARY_PATH": str(library_path or "")}
    lines = subprocess.run([path], env=env, capture_output=True, check=True).stdout.splitlines()
    pairs = [line.strip().split(b" => ") for line in lines if b" => " in line]
    return {name: rest.split(b" (")[0] for name, rest in pairs}


def made_up(
    bits: int = 64,
    order: str = "<",
    *,
    needed: tuple[bytes, ...] = (b"libhello.so.1",),
    runpath: bytes = b"",
    rpath: bytes = b"",
    versions: tuple[tuple[int, bytes], ...] = (),
    symbols: tuple[int, ...] = (),
    build_id: bool = True,
    spare: int = 5,
) -> bytes:
    """A library that no machine runs: one segment with headers, strings, symbols, a dynamic section and a note.

    versions: DT_VERNEED or DT_VERDEF, and its one record
    symbols: offsets into the string table, where `needed` begins at 1 and the run paths follow
    """
    wide, word, base = bits == 64, "Q" if bits == 64 else "I", 0x10000
    strings, slots = b"\0", []
    for tag, text in [*((1, name) for name in needed), (29, runpath), (15, rpath)]:
        if text:
            slots.append((tag, len(strings)))
            strings += text + b"\0"
    size = len(strings)
    strings += bytes(-size % 8)
    start = 64 + 4 * 56
    table = b"".join(struct.pack(order + ("I20x" if wide else "I12x"), each) for each in (0, *symbols))
    table_at = base + start + len(strings)
    slots += [(5, base + start), (10, size), (6, table_at), (4, table_at + len(table))]
    for tag, record in versions:
        slots += [(tag, table_at + len(table)), (tag + 1, 1)]
        table += record.ljust(48, b"\0")
    section = b"".join(struct.pack(order + 2 * word, *slot) for slot in [*slots, *[(0, 0)] * spare])
    section_at = start + len(strings) + len(table)
    note = struct.pack(order + "3I", 4, 20, 3) + b"GNU\0" + bytes(range(1, 21)) if build_id else b""
    total = section_at + len(section) + len(note)

    def header(kind: int, at: int, length: int) -> bytes:
        if wide:
            return struct.pack(order + "2I6Q", kind, 4, at, base + at, 0, length, length, 4)
        return struct.pack(order + "8I", kind, at, base + at, 0, length, length, 4, 4)

    headers = header(1, 0, total) + header(2, section_at, len(section)) + header(4, total - len(note), len(note))
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    rest = struct.pack(
        order + "2HI" + 3 * word + "I6H", 3, MACHINES[bits, order], 1, 0, 64, 0, 0, 64, 56 if wide else 32, 3, 0, 0, 0
    )
    return (ident + rest).ljust(64, b"\0") + headers.ljust(start - 64, b"\0") + strings + table + section + note
