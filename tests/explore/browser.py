"""A Chromium without a window, spoken to by its DevTools protocol through pipes."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 60


def program():
    """The path of a browser, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One page.

    Args:
        url: what it shows.
        downloads: folder for what it writes.
        size: `(width, height)` in pixels.
        dark: whether the user prefers dark pages.

    Attributes:
        problems: what the console was told: errors, and what the policy refused.
        requests: addresses that the page asked for.
    """

    def __init__(self, url, downloads=None, size=(1280, 800), dark=False):
        self.problems, self.requests, self._number, self._rest = [], [], 0, b""
        self._profile = tempfile.mkdtemp()
        to_browser, from_us = os.pipe()
        from_browser, to_us = os.pipe()

        def as_three_and_four():
            os.dup2(to_browser, 103)
            os.dup2(to_us, 104)
            os.dup2(103, 3)
            os.dup2(104, 4)

        command = [
            program(),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
            "--force-color-profile=srgb",
            f"--user-data-dir={self._profile}",
            f"--window-size={size[0]},{size[1]}",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            command,
            preexec_fn=as_three_and_four,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(to_us)
        self._in, self._out, self._session = from_us, from_browser, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = session["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        wide, high = size
        screen = {"width": wide, "height": high, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        if downloads:
            place = {"behavior": "allow", "downloadPath": str(downloads)}
            self.call("Page.setDownloadBehavior", **place)
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def call(self, method, **parameters):
        """Calls a method of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._in, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _read(self):
        end = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._out], [], [], end - time.monotonic())
            if not ready:
                raise TimeoutError("the browser does not answer")
            self._rest += os.read(self._out, 2**20)
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        method, said = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(said["exceptionDetails"])[:500])
        elif method == "Log.entryAdded":
            self.problems.append(said["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.problems.append(f"dialog: {said['message']}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])

    def value(self, code):
        """What JavaScript gives, as JSON."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{code}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, condition):
        """Waits until JavaScript gives what is true."""
        end = time.monotonic() + SECONDS
        while not self.value(condition):
            if time.monotonic() > end:
                raise TimeoutError(condition)
            time.sleep(0.05)

    def mouse(self, kind, x, y, **more):
        """Moves, presses or releases the pointer at a place of the page."""
        self.call("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, **more)

    def click(self, x, y):
        """Moves there and clicks."""
        self.mouse("Moved", x, y)
        for kind in ("Pressed", "Released"):
            self.mouse(kind, x, y, button="left", clickCount=1)

    def drag(self, places, **more):
        """Draws a line through places with the left button down."""
        self.mouse("Moved", *places[0])
        self.mouse("Pressed", *places[0], button="left", clickCount=1, **more)
        for place in places[1:]:
            self.mouse("Moved", *place, button="left", buttons=1, **more)
        self.mouse("Released", *places[-1], button="left", clickCount=1, **more)

    def key(self, name, text=""):
        """Presses a key, such as `Enter` or `a`."""
        text = text or (name if len(name) == 1 else "\r" if name == "Enter" else "")
        more = {"text": text} if text else {}
        codes = {"Enter": 13, "Tab": 9, "Escape": 27}
        more["windowsVirtualKeyCode"] = codes.get(name, 0)
        self.call("Input.dispatchKeyEvent", type="keyDown", key=name, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name)

    def picture(self, path):
        """Writes a picture of the page."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def close(self):
        """Ends the browser."""
        self._process.terminate()
        self._process.wait()
        for pipe in (self._in, self._out):
            os.close(pipe)
        shutil.rmtree(self._profile, ignore_errors=True)


@contextlib.contextmanager
def opened(path, **options):
    """Opens a file within, as a `Page`."""
    page = Page(path.resolve().as_uri(), **options)
    try:
        yield page
    finally:
        page.close()
