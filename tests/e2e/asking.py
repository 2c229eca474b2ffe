"""Requests that run at the same time while others must not wait; what the log says of an outage."""
import re, threading, time
from harness import Failed, check, until


class Asking:
    """Calls `ask` with each item, each from a thread of its own; it returns a return code, or a tuple that
    begins with one."""

    def __init__(self, ask, items):
        self.found, self.problems = [], []

        def one(item):
            try:
                found = ask(item)
                self.found.append(found[0] if isinstance(found, tuple) else found)
            except Exception as problem:
                self.problems.append(problem)
        self.threads = [threading.Thread(target=one, args=(item,)) for item in items]
        for thread in self.threads:
            thread.start()

    def run(self):
        """Some are not done yet."""
        return any(thread.is_alive() for thread in self.threads)

    def codes(self):
        for thread in self.threads:
            thread.join()
        if self.problems:
            raise self.problems[0]
        return sorted(self.found)


def plays_on(place, server, asking=None):
    """Others are answered while something waits."""
    begin = time.monotonic()
    check(place.phone(server, ip="127.0.0.2").request("OPTIONS", "sip:example.com").status, 200, "OPTIONS")
    took = time.monotonic() - begin
    if asking and not asking.run():
        raise Failed("the others were over before the OPTIONS")
    if took > 0.5:
        raise Failed(f"the OPTIONS took {took * 1000:.0f} ms")


def lines(server, pattern):
    return len(re.findall(pattern, server.log_text()))


def said_once(server, pattern):
    """One line in the log, which is written beside the workers."""
    until(f"a line like {pattern}", lambda: lines(server, pattern))
    check(lines(server, pattern), 1, f"lines like {pattern}")
