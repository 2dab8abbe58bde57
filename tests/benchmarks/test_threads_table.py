"""The table of threads: medians of what each command took, and the ratio to one thread alone."""

import subprocess

from benchmarks import threads


def test_the_table_has_medians_alone_and_beside(monkeypatch):
    took = {(1, False): [99.0, 2.0, 4.0, 2.0], (2, False): [3.0] * 3, (None, False): [2.0] * 3,
            (1, True): [5.0, 5.0, 9.0], (2, True): [8.0] * 3, (None, True): [6.0] * 3}  # fmt: skip

    def run(verb, chosen):
        """The first call is not measured."""
        return took[chosen, any(process.poll() is None for process in started)].pop(0)

    started, popen = [], subprocess.Popen
    monkeypatch.setattr(threads.subprocess, "Popen", lambda *args: started.append(popen(*args)) or started[-1])
    monkeypatch.setattr(threads, "run", run)
    monkeypatch.setattr(threads, "count_cores", lambda: 2)
    monkeypatch.setattr(threads, "VERBS", {"generate": ["generate"]})
    lines = threads.measure(3)
    assert lines[2:] == [
        "| generate | 1 | 2.0 | 5.0 | 2.50 |", "| generate | 2 | 3.0 | 8.0 | 4.00 |",
        "| generate | by itself | 2.0 | 6.0 | 3.00 |",
    ]  # fmt: skip
    assert len(started) == 3 * 4 and all(process.poll() is not None for process in started)
