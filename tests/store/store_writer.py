"""A process that adds measurements until it is killed; prints each item once it is stored.

Usage: store_writer.py STORE PREFIX COUNT
"""

from __future__ import annotations

import sys
from pathlib import Path

from store_records import blocks_ns, record, registered


def main(path: Path, prefix: str, count: int) -> None:
    with registered(path) as store:
        run = store.start_run("measure", {"prefix": prefix, "seed": 3})
        for number in range(len(store.done_items(run.id)), count):
            item = f"{prefix}{number}"
            store.put_job(item, run_id=run.id, device_id="x86-1", payload={"item": item})
            if store.add(record(run.id, item), blocks_ns(number)):
                sys.stdout.write(f"{run.id} {item} {number}\n")
                sys.stdout.flush()
            store.close_job(item)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
