"""Journals of five lines, and what tests do to them."""

from workers.contract.records import RECORD, LogRecord
from workers.contract.run.folder import RunFolder


def write(folder: RunFolder, *texts: str, attempt: int = 1) -> None:
    journal = folder.open_journal(attempt)
    for text in texts:
        journal.append(LogRecord(text=text))
    journal.close()


def contents(folder: RunFolder) -> list[tuple[int, str]]:
    """Number and text of each log line, number and kind of all else."""
    records = [RECORD.validate_json(line) for line in folder.journal.read_bytes().splitlines()]
    return [(record.seq, record.text if record.kind == "log" else record.kind) for record in records]


def break_line(folder: RunFolder, number: int, *put: bytes) -> None:
    """Put other lines in place of one."""
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    lines[number - 1 : number] = put
    folder.journal.write_bytes(b"".join(lines))
