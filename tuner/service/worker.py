"""One worker on one study: it takes trials and trains them until nothing is left or it is told to stop."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import torch

from tuner.errors import StudyStopped
from tuner.home import Home
from tuner.service.desk import Worker, open_desk
from tuner.service.identity import gone, identity
from tuner.service.leases import Leases
from tuner.storage import FAILED, Database, Store


def work_on(study: str, home: Home, stop: threading.Event | Any, threads: int | None = None) -> None:
    """Work on a study until its budget is spent, or `stop` is set.

    Args:
        study: its name in the storage.
        home: where the storage and the checkpoints are.
        stop: an event (of threads or of processes); when it is set, the trial at hand goes back to the queue.
        threads: torch threads of this worker; None leaves them as they are.

    Raises:
        StudyStopped: the study itself is wrong; its state in the storage is failed, with the reason.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    database = Database(home.storage)
    store = Store(database)
    row = store.study(study)
    store.reclaim(row.id, gone)
    leases = Leases(store)
    cpu = time.process_time()
    gc.freeze()  # collections need not look through all that was imported, again and again while thousands are read
    try:
        open_desk(Worker(store, home, identity(), stop.is_set, stop.wait, leases.hold), row).run()
        store.add_ledger(row.id, {"worker_cpu": time.process_time() - cpu})
    except StudyStopped as error:
        store.set_state(row.id, FAILED, str(error))
        raise
    finally:
        gc.unfreeze()
        leases.close()
        database.close()
