"""One line for each check, and the closing count."""

import time
import traceback


class Failed(Exception):
    """A check's finding that the system under test did wrong."""


def expect(condition, finding):
    if not condition:
        raise Failed(finding)


class Report:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def check(self, name, body):
        """Runs body; what it returns is printed as the evidence."""
        started = time.monotonic()
        try:
            evidence = body()
        except Exception as error:  # a check that cannot be made has failed, whatever the reason
            self.fail(name, error)
            return
        self.passed += 1
        print(f"ok    {name} ({time.monotonic() - started:.1f} s){f': {evidence}' if evidence else ''}", flush=True)

    def fail(self, name, error):
        self.failed += 1
        print(f"FAIL  {name}: {error}", flush=True)
        if not isinstance(error, Failed):
            traceback.print_exception(error)

    def skip(self, name, reason):
        self.skipped += 1
        print(f"skip  {name}: {reason}", flush=True)

    def suite(self, name, body):
        try:
            body()
        except Exception as error:  # e.g. a peer did not start: the other suites still run
            self.fail(name, error)

    def close(self):
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped", flush=True)
        return 1 if self.failed else 0
