"""The Standard Workload Format is read as its definition says, whatever the file contains."""

from __future__ import annotations

import gzip
import io
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siteward.formats.swf import MAX_LINE, Log, Malformed, SwfError, SwfJob

HEADER = b"""; UnixStartTime: 1091615532
;      MaxProcs: 140
;      MaxNodes: 70  (dual)
;  Installation: First Laboratory
;  Installation: Part of a grid
;        Queues: SWF-ID   PBS-name
;         Queue:      1   test
;         Queue:      2   day long
;     Partition:      1   ce.example.org
;          Note: The 'mem_used' column relates to: quantity=per_job     type=virtual
;          Note: The 'cpu_used' column relates to: quantity=per_process
"""
JOB = b"  9 100 4 16 2 8 512 2 7200 -1 1 3 5 -1 2 1 -1 -1\n"


def read(content: bytes, after: int = 0) -> list[tuple[int, SwfJob | Malformed]]:
    return list(Log(io.BytesIO(content)).lines(after))


def test_header() -> None:
    """Every `Key: value` of the header is kept, and names and quantities are understood."""
    header = Log(io.BytesIO(HEADER + JOB)).header
    assert header.start == 1091615532
    assert header.number("MaxProcs") == 140
    assert header.number("MaxNodes") == 70
    assert header.fields["Installation"] == ["First Laboratory", "Part of a grid"]
    assert header.queues == {1: "test", 2: "day long"}
    assert header.partitions == {1: "ce.example.org"}
    assert header.quantities == {"mem_used": "per_job", "cpu_used": "per_process"}


def test_no_header() -> None:
    """A log without a header has no start, and its jobs are read all the same."""
    log = Log(io.BytesIO(JOB))
    assert log.header.start is None
    assert log.header.first("Installation") == ""
    assert [number for number, _ in log.lines()] == [1]


def test_job_columns() -> None:
    """The eighteen columns become the fields of a job, in order, with the number of their line."""
    ((number, job),) = read(HEADER + JOB)
    assert number == HEADER.count(b"\n") + 1
    assert job == SwfJob(9, 100, 4, 16, 2, 8, 512, 2, 7200, -1, 1, 3, 5, -1, 2, 1, -1, -1)


def test_decimal_averages() -> None:
    """CPU time and memory, being averages, may have decimals; they are rounded."""
    ((_, job),) = read(JOB.replace(b" 8 512 ", b" 8.6 511.5 "))
    assert isinstance(job, SwfJob)
    assert (job.cpu_used, job.memory_used) == (9, 512)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1 2 3\n", "has 3 columns, expected 18"),
        (JOB.strip() + b" 7\n", "has 19 columns, expected 18"),
        (JOB.replace(b"100", b"soon"), "column 2 (submit) is not a whole number: 'soon'"),
        (JOB.replace(b"100", b"1.5"), "column 2 (submit) is not a whole number: '1.5'"),
        (JOB.replace(b"100", b"1_0"), "column 2 (submit) is not a whole number: '1_0'"),
        (JOB.replace(b"512", b"nan"), "column 7 (memory_used) is not a whole number: 'nan'"),
        (JOB.replace(b"100", b"\xff\xfe"), "column 2 (submit) is not a whole number: '��'"),
        (b"1" * 5000 + b"\n", f"is longer than {MAX_LINE} bytes"),
    ],
)
def test_malformed_line(line: bytes, reason: str) -> None:
    """A line that is no job is given with its number and reason, and the lines after it are read."""
    lines = read(JOB + line + JOB)
    assert [number for number, _ in lines] == [1, 2, 3]
    assert lines[1][1] == Malformed(reason)
    assert lines[0][1] == lines[2][1]


def test_comments_and_blank_lines() -> None:
    """Comments and blank lines between jobs are no lines of the log but keep the numbers right."""
    assert [number for number, _ in read(JOB + b"\n; a note\n   \n" + JOB)] == [1, 5]


def test_last_line_without_end() -> None:
    """The last line needs no line end, and lines may end as on Windows."""
    assert len(read(JOB.rstrip() + b"\r\n" + JOB.rstrip())) == 2


def test_empty_file() -> None:
    """An empty file and one that is only a header have no lines."""
    assert read(b"") == []
    assert read(HEADER) == []


@pytest.mark.parametrize("compress", [False, True])
def test_resume(*, compress: bool) -> None:
    """Reading after a line gives exactly the rest, plain or compressed."""
    content = HEADER + JOB * 20
    whole = read(content)
    packed = gzip.compress(content) if compress else content
    assert read(packed) == whole
    assert read(packed, after=whole[7][0]) == whole[8:]


def test_truncated_gzip() -> None:
    """A compressed file that breaks off gives all lines before the break, then an error that names the line."""
    content = HEADER + b"".join(b"%d 100 4 16 2 8 512 2 7200 -1 1 3 5 -1 2 1 -1 -1\n" % i for i in range(20_000))
    packed = gzip.compress(content)
    seen: list[int] = []
    with pytest.raises(SwfError, match=r"cannot be read beyond line \d+"):
        seen.extend(number for number, _ in Log(io.BytesIO(packed[: len(packed) // 2])).lines())
    assert 1000 < len(seen) < 20_000
    assert seen == list(range(seen[0], seen[0] + len(seen)))


def test_damaged_gzip() -> None:
    """A compressed file with damaged bytes ends in the same error."""
    packed = bytearray(gzip.compress(HEADER + JOB * 5000))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(SwfError, match="cannot be read beyond line"):
        read(bytes(packed))


def test_long_line_takes_no_memory(tmp_path: Path) -> None:
    """A line of 64 MB is malformed and never held in memory."""
    path = tmp_path / "long.swf"
    with path.open("wb") as file:
        for _ in range(64):
            file.write(b"7" * 2**20)
        file.write(b"\n" + JOB)
    tracemalloc.start()
    with path.open("rb") as opened:
        lines = list(Log(opened).lines())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [type(line) for _, line in lines] == [Malformed, SwfJob]
    assert peak < 2**20


@given(st.binary(max_size=400), st.binary(max_size=40))
def test_any_bytes(content: bytes, inserted: bytes) -> None:
    """Whatever the bytes are, reading ends with jobs, malformed lines or SwfError; a good line before is kept."""
    try:
        lines = read(JOB + inserted + b"\n" + content)
    except SwfError:
        return
    assert isinstance(lines[0][1], SwfJob)
    numbers = [number for number, _ in lines]
    assert numbers == sorted(set(numbers))
