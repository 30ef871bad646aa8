"""A real web server over a folder that fails on purpose."""

import http.server
import os
import socketserver
import threading
import time
from contextlib import contextmanager


class Faulty(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; `faults` says what goes wrong with which file, and how often."""

    def do_GET(self):  # noqa: N802
        server = self.server
        name = os.path.basename(self.path)
        with server.lock:
            server.asked.append(name)
            fault = next((f for f in server.faults if f[0] in (name, "*") and f[2] > 0), None)
            if fault:
                fault[2] -= 1
        if fault is None:
            return super().do_GET()
        if isinstance(fault[1], int):
            return self.send_error(fault[1])
        if "://" in fault[1]:
            self.send_response(302)
            self.send_header("Location", fault[1])
            return self.end_headers()
        if fault[1] == "silence":
            time.sleep(2)
            return None
        content = open(self.translate_path(self.path), "rb").read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault[1] == "short":
            self.wfile.write(content[: len(content) // 2])
        elif fault[1] == "trickle":
            for i in range(len(content)):
                self.wfile.write(content[i : i + 1])
                time.sleep(0.05)
        else:  # changed
            self.wfile.write(content[:-600] + b"?" * 600)
        return None

    def log_message(self, *args):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


@contextmanager
def serving(folder):
    """The server, at `server.address`, until the block ends."""
    handler = type("Handler", (Faulty,), {})
    handler.__init__ = lambda self, *a: Faulty.__init__(self, *a, directory=str(folder))
    with Server(("127.0.0.1", 0), handler) as server:
        server.faults, server.asked, server.lock = [], [], threading.Lock()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.address = f"http://127.0.0.1:{server.server_address[1]}"
        yield server
        server.shutdown()
