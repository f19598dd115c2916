"""Several publications at once: none fails, and the last one is what is seen."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from service.settings import Settings
from service.store.store import Store


def test_publications_at_once(tmp_path: Path) -> None:
    store = Store(Settings(data_dir=tmp_path / "data"))
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(store.lens.publish) for _ in range(8)]:
            done.result()
    (left,) = (tmp_path / "data" / ".lens").iterdir()
    assert left.samefile(tmp_path / "data" / "lens.duckdb")
    store.close()
