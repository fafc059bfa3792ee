"""Progress reaches the installed reporter, and nothing else."""

from contextlib import contextmanager

from mobiledeploy.utils.progress import reporting_to, step, track, warn


class Recorder:
    """A reporter that records its calls."""

    def __init__(self):
        self.events = []

    @contextmanager
    def step(self, description):
        self.events.append(f"{description} begins")
        yield
        self.events.append(f"{description} ends")

    def track(self, items, description, total):
        for number, item in enumerate(items, 1):
            yield item
            self.events.append(f"{description} {number}/{total}")

    def warn(self, message):
        self.events.append(f"warning: {message}")


def test_steps_reach_the_reporter():
    recorder = Recorder()
    with reporting_to(recorder):
        with step("Folding"):
            pass
        assert list(track("ab", "Reading", 2)) == ["a", "b"]
        warn("few")
    assert recorder.events == [
        *("Folding begins", "Folding ends", "Reading 1/2", "Reading 2/2", "warning: few")
    ]


def test_without_a_reporter_nothing_is_reported():
    recorder = Recorder()
    with reporting_to(recorder):
        pass
    with step("Folding"):
        pass
    assert list(track("ab", "Reading", 2)) == ["a", "b"]
    warn("few")
    assert recorder.events == []
