"""What a journal tells of its run, and what it leaves open."""

import numpy as np

from ffb.reading.contents import TABLES
from ffb.schema import CORE, Column, Schema
from ffb.sink import Counts
from ffb.source import RunInfo
from ffb.writers.history import told
from ffb.writers.journal import CHUNK

SCHEMA = Schema((*CORE, Column("w/trace", "<f4", (700,), ("t",), "V", "a doc", "w", "lz4", 128)))
NONE = dict.fromkeys(TABLES, 0)
RUN = {"kind": "run", "layout": 2, "exp": "mfxx49820", "run": 42, "began": (1 << 64) - 1}


def begun(number: int, first: int, tables: dict[str, int]) -> dict:
    about = {"config": "[x]", "notes": ["a note"], "of a newer program": 1}
    names = {"file": f"seg{number:04d}.h5", "live": f"seg{number:04d}.live.h5"}
    more = {"schema": SCHEMA.packed, "provenance": about, "tables": tables, "epoch": 3}
    return {"kind": "segment", "number": number, "first": first, **names, **more}


def commit(number: int, segment: int, rows: int, tables: dict[str, int], *chunks: tuple) -> dict:
    counts = {"commit": number, "read": rows + 1, "written": rows, "lost": {"damaged": 1}}
    places = np.array(list(chunks), CHUNK).tobytes()
    where = {"commit": number, "segment": segment, "rows": rows, "tables": tables}
    return {"kind": "commit", **where, "counts": counts, "chunks": places}


def test_the_last_word_on_everything_counts():
    later = NONE | {"ffb/log": 70, "ffb/commits": 2}
    history = told(
        [
            RUN,
            begun(0, 0, NONE),
            commit(1, 0, 100, NONE | {"ffb/log": 30}, (0, 0, 4096, 800, 0), (9, 0, 9000, 50, 1)),
            commit(2, 0, 300, later, (0, 0, 4096, 900, 0), (9, 1, 12000, 40, 0)),
            {"kind": "closed", "segment": 0, "rows": 300},
            {"kind": "of a newer program"},
            begun(1, 300, later),
        ]
    )
    assert history.info == RunInfo("mfxx49820", 42, (1 << 64) - 1)
    assert history.books == Counts(2, 301, 300, {"damaged": 1})
    assert not history.ended
    (segment,) = history.segments
    assert (segment.rows, segment.first, segment.closed, segment.epoch) == (300, 0, True, 3)
    assert segment.schema == SCHEMA
    assert segment.provenance.config == "[x]"
    assert segment.provenance.notes == ("a note",)
    places = [(0, 0, 4096, 900, 0), (9, 0, 9000, 50, 1), (9, 1, 12000, 40, 0)]
    assert segment.chunks.tolist() == places
    assert segment.lengths["timestamp"] == segment.lengths["w/trace"] == 300
    assert segment.lengths["ffb/log"] == 70
    assert segment.datasets == (*(c.name for c in SCHEMA.columns), *TABLES)
    assert max(history.written) == 1, "begun, though nothing is committed to it"


def test_lengths_of_a_later_segment_are_its_own():
    before = NONE | {"ffb/log": 1000, "ffb/steps": 3}
    after = NONE | {"ffb/log": 1200, "ffb/steps": 3}
    (segment,) = told([RUN, begun(4, 2048, before), commit(9, 4, 2100, after)]).segments
    assert segment.lengths["timestamp"] == 52
    assert segment.lengths["ffb/log"] == 200
    assert segment.lengths["ffb/steps"] == 0


def test_a_segment_begun_again_after_nothing_was_committed_is_another_one():
    records = [RUN, begun(0, 0, NONE), begun(0, 0, NONE), commit(1, 0, 5, NONE, (1, 0, 7, 8, 0))]
    (segment,) = told(records).segments
    assert segment.chunks.tolist() == [(1, 0, 7, 8, 0)]


def test_a_rebuilt_segment_has_its_chunks_where_the_recovery_says():
    rebuilt = np.array([(0, 0, 555, 800, 0)], CHUNK).tobytes()
    lost = [["w/trace", 0, 99]]
    (segment,) = told(
        [
            RUN,
            begun(0, 0, NONE),
            commit(1, 0, 100, NONE, (0, 0, 4096, 800, 0), (9, 0, 9000, 50, 1)),
            {"kind": "rebuilt", "segment": 0, "chunks": rebuilt, "lost": lost},
        ]
    ).segments
    assert segment.chunks.tolist() == [(0, 0, 555, 800, 0)]
    assert segment.lost == [("w/trace", 0, 99)]
    assert segment.rebuilt == 1


def test_many_commits_leave_one_place_for_each_chunk():
    commits = [commit(k, 0, k, NONE, (0, 0, k, 8, 0), (1, k % 3, k, 8, 0)) for k in range(1, 2500)]
    history = told([RUN, begun(0, 0, NONE), *commits])
    (segment,) = history.segments
    expected = [(0, 0, 2499, 8, 0), (1, 0, 2499, 8, 0), (1, 1, 2497, 8, 0), (1, 2, 2498, 8, 0)]
    assert segment.chunks.tolist() == expected
    assert history.books.commit == 2499


def test_the_end_of_the_run_is_told_with_its_books():
    counts = {"commit": 3, "read": 7, "written": 7, "ended": "end of run", "ledger": [1, 2]}
    history = told([RUN, {"kind": "ended", "counts": counts}])
    assert history.ended
    assert history.books == Counts(3, 7, 7, ended="end of run")


def test_an_empty_journal_tells_nothing():
    history = told([])
    assert history.info is None
    assert history.segments == []
