"""A real browser: Debian's Chromium without a window, driven over its own protocol (one WebSocket)."""
import base64, itertools, json, re, subprocess, urllib.request
from harness import Failed, until


class Browser:
    """One Chromium with one page; it ends with the test."""

    def __init__(self, place, *switches):
        from websockets.sync.client import connect
        self.log = place.dir / "chromium.log"
        with open(self.log, "wb") as log:
            place.process("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                          "--remote-debugging-port=0", f"--user-data-dir={place.dir / 'chromium'}", *switches, "about:blank",
                          stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        port = until("Chromium listens", lambda: re.search(r"ws://127\.0\.0\.1:(\d+)/", self.log.read_text(errors="replace")))[1]
        pages = until("a page", lambda: [p for p in json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json")) if p["type"] == "page"])
        self.socket = connect(pages[0]["webSocketDebuggerUrl"], max_size=None, open_timeout=20)
        place.ending.callback(self.socket.close)
        self.numbers, self.events = itertools.count(1), []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.tell(f"{domain}.enable")

    def tell(self, method, **params):
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=30))
            if message.get("id") != number:
                self.events.append(message)
            elif "error" in message:
                raise Failed(f"{method}: {message['error']}")
            else:
                return message["result"]

    def size(self, width, height, dark=False):
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def open(self, url):
        found = self.tell("Page.navigate", url=url)
        if "errorText" in found:
            raise Failed(f"{url}: {found['errorText']}")

    def run(self, script):
        """The value of an expression in the page; a promise is awaited."""
        found = self.tell("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise Failed(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def until(self, what, script, **more):
        """Until an expression is true; what it looks for may not be there yet."""
        safe = f"(() => {{ try {{ return {script} }} catch {{ return false }} }})()"
        return until(what, lambda: self.run(safe), **more)

    def key(self, key):
        text = {"text": {"Enter": "\r"}.get(key, key)} if len(key) == 1 or key == "Enter" else {}
        codes = {"Enter": 13, "ArrowDown": 40, "ArrowUp": 38, "Escape": 27}
        for kind in ("keyDown", "keyUp"):
            self.tell("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=codes.get(key, ord(key[0].upper())), **(text if kind == "keyDown" else {}))

    def picture(self, path):
        path.write_bytes(base64.b64decode(self.tell("Page.captureScreenshot", format="png")["data"]))

    def complaints(self):
        """What the page's scripts did wrong."""
        self.run("1")
        wrong = [e for e in self.events if e["method"] == "Runtime.exceptionThrown"
                 or e["method"] == "Log.entryAdded" and e["params"]["entry"]["level"] == "error"]
        return [json.dumps(e["params"])[:500] for e in wrong]
