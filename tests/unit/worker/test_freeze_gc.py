"""What a worker does after loading."""

import gc

from broadcast.worker.runtime import freeze_gc


def test_collector_works_again_and_leaves_alone_what_was_loaded():
    gc.disable()
    try:
        freeze_gc()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 10_000
        assert not gc.get_objects(generation=2)
    finally:
        gc.unfreeze()
        gc.enable()
