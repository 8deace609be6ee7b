from __future__ import annotations

import threading
from pathlib import Path

from store_records import (
    DEVICE,
    blocks_ns,
    fails,
    record,
    registered,
)

from hwnas_sdk.store.sqlite import MeasurementStore

# --- runs and jobs --------------------------------------------------------------------------------


def test_the_same_plan_goes_on_until_it_is_finished(store: MeasurementStore) -> None:
    plan = {"n": 3, "seed": 7, "items": ["a", "b"]}
    run = store.start_run("measure", plan)
    assert (run.resumed, run.seed, run.plan, run.finished_at) == (False, 7, plan, None)
    again = store.start_run("measure", {"items": ["a", "b"], "seed": 7, "n": 3})
    assert (again.id, again.resumed) == (run.id, True)
    assert store.start_run("measure", {**plan, "seed": 8}).id != run.id
    assert store.start_run("profile", plan).id != run.id
    finished = store.finish_run(run.id, {"front": [1, None]})
    assert finished.finished_at is not None
    assert finished.result == {"front": [1, None]}
    assert store.finish_run(run.id, {"front": [1, None]}) == finished
    with fails("conflict"):
        store.finish_run(run.id, {"front": []})
    new = store.start_run("measure", plan)
    assert (new.id != run.id, new.resumed) == (True, False)
    with fails("unknown_run"):
        store.finish_run("nobody")


def test_a_run_survives_reopening(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with registered(path) as store:
        run = store.start_run("measure", {"n": 1})
        store.add(record(run.id, "a"), blocks_ns(1))
    with registered(path) as store:
        again = store.start_run("measure", {"n": 1})
        assert (again.id, again.resumed) == (run.id, True)
        assert list(store.done_items(again.id)) == ["a"]


def test_runs_are_found_by_id_prefix_and_last(store: MeasurementStore) -> None:
    with fails("unknown_run"):
        store.get_run("last")
    runs = [store.start_run("measure", {"n": n}) for n in range(40)]
    loop = store.start_run("loop", {})
    assert store.get_run("last").id == loop.id
    assert store.get_run("last", kind="measure").id == runs[-1].id
    assert store.get_run(runs[3].id).plan == {"n": 3}
    assert store.get_run(runs[3].id[:12]).id == runs[3].id
    assert [run.id for run in store.runs("loop")] == [loop.id]
    assert [run.id for run in store.runs()] == [r.id for r in (*runs, loop)]
    common = next(c for c in "0123456789abcdef" if sum(r.id[0] == c for r in runs) > 1)
    with fails("ambiguous_run"):
        store.get_run(common)
    for unknown in ("", "%", "zz"):
        with fails("unknown_run"):
            store.get_run(unknown)


def test_open_jobs_are_found_again(store: MeasurementStore) -> None:
    run, other = store.start_run("measure", {}), store.start_run("other", {})
    payload = {"job": {"items": ["a"]}, "attempts": {"a": 1}}
    for job in ("one", "two"):
        store.put_job(job, run_id=run.id, device_id=DEVICE.id, payload=payload)
    store.put_job("one", run_id=run.id, device_id=DEVICE.id, payload=payload)
    assert store.open_jobs(run_id=run.id) == [("one", payload), ("two", payload)]
    assert store.open_jobs(run_id=other.id) == []
    store.close_job("one")
    store.close_job("one")
    assert [job for job, _ in store.open_jobs(run_id=run.id)] == ["two"]
    with fails("conflict"):
        store.put_job("two", run_id=run.id, device_id=DEVICE.id, payload={})
    with fails("unknown_reference"):
        store.put_job("three", run_id="nobody", device_id=DEVICE.id, payload={})


# --- life -----------------------------------------------------------------------------------------


def test_info_counts(store: MeasurementStore) -> None:
    run = store.start_run("measure", {})
    store.add(record(run.id, "a"), blocks_ns(1))
    store.add(record(run.id, "b", flags=("steal",)), blocks_ns(1))
    info = store.info()
    assert info["path"] == str(store.path)
    assert info["schema_version"] == 1
    assert info["size_bytes"] > 10_000
    assert info["counts"]["measurement"] == info["counts"]["samples"] == 2
    assert info["origins"] == {"measured": 2}
    assert info["devices"] == [
        {"id": "x86-1", "name": "local", "machine": "bare", "n_measurements": 2, "n_valid": 1}
    ]
    assert info["n_unfinished_runs"] == 1


def test_threads_may_share_a_store(store: MeasurementStore) -> None:
    run = store.start_run("measure", {})
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for number in range(20):
                # Half of the items are everybody's.
                item = f"{thread}/{number}" if number % 2 else f"all/{number}"
                store.add(record(run.id, item), blocks_ns(number))
                store.done_items(run.id)
        except BaseException as exc:  # noqa: BLE001
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store.done_items(run.id)) == 4 * 10 + 10
    assert store.check() == []


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = MeasurementStore.open(tmp_path / "store.sqlite")
    store.close()
    store.close()
    with fails("store_closed"):
        store.runs()


def test_text_that_is_no_text_is_refused(store: MeasurementStore) -> None:
    with fails("bad_row"):
        store.get_run("\udc80")
    with fails("bad_row"):
        store.put_architecture("a\udc80", space="x", arch="x", genotype=())
