"""The soak tools' judges find what they are there to find."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from soak import Drill, Round, table
from soak_host import Outcome
from soak_witness import Journal, JournalKeeper, Row, StoreWitness, judge


def line(event: str, t_s: float, **fields: Any) -> bytes:
    return json.dumps({"event": event, "t_ns": int(t_s * 1e9), **fields}).encode() + b"\n"


def journal(*finished: str, start_s: float = 1.0, end_s: float = 2.0, boot: str = "") -> Any:
    lines = [line("job_started", start_s)]
    lines += [line("block", end_s, item="x", samples_ns=[1, 2])]
    lines += [line("finished", end_s, item=item) for item in finished]
    result = Journal(boot)
    result.read(b"".join([*lines, line("job_done", end_s + 100.0)]))
    return result


def store(*rows: tuple[str, str, int, str, str], **jobs: str) -> Any:
    """A store with (run, item, attempt, status, job) rows and open jobs (job=run)."""
    witness = StoreWitness(Path("/nonexistent/store.sqlite"))
    witness.rows = {
        (run, item, attempt): Row(status, 1.0, 10, job) for run, item, attempt, status, job in rows
    }
    witness.run_of_job = {job: run for run, _, _, _, job in rows} | jobs
    return witness


def test_all_is_well() -> None:
    found = judge([store(("r", "a", 1, "valid", "j"))], {"j": journal("a")})
    assert (found.lost, found.repeated, found.overlaps, found.unwitnessed) == ((), (), (), 0)
    assert (found.measurements, found.finished_on_board) == (1, 1)


def test_a_loss_does_not_hide_behind_another_run_of_the_same_network() -> None:
    """Run 1 lost its record of a; run 2 has two attempts at it: pooled, all would be well."""
    rows = [("r2", "a", 1, "invalid", "j2"), ("r2", "a", 2, "valid", "j3")]
    journals = {"j1": journal("a"), "j2": journal("a", start_s=3, end_s=4)}
    journals["j3"] = journal("a", start_s=5, end_s=6)
    found = judge([store(*rows, j1="r1")], journals)
    assert found.lost == ("a of run r1: finished by job j1, not stored",)


def test_what_nobody_knows_of_is_lost() -> None:
    assert judge([store()], {"j": journal("a")}).lost == (
        "a of run no run: finished by job j, not stored",
    )


def test_repeated_work_is_found() -> None:
    twice = judge(
        [store(("r", "a", 1, "valid", "j1"), ("r", "a", 2, "invalid", "j2"))],
        {"j1": journal("a"), "j2": journal("a", start_s=3, end_s=4)},
    )
    assert twice.repeated == ("a of run r: attempt 2 after a valid one",)
    unstored = judge(
        [store(("r", "a", 1, "valid", "j2"), j1="r")],
        {"j1": journal("a"), "j2": journal("a", start_s=3, end_s=4)},
    )
    assert unstored.repeated == ("a of run r: finished 2 times, stored 1",)
    assert len(unstored.lost) == 1


def test_two_jobs_at_once_are_found_within_one_boot_only() -> None:
    def overlaps(second_boot: str) -> int:
        journals = {"j1": journal("a", boot="1"), "j2": journal("b", start_s=1.5, end_s=3)}
        journals["j2"].boot = second_boot
        rows = [("r", "a", 1, "valid", "j1"), ("r", "b", 1, "valid", "j2")]
        return len(judge([store(*rows)], journals).overlaps)

    assert overlaps("1") == 1
    assert overlaps("2") == 0


def test_a_journal_outlives_its_deletion(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    keeper = JournalKeeper(lambda: [folder], lambda: "boot-1")
    path = folder / "job1.jsonl"
    path.write_bytes(line("job_started", 1.0))
    keeper.start()
    for _ in range(500):
        if keeper.phase() == "job_started":
            break
        keeper.join(0.01)
    with path.open("ab") as stream:
        stream.write(line("finished", 2.0, item="a") + line("job_done", 2.1))
    path.unlink()
    assert keeper.journals()["job1"].finished == ["a"]
    assert keeper.journals()["job1"].boot == "boot-1"
    keeper.close()
    assert keeper.journals()["job1"].finished == ["a"]


def test_a_record_that_changes_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with sqlite3.connect(path) as base:
        base.execute(
            "CREATE TABLE measurement"
            " (run_id, item, attempt, status, latency_ms, n_samples, details)"
        )
        base.execute("CREATE TABLE job (id, run_id)")
        base.execute(
            """INSERT INTO measurement VALUES ('r', 'a', 1, 'valid', 2.0, 5, '{"job": "j"}')"""
        )
        base.execute("INSERT INTO job VALUES ('j2', 'r')")
    base.close()
    witness = StoreWitness(path)
    witness.look()
    assert witness.run_of_job == {"j": "r", "j2": "r"}
    assert judge([witness], {}).lost == ()
    with sqlite3.connect(path) as base:
        base.execute("UPDATE measurement SET latency_ms = 3.0")
    base.close()
    witness.look()
    assert "latency_ms=2.0" in judge([witness], {}).lost[0]


def outcome(status: int, stdout: str = "", stderr: str = "") -> Any:
    return Outcome(status, stdout, stderr, 1.0)


def error(message: str, hint: str | None, code: str = "unreachable") -> str:
    return json.dumps({"error": {"code": code, "message": message, "hint": hint}})


def test_errors_must_name_the_board_and_the_next_step() -> None:
    good = outcome(4, error("'pi4' does not answer", "check the cable"))
    for said, vague, tracebacks, problems in (
        (good, 0, 0, 0),
        (outcome(4, error("no answer", "check the cable")), 1, 0, 1),
        (outcome(4, error("'pi4' does not answer", None)), 1, 0, 1),
        (outcome(1, error("'pi4': KeyError", "report it", "internal")), 0, 0, 1),
        (outcome(4, "", "Traceback (most recent call last):\n"), 1, 1, 2),
        (outcome(-9, "", ""), 0, 0, 0),
        (outcome(0, "{}", ""), 0, 0, 0),
        (
            outcome(5, '{"measurements": []}', "error: pi4: 1 invalid [invalid_measurements]"),
            0,
            0,
            0,
        ),
    ):
        result = Round("link cut")
        Drill._examine(said, "pi4", result)
        found = (result.vague_errors, result.tracebacks, len(result.problems))
        assert found == (vague, tracebacks, problems), said


def test_the_table_sums_each_kind() -> None:
    rounds = [
        Round("link cut", survived=True, resume_s=3.0),
        Round("link cut", tries=2, resume_s=9.0, lost=1),
        Round("agent killed", tries=1, resume_s=4.0),
    ]
    first, second = table(rounds)
    assert (first["fault"], first["n"], first["resumed"]) == ("agent killed", 1, 1)
    assert (second["survived"], second["resumed"], second["lost"]) == (1, 1, 1)
    assert (second["median_resume_s"], second["max_resume_s"]) == (6.0, 9.0)
