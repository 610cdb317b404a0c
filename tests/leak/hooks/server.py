"""Stands in for the scoring server: whoever asks is told what the package's hooks could do."""

import http.server
import json
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        import hooked
        import spy

        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = json.dumps({"build": json.loads(spy.SEEN), "start": hooked.SEEN}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET


if __name__ == "__main__":
    port = int(sys.argv[sys.argv.index("--port") + 1])
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
