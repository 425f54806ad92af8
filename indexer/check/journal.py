"""The journal and its checkpoints: every month's file, and whether they follow each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ..base.directories import JOURNAL
from ..base.errors import IndexerError
from ..journal import damage
from ..journal.reader import JournalReader, month_files
from ..state import checkpoint
from .differences import Difference, Part, Sort
from .resume import Run, StepProgress


def check_journal(directory: Path, run: Run, progress: StepProgress) -> Iterator[Difference]:
    """Every month's file, that the months are complete, and the checkpoints for archived ones."""
    sound = True
    paths = month_files(directory / JOURNAL)
    for number, path in enumerate(paths):
        progress("journal", number, len(paths))
        try:
            status = path.stat()
        except OSError:
            continue  # it is being archived; what follows tells whether it is missing
        seen = [status.st_size, status.st_mtime_ns, status.st_ino]
        if path != paths[-1] and run.months.get(path.name) == seen:
            continue  # a closed month that this check has read already
        faults = list(damage.faults(path))
        for fault in faults:
            sound = False
            yield Difference(
                Part.JOURNAL,
                f"{path.name} is damaged: {fault}",
                Sort.MONTH,
                fault="the disk, or somebody who changed it",
            )
        if not faults:
            run.months[path.name] = seen
            run.save(now=True)
    progress("journal", len(paths), len(paths))
    if not sound:
        return
    reader = JournalReader(directory / JOURNAL)
    try:
        reader.verify()
        checkpoint.base(directory, reader, reader.last_serial())
    except IndexerError as error:
        yield Difference(Part.JOURNAL, f"cannot {error.operation}: {error.cause}")
    finally:
        reader.close()


def check_checkpoints(directory: Path) -> Iterator[Difference]:
    """Every checkpoint's file."""
    with closing(JournalReader(directory / JOURNAL)) as reader:
        for copy in checkpoint.every(directory):
            fault = checkpoint.fault(copy, reader.journal_id)
            if not fault and copy.serial > reader.last_serial():
                fault = f"the journal ends with serial {reader.last_serial()}"
            if fault:
                yield Difference(Part.CHECKPOINT, f"{copy.path.name} cannot be used: {fault}")
