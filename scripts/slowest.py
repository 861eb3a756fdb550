#!/usr/bin/env python3
"""slowest.py JUNIT: the twenty tests that took longest, by the report of a run of cargo-nextest."""

import sys
import xml.etree.ElementTree as xml

cases = [
    (float(case.get("time")), case.get("classname"), case.get("name"))
    for case in xml.parse(sys.argv[1]).iter("testcase")
]
print(f"the slowest of {len(cases)} tests, which together took {sum(time for time, *_ in cases):.0f} s:")
for time, program, name in sorted(cases, reverse=True)[:20]:
    print(f"{time:8.1f} s  {program}  {name}")
