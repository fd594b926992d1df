"""Takes webhooks and appends their bodies to a file: receiver.py ADDRESS FILE. Prints the port that it listens on."""

import http.server
import sys


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open(sys.argv[2], "ab") as file:
            file.write(body + b"\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer((sys.argv[1], 0), Receiver)
print(server.server_port, flush=True)
server.serve_forever()
