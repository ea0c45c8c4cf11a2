"""Drives a headless Chromium over its debugging pipe, with nothing but the standard library."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--mute-audio", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=127.0.0.1:9", "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip
RULES = "--host-resolver-rules"
PATIENCE = 60.0  # seconds


def find_chromium() -> str | None:
    """Return the browser that $AVP_CHROMIUM names or that is installed, or None."""
    if os.name != "posix":
        return None  # the pipes are passed on as POSIX systems can
    given = os.environ.get("AVP_CHROMIUM")
    return given or next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One page in a browser without a network; records requests, console errors, exceptions.

    With `loopback`, pages of a server on this machine are reached, at 127.0.0.1.
    """

    def __init__(
        self, profile: Path, *, width: int = 1280, height: int = 1100, loopback: bool = False
    ) -> None:
        command = find_chromium()
        assert command is not None
        self._in, child_out = os.pipe()
        child_in, self._out = os.pipe()
        self._rest, self._number = b"", 0
        self.requests: list[str] = []
        self.errors: list[str] = []

        # The browser reads commands from 3 and writes answers to 4; the pipes may be these.
        def plumb() -> None:
            one, two = os.dup(child_in), os.dup(child_out)
            high = (os.dup2(one, 63), os.dup2(two, 64))
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        flags = [
            *(f"{f},EXCLUDE 127.0.0.1" if loopback and f.startswith(RULES) else f for f in FLAGS),
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            "--remote-debugging-pipe",
        ]
        self._child = subprocess.Popen(
            [command, *flags, "about:blank"],
            preexec_fn=plumb, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(child_in)
        os.close(child_out)
        pages = [t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        target = (
            pages[0]["targetId"]
            if pages
            else self.send("Target.createTarget", url="about:blank")["targetId"]
        )
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command; return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        number = self._number
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def open(self, address: str) -> None:
        """Open a page and wait until its script has run."""
        self.send(
            "Page.navigate", url="about:blank"
        )  # so that an earlier page of this address is not taken for the new one
        self.wait_for("location.href === 'about:blank' && document.readyState === 'complete'")
        self.requests.clear()
        self.errors.clear()
        self.send("Page.navigate", url=address)
        self.wait_for(
            "document.readyState === 'complete' && document.body && "
            "document.body.dataset.ready === 'yes'"
        )

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < end, f"still not: {expression}"
            time.sleep(0.05)

    def press(
        self, key: str, *, text: str | None = None, shift: bool = False, control: bool = False
    ) -> None:
        """Press and release a key."""
        codes = {
            "Tab": 9,
            "Enter": 13,
            " ": 32,
            "End": 35,
            "Home": 36,
            "ArrowLeft": 37,
            "ArrowRight": 39,
            "Delete": 46,
            "z": 90,
        }
        common = {
            "key": key,
            "windowsVirtualKeyCode": codes.get(key, 0),
            "modifiers": (8 if shift else 0) + (2 if control else 0),
        }
        typed = {"text": text} if text else {}
        self.send(
            "Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **common, **typed
        )
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        """Type a text into the field that has the focus, in place of what it holds."""
        self.press("a", control=True)
        for letter in text:
            self.press(letter, text=letter)

    def click(self, x: float, y: float) -> None:
        """Click at a place of the window."""
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Return left, top, width and height of the first element that a selector finds."""
        found = self.evaluate(
            f"(b => [b.x, b.y, b.width, b.height])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        return tuple(found)

    def push(self, selector: str) -> None:
        """Click in the middle of an element."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).scrollIntoViewIfNeeded()")
        left, top, width, height = self.box(selector)
        self.click(left + width / 2, top + height / 2)

    def drag(self, x: float, y: float, *, to: float) -> None:
        """Press at a place, move to another x in steps, and release."""
        place = {"y": y, "button": "left", "buttons": 1}
        self.send("Input.dispatchMouseEvent", type="mousePressed", x=x, clickCount=1, **place)
        for step in range(1, 6):
            self.send(
                "Input.dispatchMouseEvent", type="mouseMoved", x=x + (to - x) * step / 5, **place
            )
        self.send("Input.dispatchMouseEvent", type="mouseReleased", x=to, clickCount=1, **place)

    def downloads(self, folder: Path) -> None:
        """Write what pages save into a folder, without asking."""
        session = self.__dict__.pop("_session")
        self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        self._session = session

    def dark(self, dark: bool) -> None:
        """Ask for dark or light pages."""
        value = "dark" if dark else "light"
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": value}],
        )

    def screenshot(self, file: Path, *, whole: bool = True) -> None:
        """Write a picture of the page."""
        answer = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(answer["data"]))

    def close(self) -> None:
        """End the browser."""
        try:
            del self._session
            self.send("Browser.close")
        except (OSError, RuntimeError, EOFError, AssertionError):
            self._child.kill()
        self._child.wait(timeout=PATIENCE)
        os.close(self._in)
        os.close(self._out)

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._in, 2**20)
            if not part:
                raise EOFError("the browser has ended")
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        found = json.loads(message)
        self._note(found.get("method"), found.get("params", {}))
        return found

    def _note(self, method: str | None, params: dict[str, Any]) -> None:
        if method == "Page.javascriptDialogOpening":  # "leave without saving?"
            self._number += 1
            answer = {
                "id": self._number,
                "method": "Page.handleJavaScriptDialog",
                "params": {"accept": True},
                "sessionId": self._session,
            }
            os.write(self._out, json.dumps(answer).encode() + b"\0")
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(
                str(params["exceptionDetails"].get("exception", params["exceptionDetails"]))
            )
        elif method == "Runtime.consoleAPICalled" and params["type"] in (
            "error",
            "warning",
            "assert",
        ):
            self.errors.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
