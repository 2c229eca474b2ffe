"""Private Redis servers for the end-to-end tests: one, or a Cluster of three."""
import json, subprocess
from databases import find, quiet
from harness import Failed, free_port, until


class Redis:
    def __init__(self, place, *options, name="redis"):
        self.place, self.options, self.name = place, options, name
        self.port, self.process = free_port(), None
        self.home = place.dir / f"{name}-{self.port}"
        self.home.mkdir()
        self.start()

    def start(self):
        with open(self.home / "log", "ab") as log:
            self.process = self.place.process(
                find("redis-server"), "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                "--dir", self.home, *self.options, stdout=log, stderr=log)
        until("redis answers", self.answers)

    def answers(self):
        try:
            return self.command("ping") == "PONG"
        except Failed:
            return False

    def command(self, *words):
        more = ["-c"] if self.options else []
        return quiet(find("redis-cli"), "-p", self.port, *more, *words, timeout=20).strip()

    def url(self):
        return f"127.0.0.1:{self.port}"

    def fields(self, key):
        """A map as a dict."""
        lines = self.command("hgetall", key).splitlines()
        return {name: json.loads(value) for name, value in zip(lines[::2], lines[1::2])}

    def kill(self):
        self.process.kill()
        self.process.wait()


class Cluster:
    """Three masters that share the slots."""

    def __init__(self, place):
        options = lambda: ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", free_port())
        self.nodes = [Redis(place, *options(), name=f"node{n}") for n in range(3)]
        slots = [(0, 5460), (5461, 10922), (10923, 16383)]
        for node, (first, last) in zip(self.nodes, slots):
            node.command("cluster", "addslotsrange", first, last)
        for other in self.nodes[1:]:
            self.nodes[0].command("cluster", "meet", "127.0.0.1", other.port, other.options[-1])
        until("the cluster is whole", lambda: all(self.whole(node) for node in self.nodes))

    @staticmethod
    def whole(node):
        info = node.command("cluster", "info")
        return "cluster_state:ok" in info and "cluster_known_nodes:3" in info

    def url(self):
        return ",".join(node.url() for node in self.nodes)

    def fields(self, key):
        return self.nodes[0].fields(key)

    def command(self, *words):
        return self.nodes[0].command(*words)

    def kill(self):
        for node in self.nodes:
            node.kill()

    def start(self):
        for node in self.nodes:
            node.start()
        until("the cluster is whole", lambda: all(self.whole(node) for node in self.nodes))
