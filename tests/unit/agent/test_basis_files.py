"""The record of a restore's basis files."""

import threading
import time

from turku.agent.restore.staging.basis_files import BasisFiles


def test_the_database_stays_open_while_another_thread_reads_from_it() -> None:
    files = BasisFiles()
    has_begun, has_ended = threading.Event(), threading.Event()
    found: list[object] = []

    def read_slowly() -> int:
        has_begun.set()
        time.sleep(0.3)
        has_ended.set()
        return 7

    files._database.create_function("slow", 0, read_slowly)
    reader = threading.Thread(target=lambda: found.extend(files._rows("SELECT slow()", ())))
    reader.start()
    assert has_begun.wait(10)
    files.close()
    assert has_ended.is_set()
    reader.join()
    assert found == [(7,)]
