"""Checks an exported log with the package aics-tlog, which nobody here wrote: audit_export.py DIRECTORY VERIFIER-KEY."""

import pathlib
import sys

from aics_tlog import FileSystemTileReader, audit_tiles, parse_checkpoint, parse_note, parse_vkey, verify_note

directory = pathlib.Path(sys.argv[1])
note = parse_note((directory / "checkpoint").read_bytes())
assert verify_note(note, [parse_vkey(sys.argv[2])])
head = parse_checkpoint(note.text)
report = audit_tiles(FileSystemTileReader(directory), head.size, head.root)
assert (report.size, report.bundles) == (head.size, -(-head.size // 256))
