"""Runs a story through a proxy that writes down what the server was asked and how it answered.

    recorder.py FILE NAME COMMAND...      reads POSTHASTE_URL, and gives the command its own

Each line of the file is the name, a tab, and method, path and status. The exit status is the command's.
"""

import http.client
import http.server
import os
import subprocess
import sys
import threading
import urllib.parse

FILE, NAME, COMMAND = sys.argv[1], sys.argv[2], sys.argv[3:]
UPSTREAM = urllib.parse.urlsplit(os.environ["POSTHASTE_URL"]).netloc
# What belongs to one connection.
OWN = {"connection", "transfer-encoding", "content-length", "keep-alive"}
seen = open(FILE, "a", encoding="utf-8")
writing = threading.Lock()


class Recorder(http.server.BaseHTTPRequestHandler):
    """Passes a request on as it came, and the answer back."""

    protocol_version = "HTTP/1.1"

    def pass_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        upstream = http.client.HTTPConnection(UPSTREAM, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in OWN}
        if "Content-Length" in self.headers:
            headers["Content-Length"] = str(len(body))
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        with writing:
            seen.write(f"{NAME}\t{self.command} {self.path.split('?')[0]} {answer.status}\n")
            seen.flush()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in OWN:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        upstream.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

    def log_message(self, *_):
        pass


proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
threading.Thread(target=proxy.serve_forever, daemon=True).start()
environment = {**os.environ, "POSTHASTE_URL": f"http://127.0.0.1:{proxy.server_port}"}
sys.exit(subprocess.run(COMMAND, env=environment, check=False).returncode)
