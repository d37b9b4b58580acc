"""A language model behind an OpenAI-compatible address on loopback, which misbehaves as it is told to."""

import http.server
import json
import threading
import time


class ChatServer:
    """Answers until it is stopped; a context manager.

    Attributes:
      address: the base URL, up to the version.
      requests: the bodies of all requests so far.
      keys: what they had in the header Authorization.
      answer: `answer(messages) -> text`, or None for a message without content.
      faults: what is done to the next requests, one each: a status that is answered instead, or seconds of silence
        before the answer.
    """

    def __init__(self, answer):
        self.answer, self.faults, self.requests, self.keys = answer, [], [], []
        self._lock = threading.Lock()
        chat = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, text = chat.respond(body, self.headers.get("Authorization"))
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", "0.01")
                self.send_header("Content-Length", str(len(text)))
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):  # a client that did not wait
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}/v1"

    def respond(self, body, key):
        """Returns a status and a body."""
        with self._lock:
            self.requests.append(body)
            self.keys.append(key)
            fault = self.faults.pop(0) if self.faults else 0
        if fault >= 400:
            return fault, json.dumps({"error": {"message": f"no: {key}", "type": "x", "code": None}}).encode()
        time.sleep(fault)
        message = {"role": "assistant", "content": self.answer(body["messages"])}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        reply = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}
        return 200, json.dumps(reply).encode()

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
